import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tracegrad as tg
from tracegrad.methods.qcfs import QCFS, convert_qcfs, count_levels


def formula(x: float, lam: float, levels: int) -> float:
    return lam * math.floor(levels * min(max(x / lam, 0.0), 1.0) + 0.5) / levels


def activation(levels: int, lam: float) -> QCFS:
    layer = QCFS(levels).double()
    nn.init.constant_(layer.lam, lam)
    return layer


@pytest.mark.parametrize("levels", [1, 4, 8])
@pytest.mark.parametrize("lam", [0.3, 1.0, 8.0])
def test_activation_and_gradients_are_the_formulas(levels: int, lam: float) -> None:
    torch.manual_seed(0)
    inside = torch.tensor([0.001, 0.05, 0.3, 0.5, 0.95, 0.999]).double() * lam
    x = torch.cat([torch.randn(200).double() * lam, inside, torch.tensor([-1.0, -1e-9, 2 * lam]).double()])
    x.requires_grad_()
    h = activation(levels, lam)
    y = h(x)
    torch.testing.assert_close(
        y.tolist(), [formula(value, h.lam.item(), levels) for value in x.tolist()], rtol=1e-14, atol=0
    )
    weights = torch.randn_like(x)
    for_x, for_lam = torch.autograd.grad((y * weights).sum(), [x, h.lam])
    is_inside = (x > 0) & (x < lam)
    torch.testing.assert_close(for_x, weights * is_inside, rtol=1e-14, atol=0)
    # h = lam * floor(...) / L with floor' = 1: the product rule inside, the constant lam above, 0 below
    by_lam = [
        0.0 if value < 0 else 1.0 if value > lam else (formula(value, lam, levels) - value) / lam
        for value in x.tolist()
    ]
    torch.testing.assert_close(
        for_lam, (weights * torch.tensor(by_lam, dtype=torch.float64)).sum(), rtol=1e-12, atol=1e-12
    )


def test_the_gradient_is_1_at_the_edges_of_the_open_interval() -> None:
    """A straight-through floor before the clip would lose the edges, where the shifted floor leaves [0, 1]."""
    h = activation(4, 2.0)
    x = (torch.tensor([0.05, 0.95]).double() * 2).requires_grad_()
    assert torch.autograd.grad(h(x).sum(), x)[0].tolist() == [1, 1]


@pytest.mark.parametrize("levels", [1, 2, 4, 8])
def test_a_converted_layer_fires_exactly_h_at_t_of_l(levels: int) -> None:
    torch.manual_seed(0)
    h = activation(levels, 1.7)
    x = torch.cat([torch.randn(5000).double() * 2, torch.tensor([0.0, 1.7, 5.0]).double()])[None]
    spikes = convert_qcfs(h, example=x)(x.expand(levels, *x.shape))
    assert set(spikes.unique().tolist()) == {0.0, h.lam.item()}
    torch.testing.assert_close(spikes.mean(0), h(x), rtol=1e-14, atol=0)


