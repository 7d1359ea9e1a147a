"""A library of one neuron, to show that a class is all it takes."""

from torch import Tensor, nn

import tracegrad as tg
from contract.library import Fire, Library


class Membrane(nn.Module):
    """Fires one step a call; keeps its membrane until that is set to None."""

    v: Tensor | None = None

    def forward(self, z: Tensor) -> Tensor:
        u = z if self.v is None or self.v.shape != z.shape else 0.6 * self.v + z
        over = u.detach() - 0.5
        s = (over >= 0).to(u) + (u - u.detach()) / (1 + 4 * over**2)
        self.v = u - 0.5 * s
        return s


tg.register_neuron(Membrane, step=True, state="v", reset="forget(model)")


class Stub(Library):
    neurons = {"Membrane": Membrane}
    reset = r"forget\(model\)"

    def begin(self, network: nn.Module) -> Fire:
        for module in network.modules():
            if isinstance(module, Membrane):
                module.v = None
        return self.fire

    def detach(self, model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, Membrane):
                module.v = module.v.detach()
