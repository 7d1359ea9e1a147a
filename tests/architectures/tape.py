"""Scaled gradients a second time, for any network: one copy of the weight per step, correlations by autograd.

Nothing here calls tracegrad. A network has `forward`, as its users write it, and `stepwise(tape, ...)`, the same
computation time first, in which the tape is told what each synapse gets and what its neurons fire. G(t) is the gradient
of the copy of step t. Eq. 6 is the weight's gradient of the linear map from input to current, with the post-synaptic
signal as the current's gradient: R(t) = d/dW <current(X_pre(t), W), X_post(t)>.

What is copied is the weight in use; where that is a function of parameters, the chain rule does the rest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference import loss_of, normalise, scale, spike_trace

Compute = Callable[[Tensor, Tensor], Tensor]
"""(one step of the input, weight) -> one step of the current, with the bias."""
Route = Callable[[Tensor], Tensor]
"""One step of the neuron's spikes -> the post-synaptic signal in the shape of the current."""


@dataclass
class Synapse:
    """One synapse in one forward pass. `posts`: for each neuron that its current reaches, the signal of each step."""

    weight: Tensor
    compute: Compute
    copies: list[Tensor] = field(default_factory=list)
    pre: list[Tensor] = field(default_factory=list)
    posts: dict[str, list[Tensor]] = field(default_factory=dict)

    def step(self, x: Tensor) -> Tensor:
        self.copies.append(self.weight.detach().clone().requires_grad_())
        self.pre.append(x.detach())
        return self.compute(x, self.copies[-1])

    def relation(self, counts: Tensor, mask: Tensor) -> Tensor:
        """The sum over steps and examples of their contributions to R, each times its number in `counts` [T, B]."""
        weight = self.weight.detach().clone().requires_grad_()
        befores = spike_trace(_masked(self.pre, mask))
        total = weight.new_zeros(())
        for post in self.posts.values():
            assert len(post) == len(self.pre), f"{len(self.pre)} steps of the input, {len(post)} of the spikes"
            afters = spike_trace(_masked(post, mask))
            for before, after, count in zip(befores, afters, counts, strict=True):
                total = total + (self.compute(before, weight) * after * _alike(count, after)).sum()
        return torch.autograd.grad(total, weight)[0]

    def relations(self, time: str, mask: Tensor | None) -> list[Tensor]:
        """R, not normalised: one tensor per step for "per_step", else one."""
        ones = torch.ones(len(self.pre), len(self.pre[0]), dtype=torch.bool)
        mask = ones if mask is None else mask.expand_as(ones)
        if time == "per_step":
            steps = torch.eye(len(ones), dtype=self.weight.dtype)
            return [self.relation(step[:, None] * mask, mask) for step in steps]
        if time == "mean":
            return [self.relation(mask / mask.sum(0).clamp(min=1).to(self.weight.dtype), mask)]
        is_last = mask & (mask.flip(0).cumsum(0).flip(0) == 1)
        return [self.relation(is_last.to(self.weight.dtype), mask)]


def _alike(count: Tensor, x: Tensor) -> Tensor:
    return count.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))


def _masked(steps: list[Tensor], mask: Tensor) -> Tensor:
    return torch.stack([step * _alike(row, step) for step, row in zip(steps, mask, strict=True)])


