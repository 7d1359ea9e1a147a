"""Reads recipes: a YAML file, with dotted options over it, becomes a `Recipe`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from tracegrad.lab.recipe.code import is_code
from tracegrad.lab.recipe.fields import Recipe
from tracegrad.lab.recipe.parts import SCALING
from tracegrad.lab.recipe.plain_yaml import read_yaml
from tracegrad.lab.recipe.values import fields_in, over, require, typed

SUFFIXES = (".yaml", ".yml")
TEXTS = ("name", "description", "data.root", "code")  # text, whatever it looks like
SECTIONS = ("data", "model", "training", "neuron")
OLD_NAMES = {"rivals/": "comparison/"}
"""Beginnings of recipes' names that published results use, and what they are called now."""


def shipped_recipes() -> dict[str, Traversable]:
    """The recipes that come with tracegrad, by name."""
    return dict(sorted(_walk(files("tracegrad.lab") / "recipes", "")))


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            yield prefix + entry.name.removesuffix(".yaml"), entry


def find_recipe(name: str, beside: Path | None = None) -> Traversable:
    """Finds a recipe by the name of a shipped one or the path of a YAML file.

    Args:
        name: or path.
        beside: the folder from which a relative path starts; the current one by default.

    Raises:
        ValueError: there is neither.
    """
    shipped = shipped_recipes()
    for old, new in OLD_NAMES.items():
        if name.startswith(old):
            name = new + name.removeprefix(old)
    if name in shipped:
        return shipped[name]
    path = Path(name) if beside is None else beside / name
    try:
        if path.suffix in SUFFIXES and path.is_file():
            return path
    except (OSError, ValueError):  # no name that a file can have
        pass
    raise ValueError(f"unknown recipe {name[:200]!r}; give the path of a YAML file or one of {', '.join(shipped)}")


def load_recipe(name: str, fields: Mapping[str, str] = {}) -> Recipe:
    """Loads a recipe.

    Args:
        name: of a shipped recipe, or the path of a YAML file.
        fields: to override, as YAML by dotted name: `{"training.epochs": "3"}`.

    Raises:
        ValueError: no such recipe; an unknown field; a value of a wrong type or out of range.
        OSError: the file cannot be read.
    """
    file = find_recipe(name)
    values = _read(file)
    for path, text in fields.items():
        _set(values, path, text if path in TEXTS and text != "null" else read_yaml(text, f"--{path}"))
    recipe: Recipe = typed(Recipe, values, "")
    if recipe.code is None and isinstance(file, Path) and _names_code(dataclasses.asdict(recipe)):
        return dataclasses.replace(recipe, code=str(file.parent.resolve()))
    return recipe


def _names_code(values: Any) -> bool:
    if isinstance(values, dict):
        return any(_names_code(each) for name, each in values.items() if name not in ("description", "root"))
    return is_code(values)


def _set(values: dict[str, Any], path: str, value: Any) -> None:
    """Sets a value inside nested dicts; a dict goes over a section field by field, and replaces other dicts."""
    *sections, name = path.split(".")
    place: Any = values
    for depth, section in enumerate(sections):
        if place.get(section) is None:
            place[section] = {}
        place = place[section]
        require(isinstance(place, dict), f"{section} in --{path}", "a section of fields", place)
        following = [*sections, name][depth + 1]
        if (depth, section) == (0, "methods") and following not in place:
            known = ", ".join(map(str, place))
            raise ValueError(f"unknown method {following!r} in --{path}; the recipe has {known}")
    place[name] = over(place.get(name), value) if isinstance(value, dict) and name in SECTIONS else value


def _read(file: Traversable, below: tuple[Traversable, ...] = ()) -> dict[str, Any]:
    """The fields of a recipe; with `extends: NAME`, those of another recipe with these over them."""
    if file in below:
        raise ValueError(f"{file} extends itself; begin the chain of recipes with one that extends none")
    try:
        values = read_yaml(file.read_text(encoding="utf-8"), str(file))
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not YAML: it is not text in UTF-8") from None
    extended: dict[str, Any] = {}
    if isinstance(values, dict) and "extends" in values:
        beside = file.parent if isinstance(file, Path) else None
        extended = _read(find_recipe(str(values.pop("extends")), beside), (*below, file))
    fields_in(Recipe, values, "")
    if isinstance(values.get("methods"), dict):
        values["methods"] = {name: _scaled_if_said(each) for name, each in values["methods"].items()}
    return over(extended, {"name": file.name.rpartition(".")[0], **values})


def _scaled_if_said(method: Any) -> Any:
    """The options of a method; one that says nothing of scaling does not scale: it is a baseline."""
    options = {} if method is None else method
    return {"alpha": 0.0, **options} if isinstance(options, dict) and not options.keys() & set(SCALING) else options
