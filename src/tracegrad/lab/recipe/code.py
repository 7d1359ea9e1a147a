"""Code that a recipe names as `package.module:name`: found in the recipe's folder, or installed."""

from __future__ import annotations

import hashlib
import re
import sys
import traceback
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import AfterValidator

from tracegrad.core.registry import Registry

_CODE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_code(name: object) -> bool:
    """Whether a name in a recipe is that of code, `package.module:name`."""
    return isinstance(name, str) and _CODE.fullmatch(name) is not None


def check_name(registry: Registry[Any], name: str) -> str:
    """The name, if it is registered, or that of code; no code is run.

    Raises:
        ValueError: it is neither.
    """
    if name not in registry and not is_code(name):
        known = ", ".join(map(repr, registry))
        raise ValueError(
            f"unknown {registry.kind} {name!r}; the known ones are {known}, or your own as package.module:name"
        )
    return name


def named(registry: Registry[Any]) -> AfterValidator:
    """The annotation of a field that holds such a name."""
    return AfterValidator(partial(check_name, registry))


def run_code(name: str, folder: str | None) -> tuple[Any, str]:
    """Imports what a recipe names, after a line that says so.

    Args:
        name: `package.module:name`.
        folder: where modules are looked for first, before those that are installed.

    Returns:
        What the module calls by that name, and the SHA-256 of the module's file.

    Raises:
        ValueError: there is no such module, or nothing of that name in it; it cannot be imported.
    """
    path, _, attribute = name.partition(":")
    package = path.partition(".")[0]
    spec = (PathFinder.find_spec(package, [folder]) if folder else None) or _installed(package)
    if spec is None:
        raise ValueError(f"{name}: there is no module {package} in {folder}, and none is installed")
    place = spec.origin or ", ".join(spec.submodule_search_locations or ())
    if path not in sys.modules:
        print(f"runs code that the recipe names: {name}, from {place}", flush=True)
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)  # modules beside it can be imported, too
    try:
        module = import_module(path)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise ValueError(f"{name}: {type(error).__name__} at {where.filename}:{where.lineno}: {error}") from error
    found = getattr(sys.modules[package], "__file__", None)
    if spec.origin and found != spec.origin:
        raise ValueError(f"{name}: a module {package} from {found} is in use already, not {place}; rename yours")
    if not hasattr(module, attribute):
        raise ValueError(f"{name}: {module.__file__} has no {attribute}")
    return getattr(module, attribute), hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()


def _installed(package: str) -> ModuleSpec | None:
    try:
        return find_spec(package)
    except ValueError:  # such as __main__
        return None