class Tape:
    """What a network's `stepwise` form runs on."""

    def __init__(self, model: nn.Module) -> None:
        self.names = {module: name for name, module in model.named_modules()}
        self.synapses: dict[str, Synapse] = {}
        self.spikes: dict[str, list[Tensor]] = {}

    def step(self, synapse: nn.Module, x: Tensor) -> Tensor:
        """One step of a layer with a `weight`."""
        return self.weigh(self.names[synapse], synapse.weight, compute_of(synapse), x)

    def synapse(self, synapse: nn.Module, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """All steps [T, B, ...] of a layer; `weight` is the one in use, where that is not its parameter."""
        name, weight = self.names[synapse], synapse.weight if weight is None else weight
        return torch.stack([self.weigh(name, weight, compute_of(synapse), frame) for frame in x])

    def weigh(self, name: str, weight: Tensor, compute: Compute, x: Tensor) -> Tensor:
        """One step of any synapse; `weight` is the same tensor at every step."""
        return self.synapses.setdefault(name, Synapse(weight, compute)).step(x)

    def neuron(
        self, neuron: nn.Module, current: Tensor, behind: Sequence[nn.Module | str] = (), route: Route | None = None
    ) -> Tensor:
        """All steps of a neuron that has a loop `over_time`."""
        spikes = neuron.over_time(current)
        self.fired(neuron, spikes, behind, route)
        return spikes

    def fired(
        self, neuron: nn.Module, spikes: Tensor, behind: Sequence[nn.Module | str] = (), route: Route | None = None
    ) -> None:
        """Tells the synapses `behind`, those that get spikes themselves, what their neuron fired in one step or all."""
        self.spikes.setdefault(self.names[neuron], []).extend(spikes.detach())
        self.reaches(neuron, spikes, behind, route)

    def reaches(
        self, neuron: nn.Module, spikes: Tensor, behind: Sequence[nn.Module | str], route: Route | None = None
    ) -> None:
        """Tells synapses on another way to a neuron what it fired, which `fired` or `neuron` was told already."""
        name = self.names[neuron]
        for synapse in behind:
            synapse = synapse if isinstance(synapse, str) else self.names[synapse]
            posts = self.synapses[synapse].posts.setdefault(name, [])
            posts.extend(route(step) if route else step for step in spikes.detach())


def compute_of(synapse: nn.Module) -> Compute:
    """A layer's current as a function of its weight, whatever its own `forward` does besides."""
    if isinstance(synapse, nn.Linear):
        return lambda x, weight: F.linear(x, weight, synapse.bias)
    dimensions = len(synapse.kernel_size)
    if synapse.transposed:
        convolve = getattr(F, f"conv_transpose{dimensions}d")
        rest = synapse.stride, synapse.padding, synapse.output_padding, synapse.groups, synapse.dilation
    else:
        convolve = getattr(F, f"conv{dimensions}d")
        rest = synapse.stride, synapse.padding, synapse.dilation, synapse.groups
    return lambda x, weight: convolve(x, weight, synapse.bias, *rest)


@dataclass
class Result:
    """One forward and backward of the reference; gradients by parameter name, None where there is none.

    `scaled` names the parameters whose gradient the scaling changes.
    """

    output: Tensor
    input_gradients: list[Tensor | None]
    gradients: dict[str, Tensor | None]
    scaled: set[str]
    relations: dict[str, Tensor]
    pairs: list[tuple[str, str]]
    rates: dict[str, float]


def run(
    model: nn.Module,
    inputs: Sequence[Tensor],
    *,
    alpha: float = 0.5,
    time: str = "per_step",
    normalize: str = "max",
    mask: Tensor | None = None,
    leave_out: frozenset[str] = frozenset(),
) -> Result:
    """The scaled gradients of `loss_of`, left in `model` too. Synapses in `leave_out` keep plain gradients."""
    tape, inputs = Tape(model), entered(inputs)
    torch.manual_seed(SEED)
    output = model.stepwise(tape, *inputs)
    loss_of(output).backward(retain_graph=True)
    scaled, relations, pairs = set(), {}, []
    for name, synapse in tape.synapses.items():
        steps = [torch.zeros_like(copy) if copy.grad is None else copy.grad for copy in synapse.copies]
        if not synapse.posts or name in leave_out:
            gradient = sum(steps)
        else:
            hats = [normalise(relation, normalize) for relation in synapse.relations(time, mask)]
            parts = steps if time == "per_step" else [sum(steps)]
            gradient = sum(scale(part, hat, alpha) for part, hat in zip(parts, hats, strict=True))
            relations[name] = torch.stack(hats) if time == "per_step" else hats[0]
            pairs += [(name, neuron) for neuron in synapse.posts]
            scaled |= _parameters_of(model, synapse.weight)
        if synapse.weight.requires_grad:
            synapse.weight.backward(gradient, retain_graph=True)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    rates = {name: torch.stack(steps).ne(0).double().mean().item() for name, steps in tape.spikes.items()}
    grads = [x.grad for x in inputs if x.requires_grad]
    return Result(output.detach(), grads, gradients, scaled, relations, sorted(pairs), rates)


SEED = 7
"""Of the random numbers that a network draws itself."""


def entered(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs]


def _parameters_of(model: nn.Module, weight: Tensor) -> set[str]:
    """The parameters that a weight in use is a function of."""
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not weight.requires_grad:
        return set()
    found = torch.autograd.grad(weight.sum(), parameters.values(), retain_graph=True, allow_unused=True)
    return {name for name, gradient in zip(parameters, found, strict=True) if gradient is not None}
