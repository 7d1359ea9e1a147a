"""Neurons against their equations, written as loops over single numbers."""

import math

import pytest
import torch
from torch import nn

import tracegrad as tg

T, B, C = 6, 2, 3


def currents(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def loop(z: list[float], leak: float, threshold: float, reset: str, rest: float, initial: float) -> list[float]:
    v, spikes = initial, []
    for current in z:
        u = leak * v + current
        s = 1.0 if u >= threshold else 0.0
        v = u - s * threshold if reset == "soft" else (rest if s else u)
        spikes.append(s)
    return spikes


@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize(("leak", "threshold", "rest", "initial"), [(0.9, 0.5, 0.0, 0.0), (0.5, 1.0, -0.2, 0.3)])
def test_spikes_follow_the_equations(reset: str, leak: float, threshold: float, rest: float, initial: float) -> None:
    z = currents(T, B, C, 2, 2)
    spikes = tg.LIF(leak, threshold, reset, rest, initial=initial)(z)
    for place in [(b, c, h, w) for b in range(B) for c in range(C) for h in range(2) for w in range(2)]:
        expected = loop(z[(slice(None), *place)].tolist(), leak, threshold, reset, rest, initial)
        assert spikes[(slice(None), *place)].tolist() == expected, f"neuron {place}"


def test_a_membrane_at_the_threshold_fires() -> None:
    assert tg.LIF(threshold=0.5)(torch.full((1, 1), 0.5)).item() == 1


def test_no_state_is_left_between_calls() -> None:
    neuron, z = tg.LIF(), currents(T, B, C)
    first = neuron(z)
    assert torch.equal(neuron(z), first)
    assert not neuron.state_dict()


def test_if_does_not_leak() -> None:
    z = torch.full((5, 1), 0.125)
    assert tg.IF()(z).flatten().tolist() == [0, 0, 0, 1, 0]
    assert tg.LIF()(z).flatten().tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("shape", [(T, B, C), (T, B, C, 2, 2), (T, B, 5, C), (T, B, C, 5)])
def test_one_threshold_per_channel(shape: tuple[int, ...]) -> None:
    thresholds, z = torch.tensor([0.2, 0.6, 1.4], dtype=torch.float64), currents(*shape)
    spikes = tg.LIF(threshold=thresholds)(z)
    channel = 3 if shape == (T, B, 5, C) else 2
    for index, threshold in enumerate(thresholds.tolist()):
        expected = tg.LIF(threshold=threshold)(z.select(channel, index))
        assert torch.equal(spikes.select(channel, index), expected)


def test_a_trainable_threshold_is_a_parameter_and_gets_a_gradient() -> None:
    neuron = tg.LIF(threshold=nn.Parameter(torch.tensor([0.5, 1.0, 2.0])))
    assert [name for name, _ in neuron.named_parameters()] == ["threshold"]
    neuron(currents(T, B, C).float()).sum().backward()
    assert neuron.threshold.grad.abs().sum() > 0


def test_spikes_of_another_height() -> None:
    z = currents(T, B, C)
    assert torch.equal(tg.IF(threshold=0.7, height=0.7)(z), 0.7 * tg.IF(threshold=0.7)(z))


@pytest.mark.parametrize("detached", [None, "detach_reset", "detach_membrane"])
@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("surrogate", ["boxcar", "narrow_boxcar", "triangle", "arctan", "sigmoid"])
def test_gradients_follow_the_chain_rule_over_time(surrogate: str, reset: str, detached: str | None) -> None:
    derivative = {
        "boxcar": lambda d: float(abs(d) <= 0.5),
        "narrow_boxcar": lambda d: float(abs(d) <= 0.2),
        "triangle": lambda d: max(0.0, 1 - abs(d)),
        "arctan": lambda d: 1 / (1 + (math.pi * d) ** 2),
        "sigmoid": lambda d: 4 / (2 + math.exp(4 * d) + math.exp(-4 * d)),
    }[surrogate]
    leak, threshold, rest = 0.8, 0.6, -0.1
    z = currents(T, 1).requires_grad_()
    weights = currents(T + 1)[1:]
    (
        tg.LIF(leak, threshold, reset, rest, surrogate, **({detached: True} if detached else {}))(z)[:, 0] * weights
    ).sum().backward()
    # Forward mode by hand: d s(t) / d z(k) for each k.
    for k in range(T):
        v = dv = total = 0.0
        for t in range(T):
            u, du = leak * v + z[t, 0].item(), leak * dv + (t == k)
            s, ds = float(u >= threshold), derivative(u - threshold) * du
            total += weights[t].item() * ds
            path = 0.0 if detached == "detach_reset" else ds
            v = u - s * threshold if reset == "soft" else (1 - s) * u + s * rest
            dv = du - path * threshold if reset == "soft" else (1 - s) * du + path * (rest - u)
            dv = 0.0 if detached == "detach_membrane" else dv
        assert z.grad[k, 0].item() == pytest.approx(total, rel=1e-10, abs=1e-12), f"dL/dz({k})"


def test_a_surrogate_of_ones_own() -> None:
    @tg.register_surrogate("test-constant")
    def constant(distance: torch.Tensor) -> torch.Tensor:
        return torch.full_like(distance, 3.0)

    z = torch.zeros(1, 1, requires_grad=True)
    tg.LIF(surrogate="test-constant")(z).sum().backward()
    assert z.grad.item() == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"surrogate": "box"}, "unknown surrogate 'box'; the known ones are .*'boxcar'"),
        ({"reset": "none"}, "unknown reset 'none'; the known ones are 'soft', 'hard'"),
        ({"leak": 1.2}, r"leak must be in \[0, 1\], not 1.2"),
        ({"threshold": 0.0}, "threshold must be positive, not 0.0"),
    ],
)
def test_wrong_options(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tg.LIF(**options)


def test_currents_without_time_and_batch_or_with_other_channels() -> None:
    with pytest.raises(ValueError, match=r"currents must be \[T, B, ...\], not of shape \[3\]"):
        tg.LIF()(torch.zeros(3))
    with pytest.raises(ValueError, match=r"shape \[2\] per channel do not fit currents \[6, 2, 3\]"):
        tg.LIF(threshold=torch.ones(2))(torch.zeros(T, B, C))
