"""How networks come about: one class for each kind of method that a recipe can name."""

from tracegrad.core.registry import Registry
from tracegrad.lab.procedures.procedure import Procedure
from tracegrad.lab.procedures.stdp import Stdp
from tracegrad.lab.procedures.synchrony import Synchrony
from tracegrad.lab.procedures.without_spikes import Calibration, Qcfs, Quantized, Relu, Tandem
from tracegrad.lab.recipe.parts import Method
from tracegrad.lab.values import options_of

__all__ = ["PROCEDURES", "Procedure", "procedure_of"]

PROCEDURES: Registry[type[Procedure]] = Registry("kind of method")
PROCEDURES.register("direct", Procedure)
for _procedure in (Synchrony, Relu, Quantized, Qcfs, Calibration, Tandem, Stdp):
    PROCEDURES.register(_procedure.__name__.lower(), _procedure)


def procedure_of(method: Method) -> Procedure:
    """The procedure of a method, with its options.

    Raises:
        ValueError: an unknown kind, an option that it does not have, or a value that does not fit it.
    """
    procedure = PROCEDURES[method.kind]
    return procedure(**options_of(procedure, method.options, f"options; a method of kind {method.kind}"))
