"""Reads recipes: a YAML file, with dotted options over it, becomes a `Recipe`."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tracegrad.lab.recipe.code import is_code
from tracegrad.lab.recipe.fields import Recipe
from tracegrad.lab.recipe.parts import SCALING
from tracegrad.lab.recipe.plain_yaml import read_yaml
from tracegrad.lab.values import over, require, typed

SUFFIXES = (".yaml", ".yml")
TEXTS = ("name", "description", "data.root", "code")  # text, whatever it looks like
SECTIONS = ("data", "model", "training", "neuron")
RECIPES = Path(__file__).parents[1] / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with tracegrad, by name."""
    found = {path.relative_to(RECIPES).as_posix().removesuffix(".yaml"): path for path in RECIPES.rglob("*.yaml")}
    return dict(sorted(found.items()))


def find_recipe(name: str, beside: Path | None = None) -> Path:
    """Finds a recipe by the name of a shipped one or the path of a YAML file.

    Args:
        name: or path.
        beside: the folder from which a relative path starts; the current one by default.

    Raises:
        ValueError: there is neither.
    """
    shipped = shipped_recipes()
    now = re.sub("^rivals/", "comparison/", name)  # as published results call them
    if now in shipped:
        return shipped[now]
    path = (beside or Path()) / name
    if path.suffix in SUFFIXES and os.path.isfile(path):  # noqa: PTH113 - false where no file can have such a name
        return path
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
    if recipe.code is None and _names_code(dataclasses.asdict(recipe)):
        return dataclasses.replace(recipe, code=str(file.parent.resolve()))
    return recipe


def _names_code(values: Any) -> bool:
    if isinstance(values, dict):
        return any(_names_code(each) for name, each in values.items() if name not in ("description", "root"))
    return is_code(values)


def _set(values: dict[str, Any], path: str, value: Any) -> None:
    """Sets a value inside nested dicts; a dict goes over a section field by field, and replaces other dicts."""
    *sections, name = names = path.split(".")
    place: Any = values
    for section, following in zip(sections, names[1:], strict=True):
        if place.get(section) is None:
            place[section] = {}
        place = place[section]
        require(isinstance(place, dict), f"{section} in --{path}", "a section of fields", place)
        if place is values.get("methods"):
            require(following in place, f"the method in --{path}", f"one of {', '.join(map(str, place))}", following)
    place[name] = over(place.get(name), value) if isinstance(value, dict) and name in SECTIONS else value


def _read(file: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The fields of a recipe; with `extends: NAME`, those of another recipe with these over them."""
    if file in below:
        raise ValueError(f"{file} extends itself; begin the chain of recipes with one that extends none")
    values = read_yaml(file.read_bytes(), str(file))
    require(isinstance(values, dict), str(file), "a recipe, which is fields and their values", values)
    base = str(values.pop("extends", ""))
    extended = _read(find_recipe(base, file.parent), (*below, file)) if base else {}
    if isinstance(values.get("methods"), dict):
        values["methods"] = {name: _scaled_if_said(each) for name, each in values["methods"].items()}
    return over(extended, {"name": file.stem, **values})


def _scaled_if_said(method: Any) -> Any:
    """The options of a method; one that says nothing of scaling does not scale: it is a baseline."""
    options = {} if method is None else method
    return {"alpha": 0.0, **options} if isinstance(options, dict) and not options.keys() & set(SCALING) else options
