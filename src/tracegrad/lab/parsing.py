"""Reads recipes: a YAML file, with dotted options over it, becomes a `Recipe`."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from tracegrad.core.equations.normalization import NORMALIZATIONS
from tracegrad.core.equations.relation import RELATIONS
from tracegrad.core.equations.scaling import SCALINGS
from tracegrad.lab.data import DATASETS
from tracegrad.lab.recipe import SCALING, Method, Recipe
from tracegrad.methods.objectives import OBJECTIVES
from tracegrad.snn.models import MODELS
from tracegrad.snn.surrogate import SURROGATES

CHOICES: dict[str, Iterable[str]] = {
    "data.name": DATASETS,
    "model.name": MODELS,
    "model.neuron.surrogate": SURROGATES,
    "objective": OBJECTIVES,
    "relation": RELATIONS,
    "normalize": NORMALIZATIONS,
    "scaling": SCALINGS,
}


def shipped_recipes() -> dict[str, Traversable]:
    """The recipes that come with tracegrad, by name."""
    return dict(sorted(_walk(files("tracegrad.lab") / "recipes", "")))


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            yield prefix + entry.name.removesuffix(".yaml"), entry


def find_recipe(name: str) -> Traversable:
    """Finds a recipe by the name of a shipped one or the path of a YAML file.

    Raises:
        ValueError: there is neither.
    """
    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    if Path(name).is_file():
        return Path(name)
    raise ValueError(f"unknown recipe {name!r}; give the path of a YAML file or one of {', '.join(shipped)}")


def load_recipe(name: str, options: Sequence[str] = ()) -> Recipe:
    """Loads a recipe.

    Args:
        name: of a shipped recipe, or the path of a YAML file.
        options: fields to override, as on the command line: `["--training.epochs", "3"]`.

    Raises:
        ValueError: no such recipe; an unknown field; a value of a wrong type or out of range.
    """
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("recipe")
    add_fields(parser)
    return parse_recipe(parser, [name, *options])[0]


def add_fields(parser: ArgumentParser) -> None:
    """Adds one option per field of a recipe to a parser that has an argument `recipe`."""
    parser.add_class_arguments(Recipe)
    _explain_options(parser, "")


def method_help() -> str:
    """Help on the options of a method, whose names are the recipe's to choose."""
    parser = ArgumentParser(add_help=False, usage=argparse.SUPPRESS)
    parser.add_class_arguments(Method, "methods.NAME")
    _explain_options(parser, "methods.NAME.")
    return parser.format_help().lstrip()


def _explain_options(parser: ArgumentParser, prefix: str) -> None:
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage]
        if action.metavar == "CONFIG" or action.dest == "methods.help":  # would load a section from a file of its own
            action.help = argparse.SUPPRESS
        elif action.dest.removeprefix(prefix) in CHOICES:
            action.help = f"{action.help} One of {', '.join(CHOICES[action.dest.removeprefix(prefix)])}."


def parse_recipe(parser: ArgumentParser, arguments: Sequence[str]) -> tuple[Recipe, dict[str, Any]]:
    """Parses a command line with a recipe in it.

    Args:
        parser: with the recipe's fields (`add_fields`) and any further arguments.
        arguments: the command line; its options take precedence over the recipe.

    Returns:
        The recipe, and the values of the further arguments by name.

    Raises:
        ValueError: as `load_recipe`.
    """
    for option in arguments:
        if option.startswith("--") and "." in option:
            _check_field(Recipe, option.removeprefix("--").partition("=")[0])
    name = parse(parser, arguments)["recipe"]
    values = {"recipe": name, **_without_nulls(_read(find_recipe(name)))}
    namespace = parse(parser, arguments, values)
    namespace.pop("recipe")
    for method, options in namespace["methods"].items():
        if not isinstance(options, Method):  # the default, which changes nothing
            options["changes"] = _typed(parser, values, options["changes"], f"methods.{method}.changes")
    objects = parser.instantiate(namespace).as_dict()
    recipe = Recipe(**{field.name: objects.pop(field.name) for field in dataclasses.fields(Recipe)})
    return recipe, objects


def _typed(parser: ArgumentParser, values: Mapping[str, Any], changes: dict[str, Any], where: str) -> dict[str, Any]:
    """The changes of a method, each read as the field that it changes."""
    try:
        _clean(Recipe, changes, "")
        read = parse(parser, [], _without_nulls(_over(dict(values), changes))).as_dict()
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return _picked(read, changes)


