"""DA-SSDP: spike-synchrony-dependent plasticity with a dopamine gate (Tian et al. 2025), added to gradient descent.

After a step of the optimizer, the weights [outputs, inputs] of a few deep layers change by a rule of their own. With
f = 1 where an end fired at least once in the T steps, else 0, and t the step of its first spike, T if there is none:

    c[b,o,i] = f[b,o] f[b,i]                                  both ends fired for example b
    g[b,o,i] = exp(-(t[b,o] - t[b,i])^2 / (2 sigma^2))        how near in time
    S[b]     = mean over o and i of c[b,o,i]                  the synchrony of an example
    G[b]     = clip(1 + k (S[b] - mu) / sd, 0, 2)             the gate, "dopamine"
    W[o,i]  += clip(mean over b of G[b] g[b,o,i] (A_plus c[b,o,i] - A_minus (1 - c[b,o,i])), -1, 1)

In a warm-up, weights do not change: mu and sd are the mean and the standard deviation of S over its examples, and
k = -corr(S, L) with L the loss of an example's batch. They are fixed afterwards.

Source: the abstract of arXiv 2512.07194, "Synchrony-gated plasticity with dopamine modulation for spiking neural
networks", and, for the equations, its authors' public code (github.com/NeuroSyd/DA-SSDP). Their setting:
A_plus = 1.5e-3, A_minus = 5e-4, sigma = 1, a warm-up of 100 of 600 epochs, on the classifier (which has no neurons: an
output above 0 counts as a spike) and on the last attention's projection. Two things differ. The code takes the step of
the last spike (the first maximum of a running count) for what its authors call the first; here it is the first. And
their classifier has fired where its mean output is above 0, here where that of any step is.
"""

from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from tracegrad.core.neurons import is_neuron, only_spikes, spikes_of


class FirstSpikes(NamedTuple):
    """Whether each neuron fired, 0 or 1, and the step of its first spike, T where there is none; both [B, N]."""

    fired: Tensor
    step: Tensor

    @classmethod
    def of(cls, spikes: Tensor) -> Self:
        """Of spikes [T, B, N], entries above 0."""
        steps = torch.arange(len(spikes), device=spikes.device).reshape(-1, 1, 1)
        first = torch.where(spikes.detach() > 0, steps, len(spikes)).amin(0)
        return cls((first < len(spikes)).float(), first.float())


class Gate(NamedTuple):
    """What the warm-up has seen of S and L: sums about their means, each a number.

    Attributes:
        updates: of the gate.
        examples: how many there were.
        synchrony: the mean of S.
        loss: the mean of L.
        synchrony_squares: the sum of (S - mean)^2.
        loss_squares: the sum of (L - mean)^2.
        products: the sum of (S - mean) (L - mean).
    """

    updates: Tensor
    examples: Tensor
    synchrony: Tensor
    loss: Tensor
    synchrony_squares: Tensor
    loss_squares: Tensor
    products: Tensor

    def with_batch(self, synchrony: Tensor, loss: Tensor) -> Self:
        """After one more batch, of synchronies [B] and the same loss for all of them (Chan et al. 1979)."""
        number = len(synchrony)
        examples = self.examples + number
        off_synchrony, off_loss = synchrony.mean() - self.synchrony, loss - self.loss
        share, spread = number / examples, self.examples * number / examples
        return type(self)(
            self.updates + 1,
            examples,
            self.synchrony + off_synchrony * share,
            self.loss + off_loss * share,
            self.synchrony_squares + (synchrony - synchrony.mean()).square().sum() + off_synchrony.square() * spread,
            self.loss_squares + off_loss.square() * spread,
            self.products + off_synchrony * off_loss * spread,
        )

    def factor(self, synchrony: Tensor) -> Tensor:
        """G of each example, [B]; 1 where S or L did not vary, or nothing was seen."""
        squares = self.synchrony_squares * self.loss_squares
        if not squares > 0:
            return torch.ones_like(synchrony)
        k = -self.products / squares.sqrt()
        deviation = (self.synchrony_squares / self.examples).sqrt()
        return (1 + k * (synchrony - self.synchrony) / deviation).clamp(0, 2)


KEY = "synchrony"
"""Of the gate in the optimizer's state of a weight."""


