"""Small networks, and what is shown of them: which of their synapses are scaled, and why others are not."""

from collections.abc import Callable
from typing import Any

import torch
from spiking import TimeFirst
from torch import Tensor, nn

import tracegrad as tg

T, B, N = 4, 3, 6


def spikes(*shape: int) -> Tensor:
    """Spikes [T, B, N], or of another shape."""
    return (torch.rand(shape or (T, B, N), generator=torch.Generator().manual_seed(1)) < 0.5).double()


def lively(model: nn.Module) -> nn.Module:
    """In float64, with weights that let its neurons fire."""
    torch.manual_seed(2)
    for parameter in model.double().parameters():
        if parameter.dim():
            nn.init.uniform_(parameter, -0.5, 0.7)
    return model


class Between(nn.Module):
    """Synapse, neuron, synapse, neuron: `spikes` pass one function on their way, `currents` another one."""

    def __init__(
        self,
        currents: Callable[[Tensor], Tensor] = lambda z: z,
        spikes: Callable[[Tensor], Tensor] = lambda s: s,
        synapse: nn.Module | None = None,
        neuron: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.currents, self.spikes = currents, spikes
        self.first, self.neuron0 = nn.Linear(N, N), TimeFirst()
        self.second, self.neuron1 = synapse or nn.Linear(N, N), neuron or TimeFirst()

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron1(self.currents(self.second(self.spikes(self.neuron0(self.first(x))))))


def gradients(model: nn.Module, *inputs: Any, **keywords: Any) -> dict[str, Tensor | None]:
    """Of all parameters, under the sum of the squares of outputs."""
    model.zero_grad()
    torch.manual_seed(3)
    outputs = model(*inputs, **keywords)
    (outputs[0] if isinstance(outputs, tuple) else outputs).square().sum().backward()
    return {name: None if value.grad is None else value.grad.clone() for name, value in model.named_parameters()}


def differ(ours: dict[str, Tensor | None], theirs: dict[str, Tensor | None]) -> set[str]:
    """The names of the parameters whose gradients differ."""
    return {
        name
        for name, gradient in ours.items()
        if gradient is not None and not torch.allclose(gradient, theirs[name], rtol=1e-9, atol=1e-12)
    }


def assert_scaled(model: nn.Module, x: Any, *pairs: tuple[str, str], frozen: str = "", **options: Any) -> tg.Attachment:
    """The pairs are these, and the gradients of their weights are scaled."""
    inputs = x if isinstance(x, tuple) else (x,)
    keywords = options.get("example_kwargs", {})
    lively(model)
    plain = gradients(model, *inputs, **keywords)
    attachment = tg.attach(model, x, **{"alpha": 0.9, "spiking_input": True, **options})
    assert attachment.pairs == list(pairs), str(attachment)
    changed = differ(gradients(model, *inputs, **keywords), plain)
    for synapse, _ in pairs:
        assert synapse == frozen or any(name.startswith(synapse) for name in changed), f"{synapse} is not scaled"
    return attachment


def assert_listed(model: nn.Module, x: Any, synapse: str, reason: str, **options: Any) -> tg.Attachment:
    """A synapse is left unscaled with this reason, and some other one is scaled."""
    attachment = tg.attach(lively(model), x, **{"spiking_input": True, **options})
    reasons = [why for name, why in attachment.skipped if name == synapse]
    assert any(reason in why for why in reasons), f"{reasons} do not say {reason!r}"
    assert attachment.pairs, "nothing else is scaled"
    return attachment
