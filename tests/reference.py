"""Gradient scaling written a second time, by other means than the package: loops over steps and kernel positions.

Nothing here calls tracegrad. The part of a weight's gradient that step t contributes, G(t), comes from plain autograd
with a separate copy of the weight at each step; the relation comes from a loop over kernel positions.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DECAY = math.exp(-1)
# (sign, pre-synaptic signal, post-synaptic signal); "pre" is the trace of the pre-synaptic end
RELATIONS = {
    "positive": ((1, "trace", "trace"),),
    "causal": ((1, "trace", "spikes"),),
    "anticausal": ((1, "spikes", "trace"),),
    "stdp": ((1, "trace", "spikes"), (-1, "spikes", "trace")),
    "coincidence": ((1, "spikes", "spikes"),),
    "pre_pre": ((1, "trace", "pre"),),
}


def spike_trace(spikes: Tensor, decay: float = DECAY) -> Tensor:
    trace, steps = torch.zeros_like(spikes[0]), []
    for spike in spikes:
        trace = decay * trace + spike
        steps.append(trace)
    return torch.stack(steps)


def lif(
    current: Tensor, *, leak: float = 0.9, threshold: float = 0.5, reset: str = "soft", rest: float = 0.0
) -> Tensor:
    """Eqs. 1 to 4 with the boxcar surrogate of half width 0.5; the reset passes gradient."""
    v, steps = torch.zeros_like(current[0]), []
    for z in current:
        u = leak * v + z
        fires = (u.detach() >= threshold).to(u)
        boxcar = ((u.detach() - threshold).abs() <= 0.5).to(u)
        s = fires + (u - u.detach()) * boxcar
        v = u - s * threshold if reset == "soft" else (1 - s) * u + s * rest
        steps.append(s)
    return torch.stack(steps)


class LIF(nn.Module):
    """`lif` as a module, so that the reference can be checked without the package."""

    def __init__(self, **dynamics) -> None:
        super().__init__()
        self.dynamics = dynamics

    def forward(self, current: Tensor) -> Tensor:
        return lif(current, **self.dynamics)


def correlate(pre: Tensor, post: Tensor, synapse: nn.Module) -> Tensor:
    """Eq. 6 for one step, kernel position by kernel position."""
    if isinstance(synapse, nn.Linear):
        return torch.einsum("no,ni->oi", post.flatten(0, -2), pre.flatten(0, -2))
    pre = _pad(pre, synapse)
    relation = torch.zeros(synapse.weight.shape, dtype=pre.dtype)
    outputs = synapse.out_channels // synapse.groups
    inputs = synapse.in_channels // synapse.groups
    for position in itertools.product(*map(range, synapse.kernel_size)):
        geometry = zip(position, synapse.dilation, synapse.stride, post.shape[2:], strict=True)
        seen = pre[(..., *(slice(k * d, k * d + (size - 1) * s + 1, s) for k, d, s, size in geometry))]
        for group in range(synapse.groups):
            o = slice(group * outputs, (group + 1) * outputs)
            i = slice(group * inputs, (group + 1) * inputs)
            pairs = torch.einsum("nop,nip->oi", post[:, o].flatten(2), seen[:, i].flatten(2))
            relation[(o, slice(None), *position)] = pairs
    return relation


def pairs_of_values(pre: Tensor, post: Tensor, synapse: nn.Module) -> dict[tuple[int, ...], tuple[Tensor, Tensor]]:
    """For each weight, the values [M] at its two ends wherever its input position lies inside the image."""
    if isinstance(synapse, nn.Linear):
        pre, post = pre.flatten(0, -2), post.flatten(0, -2)
        return {(o, i): (pre[:, i], post[:, o]) for o in range(post.shape[1]) for i in range(pre.shape[1])}
    inside, pre = _pad(torch.ones_like(pre), synapse), _pad(pre, synapse)
    outputs, inputs = synapse.weight.shape[0] // synapse.groups, synapse.weight.shape[1]
    found = {}
    for position in itertools.product(*map(range, synapse.kernel_size)):
        geometry = zip(position, synapse.dilation, synapse.stride, post.shape[2:], strict=True)
        window = (..., *(slice(k * d, k * d + (size - 1) * s + 1, s) for k, d, s, size in geometry))
        for o, i in itertools.product(range(synapse.weight.shape[0]), range(inputs)):
            channel = o // outputs * inputs + i
            counts = inside[window][:, channel] > 0
            found[(o, i, *position)] = pre[window][:, channel][counts], post[:, o][counts]
    return found


def rate_free(pairs: list[dict[tuple[int, ...], tuple[Tensor, Tensor]]], how: str, like: Tensor) -> Tensor:
    """R_hat of one term, weight by weight, over the values of all these steps."""
    hat = torch.zeros_like(like)
    for weight in pairs[0]:
        p, q = (torch.cat([step[weight][end] for step in pairs]) for end in (0, 1))
        if how == "lift":
            size = p.mean() * q.mean()
            hat[weight] = (p * q).mean() / size if size > 0 else 0
            continue
        if how == "centered":
            flat = p.var(correction=0) <= 1e-10 * p.square().mean() or q.var(correction=0) <= 1e-10 * q.square().mean()
            p, q = (torch.zeros_like(p), q) if flat else (p - p.mean(), q - q.mean())
        size = p.norm() * q.norm()
        hat[weight] = (p @ q) / size if size > 0 else 0
    return hat


def _pad(pre: Tensor, synapse: nn.Module) -> Tensor:
    sides = []
    for axis, (size, dilation) in enumerate(zip(synapse.kernel_size, synapse.dilation, strict=True)):
        if synapse.padding == "same":
            both = dilation * (size - 1)
            sides.append((both // 2, both - both // 2))
        else:
            pad = 0 if synapse.padding == "valid" else synapse.padding[axis]
            sides.append((pad, pad))
    return F.pad(pre, [pad for side in reversed(sides) for pad in side])


def normalise(relation: Tensor, how: str) -> Tensor:
    if how == "none":
        return relation
    if how == "neuron":
        return torch.stack([normalise(row, "max") for row in relation])
    size = relation.abs().max() if how == "max" else relation.abs().mean()
    return relation / size if size > 0 else torch.zeros_like(relation)


def scale(gradient: Tensor, relation: Tensor, alpha: float) -> Tensor:
    """Eq. 7."""
    return alpha * gradient * relation + (1 - alpha) * gradient


def exponential(gradient: Tensor, relation: Tensor, alpha: float) -> Tensor:
    return gradient * (alpha * relation).exp()


def norm_preserving(gradient: Tensor, relation: Tensor, alpha: float) -> Tensor:
    """Row by row, as long as before."""
    rows = []
    for before, after in zip(gradient, scale(gradient, relation, alpha), strict=True):
        rows.append(after / after.norm() * before.norm() if after.norm() > 0 else after)
    return torch.stack(rows)


def signals(train: Tensor, control: str | None) -> dict[str, Tensor]:
    """What a relation reads at one end: spikes and their trace, or what is expected of them if they were shuffled."""
    if control != "counts":
        return {"spikes": train, "trace": spike_trace(train)}
    rate = train.sum(0) / len(train)
    geometric = [sum(DECAY**j for j in range(t + 1)) for t in range(len(train))]
    return {"spikes": torch.stack([rate] * len(train)), "trace": torch.stack([rate * size for size in geometric])}


def of_another_image(train: Tensor) -> Tensor:
    """That of the example before; before the first one is the last one."""
    examples = train.shape[1]
    return torch.stack([train[:, (b - 1) % examples] for b in range(examples)], 1)


def rank_one(relation: Tensor, groups: int) -> Tensor:
    """The first part of the SVD of each group's matrix [outputs, inputs * kernel positions]."""
    found = []
    for group in relation.chunk(groups):
        u, s, v = torch.linalg.svd(group.flatten(1), full_matrices=False)
        found.append((s[0] * torch.outer(u[:, 0], v[0])).reshape(group.shape))
    return torch.cat(found)


