"""Leak and rest that are trained: one number or one per channel, in layers of any size."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import tracegrad as tg
from tracegrad.core import compiled as compilation
from tracegrad.snn.fire_on import fire_on

T, B, C = 6, 4, 3
IMAGES = (T, B, C, 5, 4)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiles layers of any size."""
    monkeypatch.setattr(compilation, "WORTH_COMPILING", 1)


@pytest.fixture
def one_pass(compiled: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Takes the one pass for layers of any size, as PyTorch operations."""
    monkeypatch.setattr(compilation, "has_compiler", lambda device: False)
    compilation._kernel.cache_clear()
    yield
    compilation._kernel.cache_clear()


@pytest.fixture(params=["autograd", "one pass"])
def way(request: pytest.FixtureRequest) -> None:
    """Small layers as autograd takes them, and as the one pass takes large ones."""
    if request.param == "one pass":
        request.getfixturevalue("one_pass")


class Boxcar(torch.autograd.Function):
    @staticmethod
    def forward(ctx, distance: Tensor) -> Tensor:
        ctx.save_for_backward(distance)
        return (distance >= 0).to(distance)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * (ctx.saved_tensors[0].abs() <= 0.5)


def loop(z: Tensor, leak: Tensor, rest: Tensor, reset: str, threshold: float = 0.5) -> Tensor:
    """The neurons' equations; leak and rest broadcast to z[t]."""
    v, spikes = torch.zeros_like(z[0]), []
    for current in z:
        u = leak * v + current
        s = Boxcar.apply(u - threshold)
        v = u - s * threshold if reset == "soft" else torch.where(s > 0, rest, u) + (s - s.detach()) * (rest - u)
        spikes.append(s)
    return torch.stack(spikes)


def currents(shape: tuple[int, ...], layout: str = "contiguous", dtype: torch.dtype = torch.float64) -> Tensor:
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if layout == "channels-last":
        z = z.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    return z.to(dtype).requires_grad_()


def weights_of(spikes: Tensor) -> Tensor:
    return torch.randn(spikes.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(spikes.dtype)


def compare(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-12) -> None:
    for name, value in expected.items():
        assert got[name] is not None, f"{name} got no gradient"
        torch.testing.assert_close(
            got[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"gradient of {n}: {m}"
        )


VALUES = {
    "one number": (0.8, -0.2),
    "one number in a list": ([0.8], [-0.2]),
    "per channel": ([0.3, 0.6, 0.95], [-0.4, 0.1, 0.3]),
    "leak per channel": ([0.3, 0.6, 0.95], -0.2),
    "rest per channel": (0.8, [-0.4, 0.1, 0.3]),
}


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize(
    ("shape", "layout"),
    [((T, B, C), "contiguous"), ((T, B, 5, C), "contiguous"), (IMAGES, "contiguous"), (IMAGES, "channels-last")],
)
def test_gradients_are_those_of_a_loop(values: str, reset: str, shape: tuple[int, ...], layout: str, way: None) -> None:
    check_against_the_loop(VALUES[values], reset, shape, layout)


def test_compiled_in_short(compiled: None) -> None:
    check_against_the_loop(VALUES["per channel"], "hard", IMAGES, "channels-last")


@pytest.mark.slow
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_compiled_gradients_are_those_of_a_loop(values: str, reset: str, compiled: None) -> None:
    for shape in ((T, B, C), (T, 1, C), (T, B, 5, C), IMAGES, (T, 1, C, 4, 4), (T, B, C, 1, 1)):
        for layout in ("contiguous", "channels-last") if len(shape) == 5 else ("contiguous",):
            check_against_the_loop(VALUES[values], reset, shape, layout)


def check_against_the_loop(values: tuple, reset: str, shape: tuple[int, ...], layout: str) -> None:
    z = currents(shape, layout)
    leak, rest = (nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in values)
    channel = 3 if len(shape) == 4 else 2
    shaped = [value.reshape(-1, *(1 for _ in shape[channel + 1 :])) for value in (leak, rest)]
    expected_spikes = loop(z, *shaped, reset)
    given = {"z": z, "leak": leak} | ({"rest": rest} if reset == "hard" else {})
    weights = weights_of(expected_spikes)
    expected = dict(zip(given, torch.autograd.grad(expected_spikes, given.values(), weights), strict=True))
    assert expected["leak"].abs().max() > 0, "this would hold without a gradient as well"

    spikes = tg.LIF(leak=leak, rest=rest, reset=reset)(z)
    assert torch.equal(spikes, expected_spikes)
    compare(dict(zip(given, torch.autograd.grad(spikes, given.values(), weights), strict=True)), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("values", VALUES)
def test_behind_norms_gradients_are_those_of_a_loop(values: str, training: bool, way: None) -> None:
    check_against_the_loop_behind_norms(VALUES[values], training)


@pytest.mark.slow
@pytest.mark.parametrize("values", VALUES)
def test_compiled_behind_norms_too(values: str, compiled: None) -> None:
    check_against_the_loop_behind_norms(VALUES[values], True)


def check_against_the_loop_behind_norms(values: tuple, training: bool) -> None:
    z, skipped = currents(IMAGES, "channels-last"), currents(IMAGES, "channels-last")
    norm = tg.TDBatchNorm2d(C, threshold=1.5).double().train(training)
    nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(2))
    leak, rest = (nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in values)
    given = {"z": z, "skipped": skipped, "leak": leak, "rest": rest, "gamma": norm.weight, "beta": norm.bias}

    mean, variance = (
        (z.mean((0, 1, 3, 4)), z.var((0, 1, 3, 4), correction=0))
        if training
        else (torch.zeros(C), torch.ones(C).double())
    )
    shape = (C, 1, 1)
    scale = (norm.weight / (variance + norm.eps).sqrt()).reshape(shape)
    normed = (z - mean.reshape(shape)) * scale + norm.bias.reshape(shape)
    expected_spikes = loop(normed + skipped, leak.reshape(-1, 1, 1), rest.reshape(-1, 1, 1), "hard")
    weights = weights_of(expected_spikes)
    expected = dict(zip(given, torch.autograd.grad(expected_spikes, given.values(), weights), strict=True))

    spikes = fire_on(tg.LIF(leak=leak, rest=rest, reset="hard"), (z, norm), (skipped, None))
    assert torch.equal(spikes, expected_spikes)
    compare(dict(zip(given, torch.autograd.grad(spikes, given.values(), weights), strict=True)), expected, 1e-11)


def test_a_threshold_and_an_initial_membrane_train_too(way: None) -> None:
    z = currents(IMAGES)
    threshold = nn.Parameter(torch.tensor([0.4, 0.7, 1.1], dtype=torch.float64))
    initial = nn.Parameter(torch.tensor(0.2, dtype=torch.float64))
    neuron = tg.LIF(threshold=threshold, initial=initial)
    expected_v, spikes = initial, []
    for current in z:
        u = 0.9 * expected_v + current
        spikes.append(Boxcar.apply(u - threshold.reshape(C, 1, 1)))
        expected_v = u - spikes[-1] * threshold.reshape(C, 1, 1)
    given = {"z": z, "threshold": threshold, "initial": initial}
    weights = weights_of(torch.stack(spikes))
    expected = dict(zip(given, torch.autograd.grad(torch.stack(spikes), given.values(), weights), strict=True))
    compare(dict(zip(given, torch.autograd.grad(neuron(z), given.values(), weights), strict=True)), expected)


@pytest.mark.parametrize("currents_dtype", [torch.float32, torch.bfloat16])
def test_sums_are_float32_at_least(currents_dtype: torch.dtype, way: None) -> None:
    z = currents((T, 4, C, 32, 32), dtype=currents_dtype)
    gradients = []
    for dtype in (torch.float64, torch.float32):
        leak = nn.Parameter(torch.tensor([0.25, 0.5, 0.75], dtype=dtype))
        x = z.detach().to(torch.float64) if dtype == torch.float64 else z.detach()
        tg.LIF(leak=leak)(x).sum().backward()
        gradients.append(leak.grad.double())
    exact, got = gradients
    # In bfloat16 the sum would be off by about 1e-2.
    assert ((got - exact).abs() / exact.abs()).max() < 1e-5, f"{got.tolist()}, not {exact.tolist()}"


def test_gradients_of_gradients(way: None) -> None:
    z, leak = currents((T, B, C)), nn.Parameter(torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64))
    rest = nn.Parameter(torch.tensor(-0.1, dtype=torch.float64))

    def second(spikes: Tensor) -> tuple[Tensor, ...]:
        gradients = torch.autograd.grad(spikes, (z, leak, rest), weights_of(spikes), create_graph=True)
        return torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), (leak, rest))

    got, expected = second(tg.LIF(leak=leak, rest=rest, reset="hard")(z)), second(loop(z, leak, rest, "hard"))
    for value, other in zip(got, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("parameter", [True, False])
def test_large_layers_keep_their_currents_alone(parameter: bool, one_pass: None) -> None:
    leak = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64)
    neuron, z = tg.LIF(leak=nn.Parameter(leak) if parameter else leak), currents(IMAGES)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        neuron(z)
    assert [tensor.data_ptr() for tensor in kept if tensor.numel() > C] == [z.data_ptr()]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 8, 16), (8, 32, 32, 16, 16)])
