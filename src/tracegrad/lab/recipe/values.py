"""Values as YAML gives them, read as the types that a signature or a dataclass declares."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

SHOWN = 60  # characters of a wrong value that an error repeats


def short(value: object) -> str:
    """A value for an error: its beginning, whatever its size."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def typed(kind: Any, value: Any, where: str) -> Any:
    """Reads a value as a type.

    Args:
        kind: a class, a dataclass, a Literal, a union, or a list, tuple or dict of such; Any takes everything.
        value: of YAML: None, bool, int, float, str, list or dict.
        where: name of the value, for errors.

    Returns:
        The value; a dict for a dataclass, with the fields that it names, those that are null left out.

    Raises:
        ValueError: another type, another choice, or a field that the dataclass does not have.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _fields_of(kind, value, where)
    if origin is Literal:
        if value not in inner or isinstance(value, bool):
            raise ValueError(f"{where} must be one of {', '.join(map(repr, inner))}, not {short(value)}")
        return value
    if origin in (Union, types.UnionType):
        return _one_of(inner, value, where)
    if origin is dict and isinstance(value, dict):
        items = cast(dict[Any, Any], value).items()
        for name, _ in items:
            if not isinstance(name, str):
                raise ValueError(f"{where} must have names that are text, not {short(name)}; put it in quotes")  # noqa: TRY004
        return {name: typed(inner[1], each, f"{where}.{name}") for name, each in items}
    if origin in (list, tuple, Sequence) and isinstance(value, list | tuple):
        items = [typed(inner[0], each, where) for each in cast(Sequence[Any], value)]
        return tuple(items) if origin is tuple else items
    if _is_of(kind, value):
        return kind(value) if kind in (float, Path) else value
    raise ValueError(f"{where} must be of type {type_name(kind)}, not {short(value)}")


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


def fields_of(kind: Any) -> dict[str, Any]:
    """The fields of a dataclass and their types."""
    return get_type_hints(kind)


def _fields_of(kind: Any, value: Any, where: str) -> dict[str, Any]:
    fields = fields_of(kind)
    if not isinstance(value, dict):
        raise ValueError(f"{where or 'a recipe'} must hold the fields {', '.join(fields)}, not {short(value)}")  # noqa: TRY004
    values = cast(dict[Any, Any], value)
    for name in values:
        if name not in fields:
            raise ValueError(f"unknown field {where and where + '.'}{str(name)[:SHOWN]}; there are {', '.join(fields)}")
    given = {name: each for name, each in values.items() if each is not None}
    return {name: typed(fields[name], each, f"{where}.{name}".lstrip(".")) for name, each in given.items()}


def _one_of(kinds: Sequence[Any], value: Any, where: str) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    others = [kind for kind in kinds if kind is not types.NoneType]
    if len(others) == 1 and (get_origin(others[0]) is not None):
        return typed(others[0], value, where)
    for kind in others:
        if _is_of(kind, value) or get_origin(kind) is not None:
            return typed(kind, value, where)
    names = [type_name(kind) for kind in others] + ["null"] * (types.NoneType in kinds)
    raise ValueError(f"{where} must be of type {' or '.join(names)}, not {short(value)}")


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
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if get_origin(kind) in (Union, types.UnionType):
        return "|".join(type_name(each) for each in get_args(kind))
    if kind is types.NoneType:
        return "null"
    if get_origin(kind) in (list, tuple, Sequence):
        return "list"
    return getattr(get_origin(kind) or kind, "__name__", str(kind))
