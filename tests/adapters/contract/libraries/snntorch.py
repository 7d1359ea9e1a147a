"""snnTorch: neurons whose states the caller passes, and neurons that keep them."""

from functools import partial

import snntorch
from torch import Tensor, nn

from contract.library import OF_PASSED_STATES, Fire, Library


class _Passing:
    """The states are passed to the neurons and come back from them."""

    def __init__(self, network: nn.Module) -> None:
        neurons = [module for module in network.modules() if isinstance(module, snntorch.SpikingNeuron)]
        self.states = {neuron: neuron.reset_mem() for neuron in neurons}

    def __call__(self, neuron: nn.Module, current: Tensor) -> Tensor:
        state = self.states[neuron]
        spikes, *state = neuron(current, *(state if isinstance(state, tuple) else (state,)))
        self.states[neuron] = tuple(state)
        return spikes


def fast_sigmoid(distance: Tensor) -> Tensor:
    """The library's own surrogates fire in float32, whatever the model's precision."""
    slope = 1 / (1 + 2 * distance.detach().abs()) ** 2
    return (distance.detach() > 0).to(distance) + (distance - distance.detach()) * slope


options = {"threshold": 0.5, "spike_grad": fast_sigmoid}
leaky = partial(snntorch.Leaky, beta=0.8, **options)
synaptic = partial(snntorch.Synaptic, alpha=0.4, beta=0.8, **options)
lapicque = partial(snntorch.Lapicque, beta=0.8, **options)


class _SnnTorch(Library):
    reset = r"reset_mem\(\)"

    def detach(self, model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, snntorch.SpikingNeuron):
                module.mem.detach_()
                if hasattr(module, "syn"):
                    module.syn.detach_()


class SnnTorch(_SnnTorch):
    neurons = {
        "Leaky": leaky,
        "Leaky-zero": partial(leaky, reset_mechanism="zero", reset_delay=False),
        "Synaptic": synaptic,
        "Lapicque": lapicque,
    }
    skips = OF_PASSED_STATES

    def begin(self, network: nn.Module) -> Fire:
        return _Passing(network)


class SnnTorchHidden(_SnnTorch):
    neurons = {
        "Leaky": partial(leaky, init_hidden=True, learn_beta=True),
        "Leaky-output": partial(leaky, init_hidden=True, output=True, reset_mechanism="none"),
        "Synaptic": partial(synaptic, init_hidden=True),
        "Lapicque": partial(lapicque, init_hidden=True),
    }

    def begin(self, network: nn.Module) -> Fire:
        for module in network.modules():
            if isinstance(module, snntorch.SpikingNeuron):
                module.reset_mem()
        return self.fire