def test_layers_of_any_size_train_their_leak(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, requires_grad=True)
    leak = nn.Parameter(torch.tensor(0.9))
    tg.LIF(leak=leak)(x).sum().backward()
    exact = nn.Parameter(torch.tensor(0.9).double())
    loop(x.double(), exact, torch.tensor(0.0), "soft").sum().backward()
    torch.testing.assert_close(leak.grad.double(), exact.grad, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("value", "gradient", "passed"),
    [
        (0.5, 1.0, 1.0),
        (0.5, -1.0, -1.0),
        (0.0, 1.0, 0.0),  # descent would lead below 0
        (0.0, -1.0, -1.0),
        (-0.2, 1.0, 0.0),
        (-0.2, -1.0, -1.0),
        (1.0, -1.0, 0.0),  # descent would lead above 1
        (1.0, 1.0, 1.0),
        (1.3, -1.0, 0.0),
        (1.3, 1.0, 1.0),
    ],
)
def test_the_leak_is_clamped_and_its_gradient_passes_inwards(value: float, gradient: float, passed: float) -> None:
    neuron = tg.LIF(leak=nn.Parameter(torch.tensor(0.5)), threshold=0.8)
    with torch.no_grad():
        neuron.leak.fill_(value)  # as an optimizer's step may
    # u(1) = leak * 0.6 + 0.4 is near the threshold for any leak in [0, 1], so that ds(1)/dleak = 0.6.
    z = torch.tensor([[0.6], [0.4]])
    spikes = neuron(z)
    assert torch.equal(spikes, tg.LIF(leak=min(max(value, 0.0), 1.0), threshold=0.8)(z))
    (spikes[1] * gradient).sum().backward()
    assert neuron.leak.grad.item() == pytest.approx(0.6 * passed)


