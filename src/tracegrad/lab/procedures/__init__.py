"""How networks come about: one class for each kind of method."""

from tracegrad.lab.procedures.catalog import PROCEDURES, procedure_of
from tracegrad.lab.procedures.procedure import Procedure

__all__ = ["PROCEDURES", "Procedure", "procedure_of"]
