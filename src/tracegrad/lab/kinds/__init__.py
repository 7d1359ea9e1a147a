"""How networks come about: one class for each kind of method."""

from __future__ import annotations

from inspect import signature
from typing import Any

from jsonargparse import ArgumentParser

from tracegrad.lab.kinds.calibration import Calibration
from tracegrad.lab.kinds.direct import Direct
from tracegrad.lab.kinds.kind import Kind
from tracegrad.lab.kinds.qcfs import Qcfs
from tracegrad.lab.kinds.relu import Relu
from tracegrad.lab.kinds.stdp import Stdp
from tracegrad.lab.kinds.tandem import Tandem
from tracegrad.lab.parsing import parse
from tracegrad.lab.recipe import Method

__all__ = ["KINDS", "Kind", "kind_of"]

KINDS: dict[str, type[Kind]] = {
    "direct": Direct,
    "relu": Relu,
    "qcfs": Qcfs,
    "calibration": Calibration,
    "tandem": Tandem,
    "stdp": Stdp,
}


def kind_of(method: Method) -> Kind:
    """The kind of a method, with its options.

    Raises:
        ValueError: an option that the kind does not have, or a value that does not fit it.
    """
    kind: Any = KINDS[method.kind]
    known = signature(kind).parameters
    for name in method.options:
        if name not in known:
            has = ", ".join(known) or "none"
            raise ValueError(f"unknown option {name!r} of a method of kind {method.kind}; it has {has}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    try:
        return kind(**parse(parser, [], method.options).as_dict())
    except ValueError as error:
        raise ValueError(f"options of a method of kind {method.kind}: {error}") from None