@pytest.mark.parametrize(("start", "sign"), [(1.0, 1), (1.1, 1), (0.0, -1), (-0.1, -1)])
def test_an_optimizer_moves_a_leak_away_from_its_bounds_alone(start: float, sign: int) -> None:
    neuron = tg.LIF(leak=nn.Parameter(torch.tensor(0.5)), threshold=0.8)
    with torch.no_grad():
        neuron.leak.fill_(start)
    optimizer = torch.optim.SGD(neuron.parameters(), lr=0.5)
    for direction, end in ((-sign, start), (sign, start - sign * 0.3)):
        optimizer.zero_grad()
        (direction * neuron(torch.tensor([[0.6], [0.4]]))[1]).sum().backward()
        optimizer.step()
        assert neuron.leak.item() == pytest.approx(end)


def test_it_is_the_parameter_that_was_given() -> None:
    leak, rest = nn.Parameter(torch.tensor([0.5, 0.7, 0.9])), nn.Parameter(torch.tensor(0.1))
    neuron = tg.LIF(leak=leak, rest=rest, reset="hard")
    assert neuron.leak is leak
    assert neuron.rest is rest
    assert [name for name, _ in neuron.named_parameters()] == ["leak", "rest"]
    assert list(neuron.state_dict()) == ["leak", "rest"]


def test_a_tensor_is_a_buffer_and_does_not_train() -> None:
    neuron = tg.LIF(leak=torch.tensor([0.5, 0.7, 0.9]), rest=torch.tensor(0.1), reset="hard")
    assert not list(neuron.parameters())
    assert list(neuron.state_dict()) == ["leak", "rest"]
    z = currents(IMAGES)
    for channel, leak in enumerate((0.5, 0.7, 0.9)):
        alone = tg.LIF(leak=torch.tensor(leak), rest=0.1, reset="hard")(z[:, :, channel])
        assert torch.equal(neuron(z)[:, :, channel], alone)