def _picked(values: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    """The values of the names in nested dicts."""
    return {
        name: _picked(values[name], inner)
        if isinstance(inner, dict) and isinstance(values.get(name), dict)
        else values[name]
        for name, inner in names.items()
        if name in values
    }


def parse(parser: ArgumentParser, arguments: Sequence[str], values: Mapping[str, Any] | None = None) -> Namespace:
    """Parses arguments over values; errors are ValueErrors of one line."""
    try:
        base = parser.parse_object(dict(values)) if values else None
        return parser.parse_args(list(arguments), namespace=base)
    except (ArgumentError, TypeError) as error:
        raise ValueError(_explain(str(error))) from None


def _read(file: Traversable, below: tuple[Traversable, ...] = ()) -> dict[str, Any]:
    """The fields of a recipe; with `extends: NAME`, those of another recipe with these over them."""
    if file in below:
        raise ValueError(f"{file} extends itself; begin the chain of recipes with one that extends none")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    extended: dict[str, Any] = {}
    if isinstance(values, dict) and "extends" in values:
        extended = _read(find_recipe(str(values.pop("extends"))), (*below, file))
    if isinstance(values, dict) and isinstance(values.get("methods"), dict):
        values["methods"] = {name: _scaled_if_said(each) for name, each in values["methods"].items()}
    return _over(extended, {"name": file.name.removesuffix(".yaml"), **_clean(Recipe, values, "")})


def _scaled_if_said(method: Any) -> Any:
    """The options of a method; one that says nothing of scaling does not scale: it is a baseline."""
    options = {} if method is None else method
    return {"alpha": 0.0, **options} if isinstance(options, dict) and not options.keys() & set(SCALING) else options


def _over(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Values over those of a base; sections are merged field by field, but methods are taken as a whole.

    A field that is null loses what the base says; an empty section says nothing.
    """
    merged = dict(base)
    for name, value in values.items():
        inner = base.get(name)
        if name != "methods" and isinstance(inner, dict) and (value is None or isinstance(value, dict)):
            merged[name] = _over(inner, value or {})
        else:
            merged[name] = value
    return merged


def _without_nulls(values: dict[str, Any]) -> dict[str, Any]:
    """Fields of a recipe without those that are null: they have their defaults."""
    return {
        name: _without_nulls(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if value is not None
    }


def _clean(kind: Any, values: Any, where: str) -> Any:
    """Checks the names of fields, here and further inside."""
    if get_origin(kind) is dict and isinstance(values, dict):
        inner = get_args(kind)[1]
        return {name: _clean(inner, value, f"{where}.{name}") for name, value in values.items()}
    if not dataclasses.is_dataclass(kind):
        return values
    fields = _fields(kind)
    if not isinstance(values, dict):
        raise ValueError(f"{where or 'a recipe'} must hold the fields {', '.join(fields)}, not {values!r}")  # noqa: TRY004
    for name in values:
        if name not in fields:
            raise ValueError(f"unknown field {where and where + '.'}{name}; there are {', '.join(fields)}")
    return {
        name: None if value is None else _clean(fields[name], value, f"{where}.{name}".lstrip("."))
        for name, value in values.items()
    }


def _check_field(kind: Any, path: str, shown: str | None = None) -> None:
    """Checks that a dotted path leads to a field of a dataclass."""
    name, _, rest = path.partition(".")
    if not name:
        return
    if dataclasses.is_dataclass(kind):
        if name not in _fields(kind):
            raise ValueError(f"unknown field {shown or path}; there are {', '.join(_fields(kind))}")
        _check_field(_fields(kind)[name], rest, shown or path)
    elif get_origin(kind) is dict:
        _check_field(get_args(kind)[1], rest, shown or path)


def _fields(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _explain(message: str) -> str:
    """Says in one line what jsonargparse says in several."""
    text = " ".join(message.split())
    field = ".".join(re.findall(r'Parser key "([^"]+)"', text))
    value = re.search(r"(?:Got value|Given value): (.*)$", text)
    expected = re.search(r"Subtypes: \[(.*?)\] Errors|Expected an? (.*?)\. Got value", text)
    if not (field and value and expected):
        return re.sub(r"^unrecognized arguments: ", "unknown options (--help lists the known ones): ", text)
    kinds = re.sub(r"<class '(\w+)'>", r"\1", expected[1] or expected[2]).replace("NoneType", "null")
    kinds = re.sub(r"typing\.Literal\[(.*?)\]", r"one of \1", kinds).replace(", null", " or null")
    return f"{field} must be of type {kinds}, not {value[1]!r}".replace("of type one of", "one of")
