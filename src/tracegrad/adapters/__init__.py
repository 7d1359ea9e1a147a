"""Exchange with other libraries, each imported when its adapter is asked for."""

from importlib import import_module
from types import ModuleType

ADAPTERS = ("nir",)

__all__ = ["ADAPTERS"]


def __getattr__(name: str) -> ModuleType:
    if name in ADAPTERS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"tracegrad.adapters has no {name!r}; there are {', '.join(ADAPTERS)}")
