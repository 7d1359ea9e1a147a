"""Recurrent neurons of snnTorch, Norse and SpikingJelly; for the reference, their equations in a loop."""

from functools import partial

import norse.torch as norse
import snntorch
import torch
from architecture import EXAMPLES, STEPS, Architecture, spikes
from spiking import Fire
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from tape import Tape
from torch import Tensor, nn


class RecurrentLeaky(nn.Module):
    """snnTorch's RLeaky: all to all, one to one, and one number for all."""

    def __init__(self) -> None:
        super().__init__()
        leaky = partial(snntorch.RLeaky, beta=0.8, threshold=0.5, spike_grad=Fire.apply)
        self.fc1, self.all = nn.Linear(7, 6), leaky(linear_features=6, reset_mechanism="zero")
        self.fc2, self.own = nn.Linear(6, 5), leaky(all_to_all=False, V=torch.linspace(-0.5, 0.9, 5))
        self.fc3, self.shared = nn.Linear(5, 5), leaky(all_to_all=False, V=0.3)
        self.head = nn.Linear(5, 3)

    @property
    def layers(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        return (self.fc1, self.all), (self.fc2, self.own), (self.fc3, self.shared)

    def forward(self, x: Tensor) -> Tensor:
        states = [list(lif.reset_mem()) for _, lif in self.layers]
        outputs = []
        for s in x:
            for (fc, lif), state in zip(self.layers, states, strict=True):
                s, state[1] = lif(fc(s), *state)
                state[0] = s
            outputs.append(self.head(s))
        return torch.stack(outputs)

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        last = {lif: (x.new_zeros(x.shape[1], fc.out_features),) * 2 for fc, lif in self.layers}
        outputs = []
        for s in x:
            for fc, lif in self.layers:
                before, membrane = last[lif]
                if lif is self.all:
                    name, back = "all.recurrent", tape.step(lif.recurrent, before)
                else:
                    name = f"{tape.names[lif]}.V"
                    back = tape.weigh(name, lif.V, torch.mul, before)
                u = lif.beta * membrane + tape.step(fc, s) + back
                reset = (membrane.detach() >= 0.5).to(u)
                u = u * (1 - reset) if lif is self.all else u - 0.5 * reset
                s = Fire.apply(u - 0.5)
                last[lif] = s, u
                tape.fired(lif, s[None], [fc, name])
            outputs.append(tape.step(self.head, s))
        return torch.stack(outputs)


class RecurrentCells(nn.Module):
    """Norse's LIFRecurrentCell, whose weights of the input and of its own spikes are inside it; no self-connections.

    Norse keeps the diagonal of the recurrent weights at zero by a hook on their gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        tau = {"tau_mem_inv": torch.tensor(500.0), "v_th": torch.tensor(0.3), "alpha": torch.tensor(1.0)}
        self.p = norse.LIFParameters(method="super", **tau)
        self.cell = norse.LIFRecurrentCell(7, 6, self.p)
        self.second = norse.LIFRecurrentCell(6, 5, self.p)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        state, second, outputs = None, None, []
        for frame in x:
            s, state = self.cell(frame, state)
            s, second = self.second(s, second)
            outputs.append(self.head(s))
        return torch.stack(outputs)

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        states = {cell: self._rest(x, int(cell.hidden_size)) for cell in (self.cell, self.second)}
        outputs = []
        for s in x:
            for cell in (self.cell, self.second):
                s = self._step(tape, cell, states, s)
            outputs.append(tape.step(self.head, s))
        return torch.stack(outputs)

    def _rest(self, x: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
        return (x.new_zeros(x.shape[1], width),) * 3

    def _step(self, tape: Tape, cell: nn.Module, states: dict, x: Tensor) -> Tensor:
        def weigh(which: str, x: Tensor) -> Tensor:
            return tape.weigh(f"{name}.{which}", getattr(cell, which), nn.functional.linear, x)

        name, (z, v, i) = tape.names[cell], states[cell]
        i = i + weigh("input_weights", x) + weigh("recurrent_weights", z)
        v = v + 0.001 * self.p.tau_mem_inv * (self.p.v_leak - v + i)
        z = norse.functional.threshold.threshold(v - self.p.v_th, "super", self.p.alpha)
        v = (1 - z.detach()) * v + z.detach() * self.p.v_reset
        states[cell] = z, v, i - 0.001 * self.p.tau_syn_inv * i
        tape.fired(cell, z[None], [f"{name}.input_weights", f"{name}.recurrent_weights"])
        return z


class Containers(nn.Module):
    """SpikingJelly's LinearRecurrentContainer: one linear layer gets the input and the last spikes, side by side."""

    def __init__(self, step_mode: str) -> None:
        super().__init__()
        self.step_mode = step_mode
        lif = partial(neuron.LIFNode, tau=1.6, v_threshold=0.25, surrogate_function=surrogate.ATan())
        self.fc, self.lif = layer.Linear(7, 6, step_mode=step_mode), lif(step_mode=step_mode)
        self.container = layer.LinearRecurrentContainer(lif(), 6, 6, step_mode=step_mode)
        self.head = layer.Linear(6, 3, step_mode=step_mode)

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        if self.step_mode == "m":
            return self.head(self.container(self.lif(self.fc(x))))
        return torch.stack([self.head(self.container(self.lif(self.fc(frame)))) for frame in x])

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        v, inner, y, outputs = 0.0, 0.0, x.new_zeros(x.shape[1], 6), []
        for frame in x:
            s, v = self._fire(tape.step(self.fc, frame), v)
            tape.fired(self.lif, s[None], [self.fc])
            y, inner = self._fire(tape.step(self.container.rc, torch.cat([s, y], dim=-1)), inner)
            tape.fired(self.container.sub_module, y[None], [self.container.rc])
            outputs.append(tape.step(self.head, y))
        return torch.stack(outputs)

    def _fire(self, current: Tensor, v: Tensor | float) -> tuple[Tensor, Tensor]:
        v = v + (current - v) / 1.6
        s = surrogate.ATan()(v - 0.25)
        return s, (1 - s) * v


_SPIKES = {"spiking_input": True}
_CONTAINER = (("fc", "lif"), ("container.rc", "container.sub_module"))
ARCHITECTURES = {
    "snntorch": Architecture(
        RecurrentLeaky,
        spikes(STEPS, EXAMPLES, 7),
        (
            ("fc1", "all"),
            ("all.recurrent", "all"),
            ("fc2", "own"),
            ("own.V", "own"),
            ("fc3", "shared"),
            ("shared.V", "shared"),
        ),
        {"head": "reaches no"},
        _SPIKES,
    ),
    "norse": Architecture(
        RecurrentCells,
        spikes(8, -1, 7),
        tuple(
            (f"{cell}.{which}", cell) for cell in ("cell", "second") for which in ("input_weights", "recurrent_weights")
        ),
        {"head": "reaches no"},
        _SPIKES,
    ),
    "spikingjelly-steps": Architecture(
        lambda: Containers("s"), spikes(STEPS, EXAMPLES, 7), _CONTAINER, {"head": "reaches no"}, _SPIKES
    ),
    "spikingjelly-all-steps": Architecture(
        lambda: Containers("m"), spikes(STEPS, EXAMPLES, 7), _CONTAINER, {"head": "reaches no"}, _SPIKES
    ),
}
