"""Autocast in fp16 with its GradScaler, and in bf16, on B = 128 examples that fire at up to 70 %."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import tracegrad as tg

T, B = 4, 128
TIMES = ("per_step", "mean", "final")


@partial(tg.register_neuron, step=True, state="v")
class Cell(nn.Module):
    """One step of a neuron that fires at 0.5; powers of two, which fp16 holds exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.v: Tensor | None = None

    def forward(self, current: Tensor) -> Tensor:
        u = current.float() if self.v is None else 0.5 * self.v + current.float()
        distance = u.detach() - 0.5
        spikes = (distance >= 0).to(u) + (u - u.detach()) * (distance.abs() <= 2)
        self.v = u - spikes.detach()
        return spikes


class AtOnce(nn.Module):
    """A synapse whose input is spikes, and its neuron; a second one, so that a gradient passes through."""

    def __init__(self, synapse: Callable[[], nn.Module], neuron: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.neuron1, self.second, self.neuron2 = synapse(), neuron(), synapse(), neuron()

    def forward(self, x: Tensor) -> Tensor:
        for synapse, neuron in ((self.first, self.neuron1), (self.second, self.neuron2)):
            x = neuron(synapse(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        return x


class StepByStep(AtOnce):
    def forward(self, x: Tensor) -> Tensor:
        self.neuron1.v = self.neuron2.v = None
        return torch.stack([self.neuron2(self.second(self.neuron1(self.first(frame)))) for frame in x])


convolution = partial(nn.Conv2d, 2, 2, 3, padding=1)
NETWORKS = {
    "convolutional": (partial(AtOnce, convolution, partial(tg.LIF, leak=0.5)), (2, 16, 16)),
    "linear": (partial(AtOnce, partial(nn.Linear, 64, 64), partial(tg.LIF, leak=0.5)), (64,)),
    "step-by-step": (partial(StepByStep, convolution, Cell), (2, 16, 16)),
}


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("rate", [0.2, 0.7])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_scaled_gradients_are_those_of_float32(name: str, dtype: torch.dtype, rate: float, time: str) -> None:
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = build()
    with torch.no_grad():
        for synapse in (model.first, model.second):  # what fp16 and bf16 hold exactly
            synapse.weight.copy_(torch.randint(-2, 3, synapse.weight.shape) / (8 if synapse.weight.dim() > 2 else 16))
            synapse.bias.fill_(0.25)
    x = (torch.rand(T, B, *shape) < rate).float()
    attachment = tg.attach(model, x[:, :2], spiking_input=True, alpha=0.5, time=time, record=True)
    scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)

    def run(enabled: bool) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        model.zero_grad()
        with torch.autocast("cpu", dtype, enabled=enabled):
            spikes = model(x)
        scaler.scale(spikes.float().square().mean()).backward()
        scale = scaler.get_scale()
        return (
            spikes.float(),
            {name: parameter.grad / scale for name, parameter in model.named_parameters()},
            dict(attachment.relations),
        )

    (exact_spikes, exact, exact_relations), (spikes, ours, relations) = run(False), run(True)
    assert torch.equal(spikes, exact_spikes), "the case is void: spikes differ"
    assert all(gradient.any() for gradient in exact.values()), "the case is void: no gradient"
    for synapse in ("first", "second"):
        assert relations[synapse].isfinite().all()
        error = (relations[synapse] - exact_relations[synapse]).abs().max().item()
        assert error <= 0.01, f"R_hat of {synapse} is off by {error:.4f}"
        weight = f"{synapse}.weight"
        assert ours[weight].isfinite().all(), weight
        if dtype == torch.bfloat16:  # its gradients are off by more without scaling, too
            continue
        error = ((ours[weight] - exact[weight]).norm() / exact[weight].norm()).item()
        assert error <= 0.01, f"the gradient of {weight} is off by {error:.2%}"
