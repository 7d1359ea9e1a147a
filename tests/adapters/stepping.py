"""Networks that are called step by step, in every library; and what each must show.

A network has `step(x, fire)`, one step on [B, ...], and `stepwise`, the same for the reference; how its neurons are
called, and who loops over time, is a `Style`. For the reference a neuron is the library's own, called in a loop; traces
and relations are the reference's.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import networks
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import reference
import tracegrad as tg
from reference import Tape, assert_differ, assert_near, assert_same, loss_of

TIMES = ("per_step", "mean", "final")
Detach = Callable[[nn.Module], None]
Fire = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class Style:
    """How a library's neurons are called.

    `neuron` builds one; `begin(network)` starts a sequence and returns `fire(neuron, current) -> spikes`, one step.
    """

    neuron: Callable[[], nn.Module]
    begin: Callable[[nn.Module], Fire]


def steps(module: nn.Module, x: Tensor) -> Tensor:
    return torch.stack([module(frame) for frame in x])


class Convolutional(networks.Stack):
    def step(self, x: Tensor, fire: Fire) -> Tensor:
        s = self.pool(fire(self.neuron0, self.norm0(self.stem(x))))
        return self.head(fire(self.neuron1, self.norm1(self.hidden(s))).mean((2, 3)))

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.neuron0, steps(self.norm0, tape.synapse(self.stem, x)), [])
        s = steps(self.pool, s)
        s = tape.neuron(self.neuron1, steps(self.norm1, tape.synapse(self.hidden, s)), [self.hidden])
        return tape.synapse(self.head, s.mean((3, 4)))


class Residual(networks.Residual):
    def step(self, x: Tensor, fire: Fire) -> Tensor:
        s = fire(self.neuron1, self.norm1(self.conv1(x)))
        block = fire(self.neuron2, self.norm2(self.conv2(s)) + self.norm(self.shortcut(x)))
        s = fire(self.neuron3, self.norm3(self.conv3(block)))
        return fire(self.neuron4, self.norm4(self.conv4(s)) + block)

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.neuron1, steps(self.norm1, tape.synapse(self.conv1, x)), [self.conv1])
        current = steps(self.norm2, tape.synapse(self.conv2, s)) + steps(self.norm, tape.synapse(self.shortcut, x))
        block = tape.neuron(self.neuron2, current, [self.conv2, self.shortcut])
        s = tape.neuron(self.neuron3, steps(self.norm3, tape.synapse(self.conv3, block)), [self.conv3])
        return tape.neuron(self.neuron4, steps(self.norm4, tape.synapse(self.conv4, s)) + block, [self.conv4])


NETWORKS = {"convolutional": Convolutional, "residual": Residual}


class LoopInside(nn.Module):
    """A model whose forward pass loops over time: [T, B, ...] -> [T, B, ...]."""

    def __init__(self, network: nn.Module, style: Style) -> None:
        super().__init__()
        self.network, self.style, self.segment = network, style, lambda step, x, fire: step(x, fire)

    def forward(self, x: Tensor) -> Tensor:
        fire = self.style.begin(self.network)
        return torch.stack([self.segment(self.network.step, frame, fire) for frame in x])


class OneStep(nn.Module):
    """A model that its user calls once per step, after `begin` where a sequence starts."""

    def __init__(self, network: nn.Module, style: Style) -> None:
        super().__init__()
        self.network, self.style = network, style
        self.begin()

    def begin(self) -> None:
        self.fire = self.style.begin(self.network)

    def forward(self, frame: Tensor) -> Tensor:
        return self.network.step(frame, self.fire)


LOOPS = {"inside": LoopInside, "outside": OneStep}


class Looped(nn.Module):
    """The library's neuron on all steps, [T, B, ...]."""

    def __init__(self, neuron: nn.Module, style: Style, cut: Detach | None) -> None:
        super().__init__()
        self.neuron, self.style, self.cut = neuron, style, cut

    def forward(self, currents: Tensor) -> Tensor:
        self.fire, spikes = self.style.begin(self), []
        for step, current in enumerate(currents):
            if self.cut and step == len(currents) // 2:
                self.cut(self)
            spikes.append(self.fire(self.neuron, current))
        return torch.stack(spikes)


def build(name: str, loop: str, style: Style) -> nn.Module:
    torch.manual_seed(0)
    network = NETWORKS[name](style.neuron).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.6)
            nn.init.uniform_(module.bias, 0.1, 0.5)
    return LOOPS[loop](network, style)


