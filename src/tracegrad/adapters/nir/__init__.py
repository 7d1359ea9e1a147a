"""Networks to and from the Neuromorphic Intermediate Representation (NIR, Pedersen et al. 2024).

    graph = tg.adapters.nir.to_nir(model, example_input)
    nir.write("network.nir", graph)
    model = tg.adapters.nir.from_nir("network.nir")

The LIF node of a graph is a differential equation, tau * dv/dt = (v_leak - v) + r * I. With the Euler step dt, which
all readers use, it is the neuron of `tracegrad.LIF` in other units; see `units`.
"""

try:
    import nir  # noqa: F401  # pyright: ignore[reportUnusedImport] - missing, it is named here with the remedy
except ImportError as error:
    raise ImportError("tracegrad.adapters.nir needs the package nir: pip install tracegrad[nir]") from error

from tracegrad.adapters.nir.network import Network
from tracegrad.adapters.nir.read import from_nir
from tracegrad.adapters.nir.units import DT
from tracegrad.adapters.nir.write import to_bytes, to_nir

__all__ = ["DT", "Network", "from_nir", "to_bytes", "to_nir"]
