"""Values as YAML gives them, read as the types that a signature or a dataclass declares, and checks of them."""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

SHOWN = 60  # characters of a wrong value that an error repeats

Check = tuple[str, Callable[[Any], bool]]
"""What is right, in words, and whether a value is."""
SHARE: Check = "between 0 and 1", lambda value: 0 <= value <= 1
FRACTION: Check = "above 0 and at most 1", lambda value: 0 < value <= 1
POSITIVE: Check = "above 0 and finite", lambda value: 0 < value < math.inf
NOT_NEGATIVE: Check = "at least 0 and finite", lambda value: 0 <= value < math.inf
FINITE: Check = "finite", math.isfinite


def up_to(most: int) -> Check:
    """Numbers of things: beyond `most` one is a slip of the pen, and would take all memory or never end."""
    return f"from 1 to {most:,}", lambda value: 1 <= value <= most


def require(holds: bool, name: str, right: str, value: object) -> None:
    """Checks a value.

    Raises:
        ValueError: it does not hold.
    """
    if not holds:
        raise ValueError(f"{name} must be {right}, not {short(value)}")


def check_fields(section: object, name: str, **checks: Check) -> None:
    """Checks those fields of a dataclass that are not None.

    Args:
        section: the dataclass.
        name: of a field in errors: "training.{}".
        checks: by field.

    Raises:
        ValueError: a value is not right.
    """
    for field, (right, holds) in checks.items():
        value = getattr(section, field)
        require(value is None or holds(value), name.format(field), right, value)


def short(value: object) -> str:
    """A value for an error: its beginning, whatever its size."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def typed(kind: Any, value: Any, where: str) -> Any:
    """Reads a value as a type.

    Args:
        kind: a class, a dataclass, a Literal, a union, or a list, tuple or dict of such; Any takes everything.
        value: of YAML: None, bool, int, float, str, list or dict; for a dataclass a dict, whose nulls say nothing.
        where: name of the value, for errors.

    Raises:
        ValueError: another type, another choice, or a field that the dataclass does not have or allow.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints, given = get_type_hints(kind), fields_in(kind, value, where).items()
        read = {name: typed(hints[name], each, f"{where}.{name}".lstrip(".")) for name, each in given}
        return kind(**read)  # pyright: ignore[reportCallIssue] - a class
    if origin is Literal:
        require(value in inner and not isinstance(value, bool), where, f"one of {', '.join(map(repr, inner))}", value)
        return value
    if origin in (Union, types.UnionType):
        for each in inner:
            if get_origin(each) is not None or _is_of(each, value):
                return typed(each, value, where)
    if origin is dict and isinstance(value, dict):
        if odd := [name for name in value if not isinstance(name, str)]:
            raise ValueError(f"{where} must have names that are text, not {short(odd[0])}; put it in quotes")
        return {name: typed(inner[1], each, f"{where}.{name}") for name, each in value.items()}
    if origin in (list, tuple, Sequence) and isinstance(value, list | tuple):
        items = [typed(inner[0], each, where) for each in value]
        return tuple(items) if origin is tuple else items
    require(_is_of(kind, value), where, f"of type {type_name(kind)}", value)
    return kind(value) if kind in (float, Path) else value


def fields_in(kind: Any, values: Any, where: str) -> dict[str, Any]:
    """The fields of a dataclass that a dict names, those that are null left out.

    Raises:
        ValueError: it is no dict, or names something else.
    """
    known = ", ".join(get_type_hints(kind))
    if not isinstance(values, dict):
        raise ValueError(f"{where or 'a recipe'} must hold the fields {known}, not {short(values)}")  # noqa: TRY004
    for name in values:
        if name not in get_type_hints(kind):
            raise ValueError(f"unknown field {f'{where}.{str(name)[:SHOWN]}'.lstrip('.')}; there are {known}")
    return {name: each for name, each in values.items() if each is not None}


def over(base: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values over those of a base; sections are merged field by field, but methods are taken as a whole.

    A field that is null loses what the base says; an empty section says nothing.
    """
    merged = dict(base) if isinstance(base, dict) else {}
    for name, value in values.items():
        whole = name == "methods" or not isinstance(merged.get(name), dict)
        merged[name] = value if whole or not isinstance(value, dict | None) else over(merged[name], value or {})
    return merged


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
    parameters = inspect.signature(function).parameters
    hints = get_type_hints(function.__init__ if isinstance(function, type) else function)
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return dict(options)
    known = sorted(set(parameters) - set(given))
    for name in options:
        if name not in known:
            raise ValueError(f"unknown option {name!r} in {what} has {', '.join(known) or 'none'}")
    section = what.partition(";")[0]
    return {name: typed(hints.get(name, Any), value, f"{section}.{name}") for name, value in options.items()}


def _is_of(kind: Any, value: Any) -> bool:
    if kind is Any:
        return True
    if kind is float:
        return isinstance(value, float) or (_is_of(int, value) and abs(value) < 10**300)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is Path:
        return isinstance(value, str | Path)
    return isinstance(kind, type) and isinstance(value, kind)


def type_name(kind: Any) -> str:
    """A type as errors and help call it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return " or ".join(map(type_name, inner))
    if origin in (list, tuple, Sequence):
        return "list"
    return "null" if kind is types.NoneType else getattr(origin or kind, "__name__", str(kind))
