"""Which functions between activations are affine, and which ones are found out."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracegrad.methods.linearity import check_linear


class Network(nn.Module):
    """A function between two layers."""

    def __init__(self, function) -> None:
        super().__init__()
        self.conv, self.relu, self.function = nn.Conv2d(1, 4, 3), nn.ReLU(), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.relu(self.conv(x) - 0.1))


def written_part_by_part(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    out[:, :2], out[:, 2:] = x[:, :2], 3 * x[:, 2:]
    return out


def zeroed_in_place(x: Tensor) -> Tensor:
    x[x < 1] = 0
    return x


def clipped_through_data(x: Tensor) -> Tensor:
    x.data.clamp_(max=0.2)
    return x


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it is deprecated, and in use

    @torch.jit.script
    def scripted(x: Tensor) -> Tensor:
        return torch.relu(x - 1)


AFFINE = {
    "nothing": lambda x: x,
    "scale and shift": lambda x: 1 - x / 3,
    "parts": written_part_by_part,
    "zeros and ones": lambda x: x * torch.ones_like(x) + torch.zeros_like(x),
    "pad": lambda x: F.pad(x, (1, 1, 1, 1)),
    "mean": lambda x: x.mean((2, 3)),
    "average pool": lambda x: F.avg_pool2d(x, 2),
    "upsampling": nn.Upsample(scale_factor=2, mode="bilinear"),
    "product with constants": lambda x: torch.einsum("bchw,cd->bdhw", x, torch.arange(16).to(x).view(4, 4)),
    "batch norm": nn.BatchNorm2d(4),
    "transposed convolution": nn.ConvTranspose2d(4, 2, 3),
    "weight norm": nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 2, 3)),
    "dropout": nn.Dropout(),
    "concatenation": lambda x: torch.cat([x, 2 * x], 1),
    "lower precision": lambda x: x.bfloat16().float(),
    "another ReLU": nn.ReLU(inplace=True),
}

CURVED = {
    "one neuron": lambda x: F.relu(x.mean((1, 2, 3)) - 1),
    "odd": torch.tanh,
    "odd and flat": lambda x: x.clamp(-10, 10),
    "in place": zeroed_in_place,
    "through data": clipped_through_data,
    "scripted": scripted,
    "absolute value": lambda x: (x + x.abs()) / 2,
    "mask": lambda x: torch.where(x > 1, x, 0),
    "masked": lambda x: x.masked_fill(x < 1, 0),
    "maximum of two": lambda x: torch.maximum(x, -x),
    "square": lambda x: x * x,
    "attention": lambda x: x @ x.mT,
    "softmax": nn.Softmax(1),
    "norm of each example": nn.LayerNorm(6),
    "largest": lambda x: x.flatten(1).topk(3).values,
    "its place": lambda x: torch.eye(36)[x.flatten(2).argmax(2)],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", AFFINE)
def test_affine_functions_pass(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = Network(AFFINE[name]).eval().to(dtype)
    check_linear(network, 50 * torch.randn(2, 1, 8, 8, dtype=dtype), (nn.ReLU,))


@pytest.mark.parametrize("scale", [1e-3, 1, 50])
@pytest.mark.parametrize("name", CURVED)
def test_others_are_refused_whatever_the_size_of_the_activations(name: str, scale: float) -> None:
    torch.manual_seed(0)
    network = Network(CURVED[name]).eval()
    nn.init.uniform_(network.conv.weight, 0, scale)
    with pytest.raises(
        ValueError, match=r"the forward of (Network|'function' \(\w+\)) computes '\w+', which is not li"
    ):
        check_linear(network, torch.rand(2, 1, 8, 8), (nn.ReLU,))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_what_is_computed_of_the_image_alone_may_be_anything() -> None:
    class Prepares(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, image: Tensor) -> Tensor:
            return self.fc((image.float() / 255).clamp(0, 1).sqrt())

    check_linear(Prepares(), torch.randint(0, 256, (2, 3), dtype=torch.uint8), (nn.ReLU,))


def test_a_relu_of_the_image_makes_it_activations() -> None:
    network = nn.Sequential(nn.ReLU(), nn.GELU())
    with pytest.raises(ValueError, match=r"the forward of '1' \(GELU\) computes 'gelu'"):
        check_linear(network, torch.rand(2, 3), (nn.ReLU,))


def test_weights_of_zero_hide_nothing() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.GELU())
    nn.init.zeros_(network[0].weight)
    with pytest.raises(ValueError, match=r"the forward of '1' \(GELU\) computes 'gelu'"):
        check_linear(network, torch.rand(2, 3), (nn.ReLU,))


def test_compiled_networks_are_looked_into() -> None:
    network = torch.compile(Network(torch.tanh).eval(), backend="eager", fullgraph=True)
    with pytest.raises(ValueError, match="computes 'tanh'"):
        check_linear(network, torch.rand(2, 1, 8, 8), (nn.ReLU,))


def test_nothing_is_left_behind() -> None:
    network = Network(nn.BatchNorm2d(4)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    image, random = torch.zeros(2, 1, 8, 8), torch.get_rng_state()
    check_linear(network, image, (nn.ReLU,))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
