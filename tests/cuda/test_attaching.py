"""What may be done with an attached model, on a GPU: the cases of tests/core/attaching and tests/architectures."""

import mixed
import pools
import pytest
import recurrent
import shortcuts
import time_orders
import torch
import weights_in_use
from architecture import ALPHA, Architecture, assert_equal_gradients, gradients
from attaching import models
from test_in_place import Net
from torch import Tensor, nn

import tracegrad as tg
from reference import loss_of

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU: torch.cuda.is_available() is False"),
]
DEVICE = torch.device("cuda")
NETWORKS = {
    "batch-first-vgg": time_orders.ARCHITECTURES["batch-first-vgg"],
    "folded-residual": time_orders.ARCHITECTURES["folded-residual"],
    "time-last-stacked": time_orders.ARCHITECTURES["time-last-stacked"],
    "membrane-stacked": shortcuts.ARCHITECTURES["membrane-stacked"],
    "weight-norm": weights_in_use.ARCHITECTURES["weight-norm"],
    "hand-loop": recurrent.ARCHITECTURES["hand-loop"],
    "maximum-before-norm": pools.ARCHITECTURES["maximum-before-norm"],
    "pooled-steps": pools.ARCHITECTURES["pooled-steps"],
    "steps-then-all": mixed.ARCHITECTURES["steps-then-all"],
}
every_form = pytest.mark.parametrize("form", models.FORMS.values(), ids=models.FORMS)
every_time = pytest.mark.parametrize("time", ["per_step", "mean", "final"])


def on_cpu(found: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    return {name: None if gradient is None else gradient.cpu() for name, gradient in found.items()}


@pytest.mark.parametrize("case", NETWORKS.values(), ids=NETWORKS)
@every_time
def test_networks_of_all_conventions(case: Architecture, time: str) -> None:
    """The device is the default one, so that what the networks make themselves is there, too."""
    model = case.build()
    pairs = case.attach(model, time=time).pairs
    expected, _ = gradients(model, case.inputs())
    example, inputs = ([x.to(DEVICE) for x in case.inputs(*size)] for size in ((2, 5), ()))
    model = case.build().to(DEVICE)
    with DEVICE:
        a = tg.attach(model, tuple(example), **{"alpha": ALPHA, **case.options, "time": time})
        assert a.pairs == pairs
        torch.manual_seed(0)
        model.zero_grad()
        output = model(*inputs)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(2), dtype=output.dtype)
    (output * weights.to(DEVICE)).sum().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert_equal_gradients(on_cpu(found), expected, 1e-10)


def scaled_gradients(model: nn.Module, a: tg.Attachment, mask: Tensor | None = None) -> dict[str, Tensor | None]:
    model.zero_grad()
    x = models.frames().to(DEVICE)
    with a.mask(torch.ones(models.T, models.B, dtype=torch.bool) if mask is None else mask):
        output = model(x)
    loss_of(output.cpu()).backward()
    return on_cpu({name: parameter.grad for name, parameter in model.named_parameters()})


@every_form
@every_time
@pytest.mark.parametrize("when", ["before", "after"])
def test_moved_before_or_after_attach(form: type[models.AtOnce], time: str, when: str) -> None:
    model = models.build(form)
    if when == "before":
        model.to(DEVICE)
    x = models.frames().to(DEVICE if when == "before" else "cpu")
    a = tg.attach(model, x, spiking_input=True, alpha=models.ALPHA, time=time)
    model.to(DEVICE)
    assert_equal_gradients(scaled_gradients(model, a), models.scaled_gradients(form, time=time), 1e-10)


@every_form
@every_time
def test_a_mask_on_either_device(form: type[models.AtOnce], time: str) -> None:
    mask = torch.arange(models.T)[:, None] < torch.tensor([4, 2, 3])
    model = models.build(form)
    a = models.attach(model, time=time)
    with a.mask(mask):
        output = model(models.frames())
    loss_of(output).backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    for module in model.modules():
        getattr(module, "reset", lambda: None)()
    model.to(DEVICE)
    for there in (mask, mask.to(DEVICE)):
        assert_equal_gradients(scaled_gradients(model, a, there), expected, 1e-10)


@pytest.mark.parametrize("view", [True, False], ids=["view", "whole"])
@pytest.mark.parametrize("write", [Tensor.add_, Tensor.mul_, lambda z, _: z.relu_(), lambda z, _: z.cumsum_(0)])
def test_currents_that_are_written_in_place(write, view: bool) -> None:
    options = {"spiking_input": True, "allow_empty": True}
    here = tg.attach(Net(write, view), torch.ones(4, 2, 2, 5, 5), **options)
    there = tg.attach(Net(write, view).to(DEVICE), torch.ones(4, 2, 2, 5, 5, device=DEVICE), **options)
    assert (there.pairs, there.skipped) == (here.pairs, here.skipped)


class Moving(nn.Module):
    """Takes its input from the CPU, and draws random numbers on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), tg.LIF(), nn.Dropout(), nn.Linear(8, 3), tg.LIF()).to(DEVICE)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.to(DEVICE))


def test_attach_leaves_the_random_state_of_the_device() -> None:
    model = Moving()
    state = torch.cuda.get_rng_state()
    tg.attach(model, models.frames().float(), spiking_input=True)
    assert torch.equal(torch.cuda.get_rng_state(), state)
