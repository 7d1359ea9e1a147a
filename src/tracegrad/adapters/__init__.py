"""Other people's libraries: how their neurons are recognised and called. Each is imported once a model needs it."""

from functools import partial
from importlib import import_module

from tracegrad.core.neurons import register_adapter

for package in ("norse", "snntorch", "spikingjelly"):
    register_adapter(package, partial(import_module, f"{__name__}.{package}"))