@pytest.mark.parametrize("kind", [nn.Parameter, lambda tensor: tensor])
def test_copies_conversions_and_saved_states(kind) -> None:
    def make(*leaks: float) -> tg.LIF:
        return tg.LIF(leak=kind(torch.tensor(leaks)), rest=kind(torch.tensor(leaks) - 1), reset="hard")

    neuron, z = make(0.5, 0.7, 0.9), currents(IMAGES, dtype=torch.float32)
    expected = neuron(z)
    assert torch.equal(copy.deepcopy(neuron)(z), expected)
    assert copy.deepcopy(neuron).leak is not neuron.leak
    other = make(0.1, 0.2, 0.3)
    assert not torch.equal(other(z), expected)
    other.load_state_dict(neuron.state_dict())
    assert torch.equal(other(z), expected)
    doubled = copy.deepcopy(neuron).double()
    assert doubled.leak.dtype == doubled.rest.dtype == torch.float64
    assert doubled(z.double()).dtype == torch.float64


def test_an_optimizer_finds_the_leak_that_made_the_spikes() -> None:
    z = currents((12, 64, 8)).detach()
    target = tg.LIF(leak=0.6, surrogate="sigmoid")(z)
    neuron = tg.LIF(leak=nn.Parameter(torch.full((8,), 0.95, dtype=torch.float64)), surrogate="sigmoid")
    optimizer = torch.optim.Adam(neuron.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        (neuron(z) - target).square().mean().backward()
        optimizer.step()
    assert (neuron.leak - 0.6).abs().max() < 0.1, neuron.leak.tolist()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"leak": nn.Parameter(torch.tensor([0.5, 1.2]))}, ValueError, r"leak must be in \[0, 1\], not 1.2"),
        ({"leak": torch.tensor(-0.1)}, ValueError, r"leak must be in \[0, 1\], not -0.1"),
        ({"leak": torch.tensor([0.5, float("nan")])}, ValueError, r"leak must be in \[0, 1\], not nan"),
        ({"leak": torch.full((2, 3), 0.5)}, ValueError, r"leak must be one number or one per channel, not .* \[2, 3\]"),
        ({"leak": torch.zeros(0)}, ValueError, r"leak must be one number or one per channel, not of shape \[0\]"),
        ({"leak": [0.5, 0.7]}, TypeError, r"leak must be a number or a tensor, not \[0.5, 0.7\]"),
        ({"rest": float("inf")}, ValueError, "rest must be finite, not inf"),
        ({"threshold": torch.tensor([0.5, -1.0])}, ValueError, "threshold must be positive, not -1.0"),
    ],
)
def test_wrong_values(options, error, message: str) -> None:
    with pytest.raises(error, match=message):
        tg.LIF(**options)


def test_values_on_the_meta_device_are_not_looked_at() -> None:
    with torch.device("meta"):
        neuron = tg.LIF(leak=nn.Parameter(torch.empty(3)), threshold=torch.empty(3))
    neuron.to_empty(device="cpu").load_state_dict({"leak": torch.full((3,), 0.9), "threshold": torch.full((3,), 0.5)})
    z = currents(IMAGES)
    assert torch.equal(neuron(z), tg.LIF(leak=torch.tensor(0.9), threshold=0.5)(z))


@pytest.mark.parametrize("name", ["leak", "rest", "threshold", "height"])
def test_values_that_do_not_fit_the_channels(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: values of shape \[16\] .* do not fit currents \[6, 4, 3\]"):
        tg.LIF(**{name: torch.full((16,), 0.5)})(torch.zeros(T, B, C))


def test_networks_train_leaks_per_channel_with_gradient_scaling() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 8),
        tg.LIF(leak=nn.Parameter(torch.full((8,), 0.9))),
        nn.Linear(8, 8),
        tg.LIF(leak=nn.Parameter(torch.tensor(0.9))),
        nn.Linear(8, 3),
    )
    x = torch.rand(5, 4, 6) * 3
    loss = model(x).square().sum()
    expected = torch.autograd.grad(loss, (model[1].leak, model[3].leak))
    attachment = tg.attach(model, x, alpha=0.9)
    assert attachment.pairs == [("2", "3")]
    model(x).square().sum().backward()
    for neuron, gradient in zip((model[1], model[3]), expected, strict=True):
        torch.testing.assert_close(neuron.leak.grad, gradient, msg=lambda m: f"only weights are scaled: {m}")
