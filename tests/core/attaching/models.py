"""A network of two scaled layers in two forms, with the same names and gradients: all steps at once, or one by one."""

import architecture
import torch
from spiking import Stateful, TimeFirst
from torch import Tensor, nn

import tracegrad as tg

T, B = 4, 3
ALPHA = 0.5
SCALED = ("a", "b")
"""The synapses that are scaled; `head` is not."""


class AtOnce(nn.Module):
    """[T, B, 6] -> [T, B, 3]."""

    neuron: type[nn.Module] = TimeFirst

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n0 = nn.Linear(6, 8), self.neuron()
        self.b, self.n1 = nn.Linear(8, 7), self.neuron()
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x)

    def step(self, x: Tensor) -> Tensor:
        return self.head(self.n1(self.b(self.n0(self.a(x)))))


class StepByStep(AtOnce):
    neuron = Stateful

    def forward(self, x: Tensor) -> Tensor:
        self.n0.reset()
        self.n1.reset()
        return torch.stack([self.step(frame) for frame in x])


FORMS = {"at once": AtOnce, "step by step": StepByStep}


def build(form: type[AtOnce] = AtOnce, seed: int = 0) -> AtOnce:
    torch.manual_seed(seed)
    return architecture.lively(form().double())


def frames(seed: int = 1, steps: int = T) -> Tensor:
    """Spikes."""
    return (torch.rand(steps, B, 6, generator=torch.Generator().manual_seed(seed)) < 0.5).double()


def attach(model: nn.Module, **options) -> tg.Attachment:
    return tg.attach(model, frames(), **{"spiking_input": True, "alpha": ALPHA, **options})


def gradients(model: nn.Module, x: Tensor | None = None) -> dict[str, Tensor]:
    """Of every parameter, by its name in the network."""
    found, _ = architecture.gradients(model, (frames() if x is None else x,))
    return {name.removeprefix("_orig_mod.").removeprefix("module."): gradient for name, gradient in found.items()}


def scaled_gradients(form: type[AtOnce] = AtOnce, **options) -> dict[str, Tensor]:
    """Those of a network of its own that was attached with these options."""
    model = build(form)
    attach(model, **options)
    return gradients(model)


def assert_untouched(model: nn.Module) -> None:
    for name, module in model.named_modules():
        assert "forward" not in module.__dict__, f"{name} has another forward pass"
        assert "_conv_forward" not in module.__dict__, f"{name} computes currents in another way"
        hooks = [hook for hook in module._forward_hooks.values() if type(hook).__module__.startswith("tracegrad")]
        assert not hooks, f"{name} has hooks"
        assert not module._forward_pre_hooks, f"{name} has hooks"
