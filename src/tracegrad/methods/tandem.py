"""Local tandem learning (Yang et al. 2022): a trained ReLU network teaches a spiking one, layer by layer.

With s_l the spikes of layer l, A_l the teacher's activations of that layer and P their percentile, its target is

    a_l = clamp(A_l / P(A_l), 0, 1)

and the loss, for classes or probabilities y and outputs o(t), is

    offline:  CE(mean_t o(t), y) + sum_l MSE(mean_t s_l(t), a_l)                             P the 99.9th percentile
    online:   sum over t >= W of CE(o_mean(t), y) + sum_l MSE(s_l,mean(t), a_l)              P the 99th, W = 3/4 T

with x_mean(t) = (x(0) + ... + x(t)) / (t + 1). Every layer's input is detached, so the loss of a layer has no gradient
with respect to any other layer. Online, all state is detached between the steps as well (the sums of the running means
and the membranes), so step t teaches only through its own currents. Norms with statistics over time are unchanged.

The paper's setting: T = 16, leak exp(-1/10), threshold 0.6, soft reset, the surrogate "narrow_boxcar", Adam with
learning rate 1e-4, batches of 64, and students that start from their own random weights. For short training the
teacher's weights are a better start: `student.load_state_dict(teacher.state_dict())`.
"""

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tracegrad.core.neurons import is_neuron, only_spikes
from tracegrad.methods.objectives import mean_cross_entropy

Mode = Literal["offline", "online"]

PERCENTILES: dict[Mode, float] = {"offline": 99.9, "online": 99.0}
"""P; a neuron that fires at every step stands for this percentile of the activations."""

Heard = list[tuple[str, Tensor]]
"""What was kept of each call of the watched modules: (name, tensor), in the order of the calls."""

TOPOLOGY = "the teacher has another topology"
FUNCTIONS = "functions such as F.relu have no name to pair by, so activations must be nn.ReLU modules"


@dataclass(frozen=True)
class TandemLosses:
    """The losses of one batch.

    Attributes:
        outputs: the student's outputs at every step, [T, B, K], detached.
        output: the loss of the outputs; it has a gradient only for parameters after the last neurons.
        layers: the loss of each neuron layer, by the neuron's module name.
    """

    outputs: Tensor
    output: Tensor
    layers: dict[str, Tensor]

    @property
    def total(self) -> Tensor:
        """The sum that training lowers."""
        return torch.stack([self.output, *self.layers.values()]).sum()


