"""SpikingJelly 2 (Fang et al. 2023): which of its neurons fire 0 or 1."""

from spikingjelly.activation_based import neuron

from tracegrad.core.neurons import register_neuron

for each in (
    neuron.BaseNode,
    neuron.SimpleBaseNode,
    neuron.ActivationAwareIFNode,
    neuron.GatedLIFNode,
    neuron.PSN,
    neuron.MaskedPSN,
    neuron.SlidingPSN,
):
    register_neuron(each)