def rates(hat: Tensor, groups: int, control: str) -> Tensor:
    """R_hat replaced by its mean over the outputs of its group, or over inputs and kernel positions."""
    hat = hat.clone()
    for group in hat.chunk(groups):
        if control == "pre_rate":
            group[:] = sum(group) / len(group)
        else:
            for row in group:
                row[:] = row.mean()
    return hat


SCALINGS = {"linear": scale, "exponential": exponential, "norm_preserving": norm_preserving}
RATE_FREE = ("cosine", "centered", "lift")


@dataclass
class Call:
    """One synapse in one forward: its weight, a copy for each step; its input; the neurons that its current reaches."""

    weights: list[Tensor]
    pre: Tensor
    posts: dict[nn.Module, Tensor] = field(default_factory=dict)
    currents: list[Tensor] = field(default_factory=list)

    def ends(self, control: str | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The signals at both ends."""
        fired = sum(self.posts.values())
        fired = of_another_image(fired) if control == "other_image" else fired
        pre = signals(self.pre, control)
        return pre, signals(fired, control) | {"pre": pre["trace"]}

    def relations(self, synapse: nn.Module, relation: str, control: str | None = None) -> list[Tensor]:
        """R(t), not normalised, one tensor a step."""
        steps = [torch.zeros_like(synapse.weight) for _ in self.weights]
        befores, afters = self.ends(control)
        for (sign, before, after), t in itertools.product(RELATIONS[relation], range(len(steps))):
            steps[t] = steps[t] + sign * correlate(befores[before][t], afters[after][t], synapse)
        return steps

    def event_gradient(self, synapse: nn.Module, relation: str, d: Sequence[Tensor], control: str | None) -> Tensor:
        """The sum over steps of correlate(s p, d q) / c, with c the mean of p q over input spikes and outputs."""
        befores, afters = self.ends(control)
        gradient, products, number = torch.zeros_like(synapse.weight), 0.0, 0.0
        for t, s in enumerate(self.pre):
            reached = pairs_of_values(s, torch.ones_like(d[t]), synapse)
            number += sum(float(spike.sum()) for spike, _ in reached.values())
            for _, before, after in RELATIONS[relation]:
                p, q = befores[before][t], afters[after][t]
                gradient = gradient + correlate(s * p, d[t] * q, synapse)
                products += sum(float((a * b).sum()) for a, b in pairs_of_values(s * p, q, synapse).values())
        return gradient / (products / number) if products else gradient

    def rate_free_relations(
        self, synapse: nn.Module, relation: str, time: str, how: str, control: str | None = None
    ) -> list[Tensor]:
        """R_hat by a normalisation that divides the rates out: one tensor a step for "per_step", else one."""
        pre, post = self.ends(control)
        count = len(self.weights)
        groups = {"per_step": [[t] for t in range(count)], "mean": [list(range(count))], "final": [[count - 1]]}[time]
        hats = []
        for group in groups:
            terms = []
            for sign, before, after in RELATIONS[relation]:
                pairs = [pairs_of_values(pre[before][t], post[after][t], synapse) for t in group]
                terms.append(sign * rate_free(pairs, how, synapse.weight.detach()))
            hats.append(sum(terms) / len(terms))
        return hats


class Tape:
    """What a network's `stepwise` form runs on: every synapse step by step, every neuron as a loop, all of it kept.

    `neuron` is that loop; None stands for the network's own neurons, in all steps at once.
    """

    def __init__(self, neuron: Callable[..., Tensor] | None = lif, **dynamics) -> None:
        self.fire = neuron
        self.dynamics = dynamics
        self.calls: dict[nn.Module, Call] = {}
        self.spikes: dict[nn.Module, Tensor] = {}

    def synapse(self, synapse: nn.Module, x: Tensor) -> Tensor:
        weights = [synapse.weight.detach().clone().requires_grad_() for _ in x]
        steps = zip(x, weights, strict=True)
        currents = [torch.func.functional_call(synapse, {"weight": w}, (frame,)) for frame, w in steps]
        self.calls[synapse] = Call(weights, x.detach(), currents=currents)
        return torch.stack(currents)

    def neuron(self, neuron: nn.Module, current: Tensor, behind: Sequence[nn.Module]) -> Tensor:
        """Fires on `current`, to which the synapses `behind` contribute (those alone that get spikes themselves)."""
        spikes = self.fire(current, **self.dynamics) if self.fire else neuron(current)
        self.spikes[neuron] = spikes.detach()
        for synapse in behind:
            self.calls[synapse].posts[neuron] = spikes.detach()
        return spikes


def loss_of(output: Tensor) -> Tensor:
    """A loss whose gradient differs at every place."""
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(2), dtype=output.dtype)
    return (output * weights.to(output.device)).sum()


@dataclass
class Result:
    """One forward and backward of the reference. Gradients and relations by parameter and module name."""

    output: Tensor
    input_gradient: Tensor
    gradients: dict[str, Tensor]
    relations: dict[str, Tensor]
    pairs: list[tuple[str, str]]
    spikes: dict[str, Tensor]


def run(
    model: nn.Module,
    x: Tensor,
    *,
    alpha: float = 0.1,
    time: str = "per_step",
    normalize: str = "max",
    relation: str = "positive",
    scaling: str = "linear",
    inverted: bool = False,
    apply: str = "outside",
    control: str | None = None,
    **dynamics,
) -> Result:
    """The scaled gradients of `loss_of` for an unattached network with a `stepwise(tape, x)` form, left as it is."""
    model, tape = deepcopy(model), Tape(**dynamics)
    x = x.detach().clone().requires_grad_()
    output = model.stepwise(tape, x)
    loss = loss_of(output)
    names = {module: name for name, module in model.named_modules()}
    copied = {f"{names[synapse]}.weight" for synapse in tape.calls}
    others = {name: p for name, p in model.named_parameters() if name not in copied and p.requires_grad}
    found = torch.autograd.grad(loss, [x, *others.values()], retain_graph=True)
    gradients, relations = dict(zip(others, found[1:], strict=True)), {}
    for synapse, call in tape.calls.items():
        name = names[synapse]
        steps = torch.autograd.grad(loss, call.weights, retain_graph=True)
        if call.posts and apply == "event":
            d = torch.autograd.grad(loss, call.currents, retain_graph=True)
            inside = call.event_gradient(synapse, relation, d, control)
            gradients[f"{name}.weight"] = (1 - alpha) * sum(steps) + alpha * inside
        elif call.posts:
            if normalize in RATE_FREE:
                hats = call.rate_free_relations(synapse, relation, time, normalize, control)
            else:
                raw = _over_time(call.relations(synapse, relation, control), time)
                groups = getattr(synapse, "groups", 1)
                raw = [rank_one(each, groups) for each in raw] if control == "rank_one" else raw
                hats = [normalise(each, normalize) for each in raw]
            if control in ("pre_rate", "post_rate"):
                hats = [rates(hat, getattr(synapse, "groups", 1), control) for hat in hats]
            hats = [1 - hat for hat in hats] if inverted else hats
            parts = steps if time == "per_step" else [sum(steps)]
            gradients[f"{name}.weight"] = sum(
                SCALINGS[scaling](g, hat, alpha) for g, hat in zip(parts, hats, strict=True)
            )
            relations[name] = torch.stack(hats) if time == "per_step" else hats[0]
        else:
            gradients[f"{name}.weight"] = sum(steps)
    pairs = [(names[synapse], names[neuron]) for synapse, call in tape.calls.items() for neuron in call.posts]
    spikes = {names[neuron]: fired for neuron, fired in tape.spikes.items()}
    return Result(output.detach(), found[0], gradients, relations, sorted(pairs), spikes)


def _over_time(raw: list[Tensor], time: str) -> list[Tensor]:
    if time == "per_step":
        return raw
    return [raw[-1] if time == "final" else sum(raw) / len(raw)]


def gradients(model: nn.Module, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """What the model's own backward gives under `loss_of`: the gradient of every parameter, and the input's."""
    x = x.clone().requires_grad_()
    loss_of(model(x)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}, x.grad


def assert_near(ours: Tensor, theirs: Tensor, bound: float, what: str) -> None:
    """Largest difference within `bound` of the largest value; where that is zero, no difference at all."""
    assert ours.shape == theirs.shape, f"{what}: shape {tuple(ours.shape)}, expected {tuple(theirs.shape)}"
    error, size = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    assert error <= bound * size, f"{what}: off by {error:.3e} where the largest value is {size:.3e}"


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], bound: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert_near(ours[name], gradient, bound, name)


def assert_differ(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Guards a comparison that would hold as well if nothing were scaled."""
    assert any((ours[name] - value).abs().max() > 1e-3 * value.abs().max() for name, value in theirs.items())


def assert_gradients(model: nn.Module, x: Tensor, truth: Result, bound: float = 1e-10) -> None:
    ours, input_gradient = gradients(model, x)
    assert ours.keys() == truth.gradients.keys()
    for name, gradient in ours.items():
        assert_near(gradient, truth.gradients[name], bound, name)
    assert_near(input_gradient, truth.input_gradient, bound, "the input's gradient")
