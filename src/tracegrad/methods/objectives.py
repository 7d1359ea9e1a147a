"""Objectives: the loss of a network's outputs over time, and the scores that predictions are read from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch.nn.functional as F
from torch import Tensor

from tracegrad.core.registry import Registry

Readout = Callable[[Tensor], Tensor]
"""Outputs [T, B, K] -> scores [B, K]."""

Loss = TypeVar("Loss", bound=Callable[[Tensor, Tensor], Tensor])


class Objective(Protocol):
    """A loss of outputs over time, and the readout that gives predictions."""

    @property
    def readout(self) -> Readout:
        """Outputs [T, B, K] -> scores [B, K]."""
        ...

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss, averaged over the batch, of outputs [T, B, K] and classes [B] or probabilities [B, K]."""
        ...


def mean_over_time(outputs: Tensor) -> Tensor:
    """mean_t o(t), the readout of tdBN (Zheng et al. 2021)."""
    return outputs.mean(0)


def last_membrane(outputs: Tensor, leak: float = 0.9) -> Tensor:
    """u(T-1) with u(t) = leak * u(t-1) + o(t), u(-1) = 0: a neuron that never fires, read by Park et al. (2023)."""
    membrane = outputs[0]
    for output in outputs[1:]:
        membrane = leak * membrane + output
    return membrane


@dataclass(frozen=True)
class CrossEntropy:
    """The cross entropy of readout(outputs).

    Args:
        readout: outputs [T, B, K] -> scores [B, K]; predictions use it too.
    """

    readout: Readout

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss, averaged over the batch.

        Args:
            outputs: [T, B, K].
            target: classes [B], or probabilities [B, K].

        Raises:
            ValueError: a target whose shape does not fit the outputs.
        """
        _check_shapes(outputs, target)
        return F.cross_entropy(self.readout(outputs), target)


@dataclass(frozen=True)
class TemporalEfficientTraining:
    """TET (Deng et al. 2022): a loss for the outputs of every step, not only for their mean.

    L = (1 - lam) * mean_t CE(o(t), y) + lam * MSE(o, phi), the squared error averaged over steps, batch and classes.

    Args:
        lam: weight of the regularisation towards `phi`, in [0, 1]; the authors' scripts use 0 for CIFAR and 1e-3 for
            event data.
        phi: the value that the regularisation pulls every output to.

    Raises:
        ValueError: lam outside [0, 1].
    """

    lam: float = 0.0
    phi: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.lam <= 1:
            raise ValueError(f"lam must be in [0, 1], not {self.lam}")

    @property
    def readout(self) -> Readout:
        """The mean over time."""
        return mean_over_time

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss, averaged over the batch.

        Args:
            outputs: [T, B, K].
            target: classes [B], or probabilities [B, K].

        Raises:
            ValueError: a target whose shape does not fit the outputs.
        """
        _check_shapes(outputs, target)
        at_every_step = target.expand(len(outputs), *target.shape).flatten(0, 1)
        cross_entropy = F.cross_entropy(outputs.flatten(0, 1), at_every_step)
        return (1 - self.lam) * cross_entropy + self.lam * (outputs - self.phi).square().mean()


@dataclass(frozen=True)
class OwnObjective:
    """A loss of one's own.

    Args:
        loss: outputs [T, B, K] and classes [B] or probabilities [B, K] -> the loss, averaged over the batch.
        readout: outputs [T, B, K] -> scores [B, K].
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    readout: Readout

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss, averaged over the batch."""
        return self.loss(outputs, target)


def _check_shapes(outputs: Tensor, target: Tensor) -> None:
    if outputs.dim() != 3 or target.shape not in (outputs.shape[1:2], outputs.shape[1:]):
        raise ValueError(
            f"outputs must be [T, B, K] and the target [B] or [B, K], "
            f"not of shapes {list(outputs.shape)} and {list(target.shape)}"
        )


mean_cross_entropy = CrossEntropy(mean_over_time)
membrane_cross_entropy = CrossEntropy(last_membrane)
tet = TemporalEfficientTraining()

OBJECTIVES: Registry[Objective] = Registry("objective")
OBJECTIVES.register("mean_cross_entropy", mean_cross_entropy)
OBJECTIVES.register("membrane_cross_entropy", membrane_cross_entropy)
OBJECTIVES.register("tet", tet)


def register_objective(name: str, readout: Readout = mean_over_time) -> Callable[[Loss], Loss]:
    """Decorator that makes a loss available to recipes by name.

    The function takes outputs [T, B, K] and classes [B], or probabilities [B, K] where images are mixed, and returns
    the loss, averaged over the batch. An `Objective` brings a readout of its own.

    Args:
        name: of the objective.
        readout: outputs [T, B, K] -> scores [B, K], from which classes are predicted: the mean over time by default.

    Raises:
        ValueError: the name is taken.
    """

    def register(loss: Loss) -> Loss:
        OBJECTIVES.register(name, OwnObjective(loss, getattr(loss, "readout", readout)))
        return loss

    return register
