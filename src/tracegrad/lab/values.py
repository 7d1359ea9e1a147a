"""Values as YAML gives them, read by pydantic as the types and ranges that a signature or a dataclass declares."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import cache
from reprlib import repr as short  # the beginning of a value, whatever its size
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import is_typeddict

Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
"""How many: a larger number is a slip of the pen, and would take all memory or never end."""


class Section:
    """A part of a recipe: a dataclass whose fields are of the types and in the ranges that they declare."""

    def __post_init__(self) -> None:
        for name, kind in _hints(type(self)).items():
            with _naming(f"{type(self).__name__.removesuffix('Options').lower()}.{name}"):
                _adapter(kind).validate_python(getattr(self, name))


def require(holds: bool, name: str, right: str, value: object) -> None:
    """Checks a value.

    Raises:
        ValueError: it does not hold.
    """
    if not holds:
        raise ValueError(f"{name} must be {right}, not {short(value)}")


def typed(kind: Any, value: Any, where: str) -> Any:
    """Reads a value as a type: lists make tuples and text makes paths, but numbers are no text, and text is no number.

    Args:
        kind: a type as pydantic knows them, a dataclass, or a dict of dataclasses by name.
        value: of YAML: None, bool, int, float, str, list or dict; for a dataclass a dict, whose nulls say nothing.
        where: name of the value, for errors.

    Raises:
        ValueError: another type, another choice, out of range, or a field that the dataclass does not have.
    """
    if is_dataclass(kind):
        hints = _hints(kind)
        require(isinstance(value, dict), where or "a recipe", f"a section with the fields {', '.join(hints)}", value)
        _check_names(value, hints, where, "there are")
        given = ((name, each) for name, each in value.items() if each is not None)
        read = {name: typed(hints[name], each, f"{where}.{name}".lstrip(".")) for name, each in given}
        return kind(**read)  # pyright: ignore[reportCallIssue] - a class
    if get_origin(kind) is dict and is_dataclass(section := get_args(kind)[1]) and isinstance(value, dict):
        return {name: typed(section, each, f"{where}.{name}") for name, each in value.items()}
    with _naming(where):
        return _adapter(kind).validate_json(json.dumps(value, default=str), strict=True)


def options_of(
    function: Callable[..., Any], options: Mapping[str, Any], what: str, given: Sequence[str] = ()
) -> dict[str, Any]:
    """Reads options as the parameters of a function or the fields of a class.

    Args:
        function: it takes them by name.
        options: by name.
        what: has the options, for errors: "model.options; resnet20".
        given: parameters that do not count as options.

    Raises:
        ValueError: an option that it does not have, or a value that does not fit.
    """
    parameters, (where, _, owner) = inspect.signature(function).parameters, what.partition("; ")
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return dict(options)
    _check_names(options, sorted(set(parameters) - set(given)), where, f"{owner} has")
    hints = _hints(function.__init__ if isinstance(function, type) else function)
    return {name: typed(hints.get(name, Any), value, f"{where}.{name}") for name, value in options.items()}


def over(base: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values over those of a base; sections are merged field by field, but methods are taken as a whole.

    A field that is null loses what the base says; an empty section says nothing.
    """
    merged = dict(base) if isinstance(base, dict) else {}
    for name, value in values.items():
        whole = name == "methods" or not isinstance(merged.get(name), dict)
        merged[name] = value if whole or not isinstance(value, dict | None) else over(merged[name], value or {})
    return merged


def _check_names(names: Iterable[str], known: Iterable[str], where: str, have: str) -> None:
    for name in names:
        if name not in known:
            field = f"{where}.{name[:60]}".lstrip(".")
            raise ValueError(f"unknown field {field}; {have} {', '.join(known) or 'none'}")


@contextmanager
def _naming(where: str) -> Generator[None]:
    """Says in one line what pydantic finds wrong: the place, what would be right, and the value."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if isinstance(own := first.get("ctx", {}).get("error"), ValueError):
            raise own from None
        place = ".".join(map(str, (where, *first["loc"]))).strip(".")
        right = first["msg"].replace("Input should be", "must be").replace("Field required", "must be there")
        raise ValueError(f"{place} {right}, not {short(first['input'])}") from None


@cache
def _hints(function: Any) -> dict[str, Any]:
    return get_type_hints(function, include_extras=True)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    own = any(test(kind) for test in (is_dataclass, is_typeddict))  # these have a configuration of their own
    return TypeAdapter(kind, config=None if own else ConfigDict(arbitrary_types_allowed=True))
