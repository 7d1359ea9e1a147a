"""No baseline is trained in silence: without a pair attach raises, and hooks that were there hide none."""

from collections.abc import Callable

import pytest
import torch
from architecture import assert_equal_gradients, gradients
from spiking import Fire, TimeFirst
from torch import Tensor, nn

import tracegrad as tg

T, B = 4, 3


def spikes(*shape: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5).float()


class Spiker(nn.Module):
    """A spiking layer that is not registered."""

    def forward(self, x: Tensor) -> Tensor:
        return Fire.apply(x - 0.5)


class Nothing(nn.Module):
    """Data, a layer, a neuron, a classifier: with images, no pair in it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif, self.head = nn.Linear(6, 5), tg.LIF(), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lif(self.fc(x)))


class Unregistered(nn.Module):
    """Every layer behind the first neuron drives a spiking layer that is not registered."""

    def __init__(self) -> None:
        super().__init__()
        self.fc0, self.lif, self.fc1, self.spiker = nn.Linear(6, 6), tg.LIF(), nn.Linear(6, 6), Spiker()

    def forward(self, x: Tensor) -> Tensor:
        return self.spiker(self.fc1(self.lif(self.fc0(x))))


@pytest.mark.parametrize(
    ("network", "reason"), [(Nothing, r"data[\s\S]*spiking_input=True"), (Unregistered, r"data|reaches no|register")]
)
def test_no_pair_is_an_error_that_names_the_commonest_reason(network: type[nn.Module], reason: str) -> None:
    model = network()
    with pytest.raises(ValueError, match=reason):
        tg.attach(model, torch.rand(T, B, 6))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    attachment = tg.attach(model, torch.rand(T, B, 6), allow_empty=True)
    assert attachment.pairs == []
    assert len(attachment.skipped) == 2


def test_an_option_that_leaves_nothing_is_an_error() -> None:
    """scope="same-shape" takes convolutions alone, and `include` what its patterns match."""
    model = nn.Sequential(nn.Linear(6, 6), tg.LIF(), nn.Linear(6, 6), tg.LIF())
    with pytest.raises(ValueError, match="same-shape"):
        tg.attach(model, spikes(T, B, 6), spiking_input=True, scope="same-shape")
    with pytest.raises(ValueError, match="include"):
        tg.attach(model, spikes(T, B, 6), spiking_input=True, include=["features.*"])


def full_backward_hooks(model: nn.Module) -> None:
    for module in model:
        module.register_full_backward_hook(lambda *_: None)


def full_backward_pre_hooks(model: nn.Module) -> None:
    for module in model:
        module.register_full_backward_pre_hook(lambda *_: None)


def forward_hooks(model: nn.Module) -> None:
    """Hooks that give back another tensor of the same values."""
    for module in model:
        module.register_forward_hook(lambda _, __, output: output.clone())
        module.register_forward_pre_hook(lambda _, arguments: (arguments[0] * 1.0,))


@pytest.mark.parametrize("hook", [full_backward_hooks, full_backward_pre_hooks, forward_hooks])
def test_hooks_that_were_there_before(hook: Callable[[nn.Module], None]) -> None:
    found = []
    for add in (lambda _: None, hook):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 6), TimeFirst(), nn.Linear(6, 6), TimeFirst(), nn.Linear(6, 3)).double()
        add(model)
        attachment = tg.attach(model, spikes(T, B, 6).double(), spiking_input=True, alpha=0.9)
        assert attachment.pairs == [("0", "1"), ("2", "3")]
        found.append(gradients(model, (spikes(T, B, 6).double(),))[0])
    assert_equal_gradients(found[1], found[0], 1e-12)
