"""Controls: relations from which the timing, the image, the pairing of channels or their order is taken out.

Each is declared once: what it makes of the spikes at the two ends, of R, or of R_hat.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from tracegrad.core.equations.rank_one import first_part
from tracegrad.core.equations.signals import SpikeTrain
from tracegrad.core.torch_internals import after_backward_pass, backward_pass


class ControlMemory:
    """What the control of one synapse keeps from one backward pass to the next.

    Args:
        synapse: its name.
        seed: of what is drawn at random.
    """

    def __init__(self, synapse: str, seed: int) -> None:
        self.synapse = synapse
        self.seed = seed
        self.passes = 0
        self.vector: Tensor | None = None
        self._pass = -1
        self._permutation: Tensor | None = None

    def permutation(self, matrices: Tensor) -> Tensor:
        """Of the inputs of each output, [groups, outputs, inputs]: one in each backward pass, equal on all devices."""
        if self._pass != backward_pass() or self._permutation is None:
            self._pass, self.passes = backward_pass(), self.passes + 1
            seed = crc32(f"{self.seed} {self.passes} {self.synapse}".encode())
            drawn = torch.rand(matrices.shape, generator=torch.Generator().manual_seed(seed), device="cpu")
            self._permutation = drawn.argsort(-1).to(matrices.device)
            after_backward_pass(self._forget)
        return self._permutation

    def _forget(self) -> None:
        self._permutation = None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs of it."""
        return {"passes": self.passes, "vector": self.vector}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` returned."""
        self.passes, self.vector = state["passes"], state["vector"]


OfMatrices = Callable[[Tensor, ControlMemory], Tensor]
"""[groups, outputs, inputs and kernel positions] -> the same."""


@dataclass(frozen=True)
class Control:
    """What a control leaves of a relation.

    Attributes:
        name: of the control.
        counts: each spike and each trace is replaced by its expectation where a train's spikes are shuffled in time.
        post: what it makes of the post-synaptic spikes, and of their traces, [T, N, ...].
        relation: what it makes of R.
        normalized: what it makes of R_hat.
        scales: the factor of each synapse's gradient, for which no relation is needed.
        keeps: whether it keeps something between backward passes.
    """

    name: str
    counts: bool = False
    post: Callable[[Tensor], Tensor] | None = None
    relation: OfMatrices | None = None
    normalized: OfMatrices | None = None
    scales: dict[str, float] | None = None
    keeps: bool = False

    def post_train(self, train: SpikeTrain) -> SpikeTrain:
        """What it makes of the train at the post-synaptic end."""
        if self.post is None:
            return train
        return SpikeTrain(self.post(train.spikes), None if train.trace is None else self.post(train.trace))


def _of_another_image(signal: Tensor) -> Tensor:
    if signal.shape[1] < 2:
        raise ValueError("control='other_image' takes post-synaptic spikes of another example: the batch needs two")
    return signal.roll(1, 1)


def _mean_over_outputs(hat: Tensor, _: ControlMemory) -> Tensor:
    return hat.mean(1, keepdim=True).expand_as(hat)


def _mean_over_inputs(hat: Tensor, _: ControlMemory) -> Tensor:
    return hat.mean(2, keepdim=True).expand_as(hat)


def _rank_one(raw: Tensor, memory: ControlMemory) -> Tensor:
    approximation, memory.vector = first_part(raw, memory.vector)
    return approximation


def _shuffled(hat: Tensor, memory: ControlMemory) -> Tensor:
    return hat.gather(2, memory.permutation(hat))


NO_CONTROL = Control("none")
CONTROLS = {
    control.name: control
    for control in (
        Control("counts", counts=True),
        Control("other_image", post=_of_another_image),
        Control("pre_rate", normalized=_mean_over_outputs),
        Control("post_rate", normalized=_mean_over_inputs),
        Control("rank_one", relation=_rank_one, keeps=True),
        Control("shuffle", normalized=_shuffled, keeps=True),
    )
}