class TandemLearning:
    """Local tandem learning of a student from a teacher; see the equations of `tracegrad.methods.tandem`.

    Layers are paired by module name: a neuron of the student with the `nn.ReLU` module of the same name in the
    teacher, as in `resnet(...)` and `resnet(..., time_steps=1, neuron=nn.ReLU)`. As in the authors' code, the
    percentile is taken over all activations of a layer in the batch, which needs no pass over the training data first.

    Example:
        tandem = TandemLearning(student, teacher)
        tandem.loss(images, target).backward()

    Args:
        student: any network whose neurons are registered (`tracegrad.register_neuron`); its outputs are [T, B, K].
            Nothing stays on it after a call.
        teacher: a trained network of the same topology. It is put in evaluation mode and not changed otherwise.
        mode: "offline" or "online". Online needs neurons with a `detach_membrane` option, as `tracegrad.LIF` has; it
            is set during each forward pass.

    Raises:
        ValueError: an unknown mode, a student without neurons, a teacher of another topology, or, online, neurons
            that cannot detach their membranes.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, mode: Mode = "offline") -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"unknown mode {mode!r} of tandem learning; the known ones are 'offline', 'online'")
        self.student, self.teacher = student, teacher
        self.mode: Mode = mode
        self._neurons = {name: module for name, module in student.named_modules() if is_neuron(module)}
        self._relus = {name: module for name, module in teacher.named_modules() if isinstance(module, nn.ReLU)}
        if not self._neurons:
            raise ValueError(f"{type(student).__name__} holds no spiking neuron; register its neurons")
        for name in [*self._neurons, *self._relus]:
            if name not in self._relus or name not in self._neurons:
                has, lacks = ("student", "teacher") if name in self._neurons else ("teacher", "student")
                what = "neuron" if lacks == "student" else "nn.ReLU module"
                hint = "" if lacks == "student" else f"; {FUNCTIONS}"
                raise ValueError(f"{TOPOLOGY}: {name!r} of the {has} is no {what} in the {lacks}{hint}")
        for name, neuron in self._neurons.items():
            if mode == "online" and not hasattr(neuron, "detach_membrane"):
                raise ValueError(
                    f"online tandem learning detaches membranes between the steps, and {type(neuron).__name__} "
                    f"({name!r}) has no detach_membrane option; use tracegrad.LIF or mode='offline'"
                )

    def loss(self, images: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch, to be lowered by gradient descent; arguments and errors as for `losses`."""
        return self.losses(images, target).total

    def losses(self, images: Tensor, target: Tensor) -> TandemLosses:
        """Runs teacher and student on a batch.

        Args:
            images: what both networks take.
            target: classes [B], or probabilities [B, K].

        Raises:
            ValueError: layers that the two networks call in a different order or that differ in shape, or a target
                that does not fit the outputs.
        """
        self.teacher.eval()
        with torch.no_grad(), _listen(self._relus, partial(_target, percentile=PERCENTILES[self.mode])) as targets:
            self.teacher(images)
        with _listen(self._neurons, self._means) as rates, self._membranes():
            outputs: Tensor = self.student(images)
        layers: dict[str, Tensor] = {}
        for (name, rate), activation in _paired(rates, targets):
            loss = torch.stack([F.mse_loss(mean, activation.to(mean.dtype)) for mean in rate]).sum()
            layers[name] = layers[name] + loss if name in layers else loss
        output = torch.stack([mean_cross_entropy(mean[None], target) for mean in self._means(outputs)]).sum()
        return TandemLosses(outputs.detach(), output, layers)

    def _means(self, over_time: Tensor) -> Tensor:
        """The means over time of [T, B, ...] that enter the loss: [1, B, ...] offline, [T - W, B, ...] online."""
        if self.mode == "offline":
            return over_time.mean(0, keepdim=True)
        time_steps = len(over_time)
        warm_up = 3 * time_steps // 4
        taught, before = over_time[warm_up:], over_time.detach().cumsum(0)[warm_up:] - over_time.detach()[warm_up:]
        count = torch.arange(warm_up + 1, time_steps + 1, dtype=taught.dtype, device=taught.device)
        return (before + taught) / count.reshape(-1, *[1] * (taught.dim() - 1))

    @contextmanager
    def _membranes(self) -> Generator[None]:
        """Online, detaches the membranes of the student's neurons between the steps while the block runs."""
        neurons: list[Any] = list(self._neurons.values()) if self.mode == "online" else []
        options = [neuron.detach_membrane for neuron in neurons]
        try:
            for neuron in neurons:
                neuron.detach_membrane = True
            yield
        finally:
            for neuron, option in zip(neurons, options, strict=True):
                neuron.detach_membrane = option


@contextmanager
def _listen(modules: Mapping[str, nn.Module], keep: Callable[[Tensor], Tensor]) -> Generator[Heard]:
    """While the block runs, keeps keep(output) for every output of these modules, and detaches what they pass on."""
    heard: Heard = []

    def hear(name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        # Before the output is passed on: later layers may write into it.
        heard.append((name, keep(output)))
        return output.detach()

    handles = [module.register_forward_hook(only_spikes(partial(hear, name))) for name, module in modules.items()]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _target(activations: Tensor, percentile: float) -> Tensor:
    """clamp(A / P(A), 0, 1); if P(A) is 0, its limit: 1 where A is positive."""
    values = activations.flatten()
    rank = max(1, math.ceil(percentile / 100 * len(values)))  # torch.quantile takes at most 2^24 values
    scale = values.kthvalue(rank).values
    return (activations / scale.clamp(min=torch.finfo(scale.dtype).tiny)).clamp(0, 1)


def _paired(rates: Heard, targets: Heard) -> Generator[tuple[tuple[str, Tensor], Tensor]]:
    """Pairs the student's means with the teacher's targets, whose time dimension is averaged out."""
    for ours, theirs in zip_longest(rates, targets):
        if ours is None or theirs is None or ours[0] != theirs[0]:
            named = [repr(heard[0]) if heard else "nothing" for heard in (ours, theirs)]
            raise ValueError(f"{TOPOLOGY}: where the student calls {named[0]}, it calls {named[1]}; {FUNCTIONS}")
        (name, rate), target = ours, theirs[1]
        if target.dim() == rate.dim():
            target = target.mean(0)
        if target.shape != rate.shape[1:]:
            raise ValueError(
                f"{TOPOLOGY}: {name!r} has activations of shape {list(target.shape)} in it and of "
                f"{list(rate.shape[1:])} in the student"
            )
        yield (name, rate), target
