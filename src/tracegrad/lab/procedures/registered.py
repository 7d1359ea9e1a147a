"""The kinds of methods that a recipe can name."""

from __future__ import annotations

from tracegrad.core.registry import Registry
from tracegrad.lab.procedures.calibration import Calibration
from tracegrad.lab.procedures.direct import Direct
from tracegrad.lab.procedures.procedure import Procedure
from tracegrad.lab.procedures.qcfs import Qcfs
from tracegrad.lab.procedures.quantized import Quantized
from tracegrad.lab.procedures.relu import Relu
from tracegrad.lab.procedures.stdp import Stdp
from tracegrad.lab.procedures.synchrony import Synchrony
from tracegrad.lab.procedures.tandem import Tandem
from tracegrad.lab.recipe.parts import Method
from tracegrad.lab.recipe.values import options_of

PROCEDURES: Registry[type[Procedure]] = Registry("kind of method")
for _procedure in (Direct, Synchrony, Relu, Quantized, Qcfs, Calibration, Tandem, Stdp):
    PROCEDURES.register(_procedure.__name__.lower(), _procedure)


def procedure_of(method: Method) -> Procedure:
    """The procedure of a method, with its options.

    Raises:
        ValueError: an unknown kind, an option that it does not have, or a value that does not fit it.
    """
    procedure = PROCEDURES[method.kind]
    return procedure(**options_of(procedure, method.options, f"options; a method of kind {method.kind}"))
