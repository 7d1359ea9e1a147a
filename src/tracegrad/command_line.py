"""A command line from the signature of a function: its parameters are the options, its docstring explains them."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from inspect import Parameter, getdoc, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from tracegrad.core.equations.normalization import NORMALIZATIONS
from tracegrad.core.equations.relation import RELATIONS
from tracegrad.core.equations.scaling import SCALINGS
from tracegrad.lab.data import DATASETS
from tracegrad.lab.recipe.fields import Recipe
from tracegrad.lab.recipe.parts import Method
from tracegrad.lab.recipe.plain_yaml import read_yaml
from tracegrad.lab.recipe.reading import load_recipe
from tracegrad.lab.values import typed
from tracegrad.methods.objectives import OBJECTIVES
from tracegrad.snn.models import MODELS
from tracegrad.snn.surrogate import SURROGATES

CHOICES: dict[str, Iterable[str]] = {
    "data.name": DATASETS,
    "model.name": MODELS,
    "model.neuron.surrogate": SURROGATES,
    "objective": OBJECTIVES,
    "methods.NAME.relation": RELATIONS,
    "methods.NAME.normalize": NORMALIZATIONS,
    "methods.NAME.scaling": SCALINGS,
}
HELP_NOTE = """\
Fields are the recipe's; options override them. A default holds where neither says otherwise.
Print a recipe with `tracegrad recipes --show NAME`.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(re.sub("^argument ", "", message))


def run_command(name: str, function: Callable[..., None], arguments: Sequence[str]) -> None:
    """Calls a function with what a command line says.

    A parameter without a default is positional, one with a default or behind a `*` is an option. A parameter `recipe`
    takes a recipe, and with it the command line takes every field of the recipe as an option.

    Args:
        name: of the command.
        function: the command.
        arguments: the command line after the command's name.

    Raises:
        ValueError: an unknown option, or a value that does not fit.
    """
    parameters = signature(function).parameters
    on_a_recipe = "recipe" in parameters
    parser = _parser(name, function)
    if {"-h", "--help"} & set(arguments):
        print(parser.format_help() + (f"\n{_field_help()}\n{HELP_NOTE}" if on_a_recipe else ""))
        return
    fields, others = _split_fields(arguments) if on_a_recipe else ({}, list(arguments))
    found, unknown = parser.parse_known_args(others)
    if unknown:
        raise ValueError(f"unknown options (--help lists the known ones): {' '.join(unknown)}")
    hints = get_type_hints(function)
    values = {key: _value(hints[key], text, key) for key, text in vars(found).items() if text is not None}
    if on_a_recipe:
        values["recipe"] = load_recipe(found.recipe, fields)
    function(**values)


def _split_fields(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Takes the fields of a recipe out of a command line: --training.epochs 3, or --training.epochs=3.

    Returns:
        The text of each field by dotted name, and the other arguments.

    Raises:
        ValueError: a field without a value.
    """
    known = {field.name for field in dataclasses.fields(Recipe)}
    overrides: dict[str, str] = {}
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not ("." in name or name in known):
            others.append(argument)
            continue
        text = value if equals else next(rest, None)
        if not text:
            raise ValueError(f"--{name}: expected one argument")
        overrides[name] = text
    return overrides, others


def _parser(name: str, function: Callable[..., None]) -> _Parser:
    about, explained = described(function)
    hints = get_type_hints(function)
    usage = f"tracegrad {name} RECIPE [options] [--FIELD VALUE ...]" if "recipe" in hints else None
    plain = argparse.RawDescriptionHelpFormatter
    parser = _Parser(f"tracegrad {name}", usage, about, allow_abbrev=False, formatter_class=plain)
    for key, parameter in signature(function).parameters.items():
        required = parameter.default is Parameter.empty
        options: dict[str, Any] = {"help": _help(explained.get(key, ""), parameter.default)}
        if hints[key] is bool:
            options |= {"action": argparse.BooleanOptionalAction, "default": parameter.default}
        elif {bool, str} <= {*get_args(hints[key])}:  # alone, or with a value
            options |= {"nargs": "?", "const": True}
        elif required and get_origin(hints[key]) is list:
            options["nargs"] = "+"
        if required and parameter.kind is not Parameter.KEYWORD_ONLY:
            parser.add_argument(key, **options)
        else:
            flags = dict.fromkeys((f"--{key.replace('_', '-')}", f"--{key}"))
            options |= {"dest": key} | ({"required": True} if required else {})
            parser.add_argument(*flags, **options)
    return parser


def _value(kind: Any, text: Any, where: str) -> Any:
    """The value of an option: text and paths as they are, the rest as YAML."""
    if kind is Recipe or isinstance(text, bool):
        return text
    if isinstance(text, list):
        return [_value(get_args(kind)[0], each, where) for each in text]
    as_it_is = {str, Path} & {kind, *get_args(kind)} or str in map(type, get_args(kind))
    return typed(kind, text if as_it_is else read_yaml(text, f"--{where}"), where)


def described(thing: Any) -> tuple[str, dict[str, str]]:
    """The text of a docstring without its sections, and what it says of each argument."""
    text, _, rest = (getdoc(thing) or "").partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", rest)[0]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return text.partition("\nRaises:")[0].strip(), {name: " ".join(each.split()) for name, each in found}


def _help(text: str, default: Any = Parameter.empty) -> str:
    shown = default is not Parameter.empty and default is not None and not isinstance(default, bool)
    return (text + (f" (default: {default})" if shown else "")).replace("%", "%%")


def _field_help() -> str:
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, add_help=False)
    parts = ("fields of the recipe", Recipe, ""), ("fields of its methods", Method, "methods.NAME.")
    for title, kind, where in parts:
        group = parser.add_argument_group(title)
        for name, metavar, text, default in _leaves(kind, where):
            choices = f" One of {', '.join(CHOICES[name])}." if name in CHOICES else ""
            group.add_argument(f"--{name}", metavar=metavar, help=_help(text + choices, default))
    return parser.format_help().lstrip()


def _leaves(kind: Any, where: str) -> Iterator[tuple[str, str, str, Any]]:
    """Name, type, explanation and default of every field that is no section."""
    _, explained = described(kind)
    for field in dataclasses.fields(kind):
        inner = get_type_hints(kind)[field.name]
        if dataclasses.is_dataclass(inner):
            yield from _leaves(inner, f"{where}{field.name}.")
        elif inner != dict[str, Method]:
            default = field.default if field.default is not dataclasses.MISSING else Parameter.empty
            yield (
                f"{where}{field.name}",
                _type_name(inner).upper().replace(" OR ", "|"),
                explained.get(field.name, ""),
                default,
            )


def _type_name(kind: Any) -> str:
    """A type as help calls it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " or ".join(map(_type_name, inner))
    return "null" if kind is NoneType else getattr(origin or kind, "__name__", str(kind))
