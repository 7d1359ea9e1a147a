"""tracegrad: deep spiking neural networks trained with gradients that are scaled by local spike information."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tracegrad import adapters
from tracegrad.core.attaching.acceleration import Acceleration, accelerate
from tracegrad.core.attaching.attach import attach, detach
from tracegrad.core.attaching.attachment import Attachment
from tracegrad.core.equations.alpha import AlphaSchedule
from tracegrad.core.equations.normalization import register_normalization
from tracegrad.core.equations.relation import Term, correlate, register_relation
from tracegrad.core.equations.scaling import register_scaling
from tracegrad.core.equations.trace import spike_trace
from tracegrad.core.neurons import register_neuron
from tracegrad.measure.diagnose import diagnose
from tracegrad.methods import objectives
from tracegrad.methods.objectives import register_objective
from tracegrad.snn import models
from tracegrad.snn.neurons import IF, LIF, LIFCell
from tracegrad.snn.norms import TDBatchNorm2d, TEBatchNorm2d, register_norm
from tracegrad.snn.surrogate import register_surrogate

if TYPE_CHECKING:
    from tracegrad.lab.data.catalog import Loader

__all__ = [
    "IF",
    "LIF",
    "Acceleration",
    "AlphaSchedule",
    "Attachment",
    "LIFCell",
    "TDBatchNorm2d",
    "TEBatchNorm2d",
    "Term",
    "accelerate",
    "adapters",
    "attach",
    "correlate",
    "detach",
    "diagnose",
    "models",
    "objectives",
    "register_dataset",
    "register_neuron",
    "register_norm",
    "register_normalization",
    "register_objective",
    "register_relation",
    "register_scaling",
    "register_surrogate",
    "spike_trace",
]
__version__ = "0.2.0"


def register_dataset(name: str) -> "Callable[[Loader], Loader]":
    """Decorator that makes a data set available to recipes by name, `data.name`; needs the extra `lab`.

    The function takes the recipe's `tracegrad.lab.data.DataOptions` and returns a `tracegrad.lab.data.Dataset`.

    Raises:
        ValueError: the name is taken.
    """
    from tracegrad.lab.data.catalog import register_dataset as register

    return register(name)
