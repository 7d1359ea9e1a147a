"""Other people's libraries: how their neurons are recognised and called; exchange of networks. Imported when asked for.

The neurons of SpikingJelly, snnTorch, Norse and sinabs are known once a model holds one. `tracegrad.adapters.nir`
writes and reads NIR graphs.
"""

from functools import partial
from importlib import import_module
from types import ModuleType

from tracegrad.core.neurons import register_adapter

for package in ("norse", "sinabs", "snntorch", "spikingjelly"):
    register_adapter(package, partial(import_module, f"{__name__}.{package}"))

ADAPTERS = ("nir",)


def __getattr__(name: str) -> ModuleType:
    if name in ADAPTERS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"tracegrad.adapters has no {name!r}; there are {', '.join(ADAPTERS)}")