def frames(name: str, time_steps: int, batch: int = 3, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (time_steps, batch, 2 if name == "convolutional" else 3, 6, 6)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return x if name == "convolutional" else (x > 0).double()


def attached(model: nn.Module, name: str, **method) -> tg.Attachment:
    x = frames(name, 2, batch=1)
    return tg.attach(model, x if isinstance(model, LoopInside) else x[0], spiking_input=name == "residual", **method)


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    """All steps of one sequence."""
    if isinstance(model, OneStep):
        model.begin()
        return torch.stack([model(frame) for frame in x])
    return model(x)


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss_of(outputs(model, x)).backward()
    return grads(model)


def grads(model: nn.Module) -> dict[str, Tensor]:
    return {name.removeprefix("_orig_mod."): p.grad for name, p in model.named_parameters()}


def truth(model: nn.Module, x: Tensor, cut: Detach | None = None, **method) -> reference.Result:
    twin = deepcopy(model.network)
    for name, module in list(twin.named_children()):
        if name.startswith("neuron"):
            setattr(twin, name, Looped(module, model.style, cut))
    return reference.run(twin, x, neuron=None, **method)


# What each library must show


def shows_exact_gradients(model: nn.Module, name: str, x: Tensor, **method) -> None:
    expected = truth(model, x, **method)
    attachment = attached(model, name, **method)
    assert sorted(attachment.pairs) == [("network." + a, "network." + b) for a, b in expected.pairs], str(attachment)
    for spikes in expected.spikes.values():
        assert 0.02 < spikes.count_nonzero() / spikes.numel() < 0.98, "the case is void: no spikes, or nothing else"
    theirs = {parameter.replace(".neuron.", "."): value for parameter, value in expected.gradients.items()}
    for _ in range(2):  # the second sequence finds nothing of the first
        ours = gradients(model, x)
        assert_same({parameter.removeprefix("network."): g for parameter, g in ours.items()}, theirs, 1e-10)


def shows_alpha_zero_is_the_untouched_model(model: nn.Module, name: str, x: Tensor, time: str) -> None:
    untouched = gradients(deepcopy(model), x)
    attached(model, name, alpha=0.0, time=time)
    assert_same(gradients(model, x), untouched, 1e-12)


def shows_that_nothing_else_changes(model: nn.Module, name: str, x: Tensor, time: str) -> None:
    untouched = deepcopy(model)
    attachment = attached(model, name, time=time)
    assert model.state_dict().keys() == untouched.state_dict().keys()
    (ours, our_spikes), (theirs, their_spikes) = fired(model, x), fired(untouched, x)
    assert torch.equal(ours, theirs)
    for each, spikes in their_spikes.items():
        assert torch.equal(our_spikes[each], spikes), each
    attachment.detach()
    assert_same(gradients(model, x), gradients(untouched, x), 0.0)
    hooks = [module._forward_hooks or module._forward_pre_hooks for module in model.modules()]
    assert not any(hooks), "hooks are left"


def fired(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    found: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Callable:
        def hook(_: nn.Module, __: object, out: object) -> None:
            found.setdefault(name, []).append(out[0] if isinstance(out, tuple) else out)

        return hook

    handles = [
        module.register_forward_hook(keep(name))
        for name, module in model.named_modules()
        if name.rpartition(".")[2].startswith("neuron")
    ]
    assert handles
    result = outputs(model, x)
    for handle in handles:
        handle.remove()
    return result, {name: torch.stack(steps) for name, steps in found.items()}


def shows_micro_batches_add_up(model: nn.Module, name: str, x: Tensor, time: str) -> None:
    batches = [x, x[:, :2].flip(0)]
    attached(model, name, time=time, alpha=0.5)
    apart = [gradients(model, batch) for batch in batches]
    apart = [{parameter: value.clone() for parameter, value in each.items()} for each in apart]
    model.zero_grad()
    for batch in batches:
        loss_of(outputs(model, batch)).backward()
    assert_same(grads(model), {parameter: apart[0][parameter] + apart[1][parameter] for parameter in apart[0]}, 1e-12)


def shows_checkpoints_change_no_gradient(model: nn.Module, name: str, x: Tensor, time: str) -> None:
    """A checkpoint of each step, within the loop."""
    untouched = gradients(deepcopy(model), x)
    attached(model, name, time=time, alpha=0.5)
    expected = gradients(model, x)
    model.segment = checkpointed
    assert_same(gradients(model, x), expected, 1e-12)
    assert_differ(expected, untouched)


def checkpointed(step: Callable, frame: Tensor, fire: Fire) -> Tensor:
    """One step in a checkpoint, which goes on with the same states when it is computed anew."""
    states = dict(fire.states)

    def run(frame: Tensor) -> Tensor:
        fire.states = dict(states)
        return step(frame, fire)

    return checkpoint(run, frame, use_reentrant=False)


def shows_the_compiled_model_is_as_exact(model: nn.Module, name: str, x: Tensor, time: str) -> None:
    torch._dynamo.reset()
    untouched = gradients(deepcopy(model), x)
    attached(model, name, time=time, alpha=0.5)
    expected = gradients(model, x)
    compiled = torch.compile(model, backend="aot_eager")
    for _ in range(2):
        model.zero_grad()
        loss_of(compiled(x)).backward()
        assert_same(grads(model), expected, 1e-10)
    assert_differ(expected, untouched)


def shows_autocast(model: nn.Module, name: str, x: Tensor, time: str) -> None:
    """Of the same spikes, R differs from float32's by bf16's rounding; so does the gradient of what is scaled."""
    model, x = model.float(), x.float()
    scaled = deepcopy(model)
    attachment = tg.attach(scaled, x[:, :1], spiking_input=name == "residual", time=time, alpha=1.0, record=True)

    def in_bf16(which: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        which.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            output = outputs(which, x)
        loss_of(output.float()).backward()
        return output, grads(which)

    (theirs, untouched), (ours, got) = in_bf16(model), in_bf16(scaled)
    assert torch.equal(ours, theirs), "autocast outputs differ"
    weights = {f"{synapse}.weight" for synapse, _ in attachment.pairs}
    for parameter in got.keys() - weights:
        assert_near(got[parameter], untouched[parameter], 1e-6, parameter)
    for synapse, _ in attachment.pairs:
        relation, gradient = attachment.relations[synapse], untouched[f"{synapse}.weight"]
        assert relation.dtype == torch.float32
        assert relation.min() >= 0
        assert relation.max() == 1
        if time != "per_step":
            assert_near(got[f"{synapse}.weight"], gradient * relation, 0.02, synapse)


def halves(model: OneStep, x: Tensor, between: Detach) -> None:
    """Truncated back-propagation through time: a backward pass behind each half of a sequence."""
    model.begin()
    weights = torch.randn(len(x), *model(x[0]).shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    model.zero_grad()
    model.begin()
    for half, weight in zip(x.chunk(2), weights.chunk(2), strict=True):
        (torch.stack([model(frame) for frame in half]) * weight).sum().backward()
        between(model)


def shows_truncated_backpropagation(model: OneStep, name: str, x: Tensor, detach: Detach) -> None:
    """G of each half by itself, R of traces that run on through both."""
    expected = truth(model, x, cut=detach, time="per_step").gradients
    whole = truth(model, x, time="per_step").gradients
    assert_differ(expected, whole)
    attached(model, name, time="per_step")
    for _ in range(2):
        halves(model, x, detach)
        ours = {parameter.removeprefix("network."): value for parameter, value in grads(model).items()}
        theirs = {parameter.replace(".neuron.", "."): value for parameter, value in expected.items()}
        assert_same(ours, theirs, 1e-10)


def shows_that_truncation_needs_per_step(model: OneStep, name: str, x: Tensor, time: str, detach: Detach) -> None:
    attached(model, name, time=time)
    with pytest.raises(RuntimeError, match=f"truncated back-propagation .* needs time='per_step', as time='{time}'"):
        halves(model, x, detach)


def shows_that_a_forgotten_reset_is_an_error(model: OneStep, name: str, x: Tensor, time: str) -> None:
    attached(model, name, time=time)
    expected = gradients(model, x)
    with pytest.raises(RuntimeError, match=r"goes on with a sequence whose backward pass has run: call "):
        loss_of(torch.stack([model(frame) for frame in x])).backward()
    assert_same(gradients(model, x), expected, 0.0)


class Digits(nn.Module):
    """A convolutional network of images [B, 1, 8, 8]; the stem sees a still image and runs once."""

    def __init__(self, style: Style) -> None:
        super().__init__()
        self.style = style
        self.stem, self.norm0, self.neuron0 = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), style.neuron()
        self.hidden, self.norm1, self.neuron1 = nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), style.neuron()
        self.head = nn.Linear(16 * 9, 10)

    def forward(self, images: Tensor) -> Tensor:
        fire, still, outputs = self.style.begin(self), self.norm0(self.stem(images)), []
        for _ in range(4):
            s = fire(self.neuron0, still)
            s = fire(self.neuron1, self.norm1(self.hidden(s)))
            outputs.append(self.head(s.flatten(1)))
        return torch.stack(outputs)


def shows_training_on_digits(style: Style) -> None:
    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.images).float()[:, None] / 16, torch.tensor(digits.target)
    model = Digits(style)
    attachment = tg.attach(model, images[:1])
    assert attachment.pairs == [("hidden", "neuron1")]
    assert "its input is the data" in dict(attachment.skipped)["stem"]
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(3):
        epoch = []
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images[batch]).mean(0), labels[batch])
            loss.backward()
            optimizer.step()
            epoch.append(loss.item())
        losses.append(sum(epoch) / len(epoch))
    assert losses[-1] < 0.5 * losses[0], f"the loss of the epochs: {losses}"