class SynchronyPlasticity:
    """Changes weights by the synchrony of their ends, after each step of an optimizer; see the module's equations.

    The gate is kept in the optimizer's state of each weight, so that it is saved and loaded with it.

    Example:
        with SynchronyPlasticity(model, {"classifier": None}, warm_up=1000) as plasticity:
            for images, target in batches:
                loss = objective(model(images), target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                plasticity.step(optimizer, loss)

    Args:
        model: its forward passes in training mode are listened to, until the block ends.
        synapses: names of linear layers, called once with [T, B, inputs], each with the name of the neurons that it
            drives, or None where it drives none: an output above 0 then counts as a spike.
        warm_up: for how many steps only the gate learns.
        a_plus: A_plus.
        a_minus: A_minus.
        sigma: in steps.

    Raises:
        ValueError: a name of another module, a negative warm-up, or a sigma that is not positive.
    """

    def __init__(
        self,
        model: nn.Module,
        synapses: Mapping[str, str | None],
        warm_up: int,
        a_plus: float = 1.5e-3,
        a_minus: float = 5e-4,
        sigma: float = 1.0,
    ) -> None:
        if warm_up < 0:
            raise ValueError(f"warm_up must be at least 0 steps, not {warm_up}")
        if not sigma > 0:
            raise ValueError(f"sigma must be above 0 steps, not {sigma}")
        self.warm_up, self.a_plus, self.a_minus, self.sigma = warm_up, a_plus, a_minus, sigma
        modules = dict(model.named_modules())
        self._layers: dict[str, nn.Linear] = {}
        for name, neuron in synapses.items():
            layer = modules.get(name)
            if not isinstance(layer, nn.Linear):
                known = ", ".join(each for each, module in modules.items() if isinstance(module, nn.Linear))
                raise ValueError(  # noqa: TRY004
                    f"{name!r} is no linear layer of {type(model).__name__}, which has {known or 'none'}"
                )
            if neuron is not None and (neuron not in modules or not is_neuron(modules[neuron])):
                raise ValueError(f"{neuron!r}, behind {name!r}, is no neuron of {type(model).__name__}")
            self._layers[name] = layer
        self._ends: dict[str, dict[str, FirstSpikes]] = {name: {} for name in synapses}
        self._handles = [layer.register_forward_hook(partial(self._hear, name)) for name, layer in self._layers.items()]
        for name, neuron in synapses.items():
            if neuron is not None:
                hook = only_spikes(partial(self._hear_neuron, name))
                self._handles.append(modules[neuron].register_forward_hook(hook))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()

    def _hear(self, name: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not layer.training:
            return
        if output.dim() != 3:
            raise ValueError(f"{name} must be called with [T, B, inputs], not {list(inputs[0].shape)}")
        self._ends[name] = {"pre": FirstSpikes.of(inputs[0]), "post": FirstSpikes.of(output)}

    def _hear_neuron(self, name: str, neuron: nn.Module, _inputs: Any, output: Any) -> None:
        if neuron.training:
            self._ends[name]["post"] = FirstSpikes.of(spikes_of(output))

    @torch.no_grad()
    def step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """Changes the weights, or in the warm-up the gate, by the last forward pass in training mode.

        Args:
            optimizer: that of the weights, after its own step.
            loss: of the batch.

        Raises:
            ValueError: there was no such forward pass since the last step.
        """
        for name, layer in self._layers.items():
            ends = self._ends[name]
            if not ends:
                raise ValueError(f"{name} was not called in training mode since the last step")
            self._ends[name] = {}
            state = optimizer.state[layer.weight]
            gate = Gate(*state[KEY]) if KEY in state else Gate(*torch.zeros(7).to(layer.weight))
            pre, post = ends["pre"], ends["post"]
            together = (post.fired[:, :, None] * pre.fired[:, None]).to(layer.weight.dtype)
            synchrony = together.mean((1, 2))
            if gate.updates < self.warm_up:
                gate = gate.with_batch(synchrony, loss.detach().to(synchrony))
            else:
                apart = (post.step[:, :, None] - pre.step[:, None]).to(layer.weight.dtype)
                near = (-apart.square() / (2 * self.sigma**2)).exp()
                change = near * (self.a_plus * together - self.a_minus * (1 - together))
                layer.weight += (gate.factor(synchrony)[:, None, None] * change).mean(0).clamp(-1, 1)
            state[KEY] = torch.stack([*gate])
