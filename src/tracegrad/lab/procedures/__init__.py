"""How networks come about: one class for each kind of method."""

from tracegrad.lab.procedures.procedure import Procedure
from tracegrad.lab.procedures.registered import PROCEDURES, procedure_of

__all__ = ["PROCEDURES", "Procedure", "procedure_of"]
