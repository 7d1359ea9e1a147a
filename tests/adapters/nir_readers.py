"""NIR graphs run by other libraries, through their own readers."""

import contextlib
import io
import warnings

import torch


def run_snntorch(graph, frames):
    """Outputs [T, B, ...] of snnTorch, and the spikes [T, B, ...] of each layer of neurons."""
    from snntorch.import_nir import import_from_nir

    with contextlib.redirect_stdout(io.StringIO()):  # it prints whole arrays
        network = import_from_nir(graph)
    return _run(network, frames)


def run_norse(graph, frames, dt=1e-4):
    """Outputs [T, B, ...] of Norse, and the spikes [T, B, ...] of each layer of neurons."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old functions of PyTorch and NIRTorch that it calls
        import norse.torch

        network = norse.torch.from_nir(graph, dt=dt)
    return _run(network, frames)


def run_spikingjelly(graph, frames):
    """Outputs [T, B, ...] of SpikingJelly, and the spikes [T, B, ...] of each layer of neurons."""
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    return _run(import_from_nir(graph), frames)


def _run(network, frames):
    """All are called once per step and return their state; snnTorch's is in its neurons."""
    fired = {}

    def keep(name):
        return lambda _, __, output: fired.setdefault(name, []).append(
            output[0] if isinstance(output, tuple) else output
        )

    for name, module in network.named_modules():
        if type(module).__name__ in ("Leaky", "LIFBoxCell", "IAFCell", "_NIRStatefulModule"):
            module.register_forward_hook(keep(name))
    outputs, state = [], None
    with torch.no_grad():
        for frame in frames:
            output, state = network(frame, state)
            outputs.append(output[0] if isinstance(output, tuple) else output)
    return torch.stack(outputs), {name: torch.stack(steps) for name, steps in fired.items()}