class Plain(nn.Module):
    """A network of a user's own, without time."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), QCFS(16, 2.0), nn.AvgPool2d(2), nn.Conv2d(6, 8, 3), QCFS(16, 2.0)
        )
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


@pytest.mark.parametrize("kind", ["own", "resnet", "tebn"])
def test_a_converted_network_nears_its_source_as_t_grows(kind: str) -> None:
    torch.manual_seed(0)
    network = Plain()
    if kind != "own":
        norm = "tebn" if kind == "tebn" else "tdbn"
        network = tg.models.resnet(
            in_channels=1, blocks=[1, 1], width=8, time_steps=1, norm=norm, neuron=partial(QCFS, 16, 3.0)
        )
    images = torch.randn(4, 1, 12, 12)
    for _ in range(30):
        network(images)  # running statistics
    network.eval()
    expected = network(images) if kind == "own" else network(images)[0]
    before = copy.deepcopy(network.state_dict())
    errors = []
    for time_steps in (2, 16, 64):
        outputs = convert_qcfs(network, time_steps, images)(images)
        assert outputs.shape == (time_steps, 4, 10)
        errors.append(((outputs.mean(0) - expected).norm() / expected.norm()).item())
    assert errors[1] < errors[0], errors
    assert errors[-1] < 0.1, f"relative errors at T = 2, 16, 64: {errors}"
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_pools_become_averages_and_one_activation_stays_one() -> None:
    shared = QCFS()
    network = nn.Sequential(shared, nn.MaxPool2d(3, 2, 1), shared, nn.AdaptiveMaxPool2d(1))
    converted = convert_qcfs(network, example=torch.ones(1, 1, 5, 5))
    assert converted[0] is converted[2]
    assert isinstance(converted[0], tg.IF)
    assert isinstance(converted[3], nn.AdaptiveAvgPool2d)
    ones = torch.ones(1, 1, 5, 5)
    assert torch.equal(converted[1](ones), torch.ones(1, 1, 3, 3)), "windows or borders differ"
    assert isinstance(network[1], nn.MaxPool2d)


def test_thresholds_are_saved_with_the_weights() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 1, 12, 12)
    first, second = (convert_qcfs(Plain(), 4, images) for _ in range(2))
    first.network.features[2].neuron.threshold.fill_(0.5)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(images), second(images))


class Around(nn.Module):
    """A QCFS network that calls something of its own between its layers."""

    def __init__(self, then) -> None:
        super().__init__()
        self.conv, self.first, self.then = nn.Conv2d(1, 3, 3), QCFS(16, 2.0), then
        self.last = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), QCFS(16, 2.0), nn.Flatten(), nn.LazyLinear(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.then(self.first(self.conv(x))))


class Doubled(QCFS):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("then", "message"),
    [
        (lambda x: F.max_pool2d(x, 2), "forward of Around computes 'max_pool2d_with_indices', which is not linear"),
        (lambda x: F.adaptive_max_pool2d(x, 1), "forward of Around computes 'adaptive_max_pool2d'"),
        (lambda x: x.amax((2, 3), keepdim=True), "forward of Around computes 'amax'"),
        (lambda x: F.relu(x - 1), "forward of Around computes 'relu'"),
        (nn.ReLU(), r"forward of 'then' \(ReLU\) computes 'relu'.* modules of class QCFS or MaxPool1d or MaxPool2d"),
        (nn.FractionalMaxPool2d(2, 3), r"forward of 'then' \(FractionalMaxPool2d\) computes 'fractional_max_pool2d'"),
        (Doubled(), r"forward of 'then' \(Doubled\) computes"),
    ],
)
def test_what_a_conversion_would_leave_out_is_refused_by_name(then, message: str) -> None:
    network, images = Around(then), torch.randn(2, 1, 8, 8)
    network(images)
    with pytest.raises(ValueError, match=message):
        convert_qcfs(network, 4, images)


@pytest.mark.parametrize("then", [nn.AvgPool2d(2), lambda x: F.avg_pool2d(x, 2), lambda x: 2 * x - 1, nn.Dropout(0.9)])
def test_everything_affine_is_converted(then) -> None:
    torch.manual_seed(0)
    network, images = Around(then), torch.randn(4, 1, 8, 8)
    expected = network.eval()(images)
    outputs = convert_qcfs(network, 256, images[:1])(images).mean(0)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=0.1)


def test_one_activation_under_two_names_is_converted() -> None:
    """Its first name is not the one that the network calls it by."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.activation = QCFS(4, 1.0)
            self.layers = nn.Sequential(nn.Linear(3, 5), self.activation)

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    converted = convert_qcfs(Named(), 4, torch.randn(2, 3))
    assert converted.network.activation is converted.network.layers[1]
    assert not any(isinstance(module, QCFS) for module in converted.modules())


def test_wrong_use() -> None:
    gone = QCFS()
    with torch.no_grad():
        gone.lam.fill_(-0.25)
    one = torch.zeros(1)
    for use in (lambda: gone(one), lambda: convert_qcfs(gone, example=one)):
        with pytest.raises(ValueError, match="lam of QCFS must stay positive, but it is -0.25"):
            use()
    with pytest.raises(ValueError, match="Sequential holds no QCFS"):
        convert_qcfs(nn.Sequential(nn.ReLU()), example=one)
    with pytest.raises(ValueError, match="time_steps must be at least 1, not 0"):
        convert_qcfs(QCFS(), 0, one)
    with pytest.raises(ValueError, match="levels must be at least 1, not 0"):
        QCFS(0)
    with pytest.raises(ValueError, match="start must be above 0, not 0"):
        QCFS(start=0)
    with pytest.raises(ValueError, match="dilation=2 has no average pool"):
        convert_qcfs(nn.Sequential(QCFS(), nn.MaxPool2d(2, dilation=2)), example=torch.zeros(1, 1, 5, 5))


def test_levels_are_counted_as_the_spikes_that_they_are_worth():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7), QCFS(3, 0.8), nn.Linear(7, 4), QCFS(3, 1.3))
    x = torch.randn(6, 5)
    with count_levels(network) as levels:
        network(x)
        network(x)
    first = network[1](network[0](x))
    expected = {"1": 0, "3": 0}
    for name, activations, lam in (("1", first, 0.8), ("3", network[3](network[2](first)), 1.3)):
        for value in activations.flatten().tolist():
            level = min(range(4), key=lambda k: abs(k * lam / 3 - value))
            assert abs(level * lam / 3 - value) < 1e-6
            expected[name] += 2 * level
    assert levels.per_layer == expected
    assert levels.total == sum(expected.values()) > 0
    assert levels.activations == {"1": 2 * 6 * 7, "3": 2 * 6 * 4}
    assert not any(module._forward_hooks for module in network)


def test_a_neuron_of_a_constant_current_fires_as_often_as_its_level_says():
    currents = torch.linspace(-0.5, 2.0, 23)[None]
    network = nn.Sequential(QCFS(3, 1.2))
    with count_levels(network) as levels:
        network(currents)
    spikes = convert_qcfs(network, 3)(currents)
    assert levels.total == (spikes > 0).sum()
