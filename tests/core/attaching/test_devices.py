"""Nothing assumes that a model is on the CPU: attach and training on a second device that does not mix with it."""

from collections.abc import Callable

import architecture
import encoders
import mixed
import pools
import pytest
import recurrent
import shortcuts
import tape
import time_orders
import torch
import weights_in_use
from architecture import ALPHA, Architecture, assert_equal_gradients
from test_in_place import Net
from torch import Tensor, nn

import tracegrad as tg
from attaching import models
from attaching.far_device import FAR, move, near_of, two_devices
from reference import loss_of

NETWORKS = {
    "batch-first-vgg": time_orders.ARCHITECTURES["batch-first-vgg"],
    "folded-residual": time_orders.ARCHITECTURES["folded-residual"],
    "time-last-stacked": time_orders.ARCHITECTURES["time-last-stacked"],
    "membrane-stacked": shortcuts.ARCHITECTURES["membrane-stacked"],
    "weight-norm": weights_in_use.ARCHITECTURES["weight-norm"],
    "hand-loop": recurrent.ARCHITECTURES["hand-loop"],
    "poisson": encoders.ARCHITECTURES["poisson"],
    "maximum-before-norm": pools.ARCHITECTURES["maximum-before-norm"],
    "pooled-steps": pools.ARCHITECTURES["pooled-steps"],
    "steps-then-all": mixed.ARCHITECTURES["steps-then-all"],
}
MAKE_TENSORS = {"hand-loop", "poisson"}
"""These networks make tensors on the default device."""


def far_gradients(model: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(tape.SEED)
    output = model(*(x.to(FAR) for x in inputs))
    assert output.device == FAR
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(2), dtype=output.dtype, device="cpu")
    (output * weights.to(FAR)).sum().backward()
    return {name: near_of(parameter.grad) for name, parameter in model.named_parameters()}


def test_the_far_device_does_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    with two_devices(monkeypatch):
        x = torch.ones(3).to(FAR).requires_grad_()
        (2 * x).sum().backward()
        assert near_of(x.grad).tolist() == [2, 2, 2]
        with pytest.raises(RuntimeError, match="same device"):
            x + torch.ones(3)


@pytest.mark.parametrize("case", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("time", ["per_step", "mean", "final"])
def test_gradients_are_those_of_the_cpu(case: Architecture, time: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is the default one, so that tensors which models make are there, too."""
    with two_devices(monkeypatch):
        compare(case, time, FAR)


@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - MAKE_TENSORS))
def test_where_the_cpu_is_the_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with two_devices(monkeypatch):
        compare(NETWORKS[name], "mean", torch.device("cpu"))


def compare(case: Architecture, time: str, default: torch.device) -> None:
    model = case.build()
    pairs = case.attach(model, time=time).pairs
    expected, _ = architecture.gradients(model, case.inputs())
    model, example, inputs = case.build(), case.inputs(2, seed=5), case.inputs()
    with default:
        move(model)
        a = tg.attach(model, tuple(x.to(FAR) for x in example), **{"alpha": ALPHA, **case.options, "time": time})
        assert a.pairs == pairs
        found = far_gradients(model, inputs)
    assert_equal_gradients(found, expected, 1e-12)


@pytest.mark.parametrize("view", [True, False], ids=["view", "whole"])
@pytest.mark.parametrize(
    "write",
    [
        lambda z, other: z.add_(other),
        lambda z, other: z.mul_(other),
        lambda z, _: z.relu_(),
        lambda z, other: z[:, :, :1].mul_(other[:, :, :1]),
        lambda z, _: z.cumsum_(0),
    ],
    ids=["add", "product", "rectified", "part", "sum over time"],
)
def test_currents_that_are_written_in_place(write: Callable, view: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What such an operation does is found by its own backward, which may have tensors on the device."""
    options = {"spiking_input": True, "allow_empty": True}
    here = tg.attach(Net(write, view), torch.ones(4, 2, 2, 5, 5), **options)
    with two_devices(monkeypatch):
        there = tg.attach(move(Net(write, view)), torch.ones(4, 2, 2, 5, 5).to(FAR), **options)
    assert (there.pairs, there.skipped) == (here.pairs, here.skipped)


@pytest.mark.parametrize("form", models.FORMS.values(), ids=models.FORMS)
@pytest.mark.parametrize("time", ["per_step", "mean", "final"])
def test_a_mask_on_the_cpu(form: type[models.AtOnce], time: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.arange(models.T)[:, None] < torch.tensor([4, 2, 3])
    model = models.build(form)
    a = models.attach(model, time=time)
    with a.mask(mask):
        output = model(models.frames())
    loss_of(output).backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    model = models.build(form)
    with two_devices(monkeypatch):
        a = tg.attach(move(model), models.frames().to(FAR), spiking_input=True, alpha=models.ALPHA, time=time)
        with a.mask(mask):
            found = far_gradients(model, (models.frames(),))
    assert_equal_gradients(found, expected, 1e-12)


@pytest.mark.parametrize("form", models.FORMS.values(), ids=models.FORMS)
@pytest.mark.parametrize("time", ["per_step", "mean", "final"])
def test_a_model_that_moves_after_it_was_attached(
    form: type[models.AtOnce], time: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = models.scaled_gradients(form, time=time)
    model = models.build(form)
    models.attach(model, time=time)
    models.gradients(model)
    with two_devices(monkeypatch):
        for module in model.modules():
            if hasattr(module, "reset"):
                module.reset()
        found = far_gradients(move(model), (models.frames(),))
    assert_equal_gradients(found, expected, 1e-12)
