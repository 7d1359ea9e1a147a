"""SpikingJelly 2 (Fang et al. 2023): in step mode "m" neurons take all steps in one call, in "s" one step a call.

Both keep their state until `reset()`: a sequence starts at a neuron that was reset, as by `functional.reset_net`.
"""

from functools import partial

from spikingjelly.activation_based import base, neuron
from torch import nn

from tracegrad.core.neurons import exclude_neuron, register_neuron


def _steps(module: nn.Module) -> bool:
    return isinstance(module, base.StepModule) and module.step_mode == "s"


_register = partial(register_neuron, step=_steps, reset="functional.reset_net(model)")
for each in (neuron.BaseNode, neuron.SimpleBaseNode, neuron.ActivationAwareIFNode, neuron.GatedLIFNode):
    _register(each, state="v")
for each in (neuron.MaskedPSN, neuron.SlidingPSN):
    _register(each, state="queue")
register_neuron(neuron.PSN)

# Several spikes at once, signed ones, or analogue ones.
for each in (neuron.ILIFNode, neuron.TernaryIFNode, neuron.TernaryLIFNode, neuron.LIAFNode):
    _register(each, state="v", graded=True)
for each in (neuron.OTTTLIFNode, neuron.SLTTLIFNode):
    exclude_neuron(each, "goes backward at every step by itself")
