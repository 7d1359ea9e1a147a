"""snnTorch (Eshraghian et al. 2023): neurons are called once per step; their membrane tells where a sequence starts.

`reset_mem()`, `snntorch.utils.reset`, or a new membrane passed to the call start one; the membrane that the last call
left behind, detached or not, goes on, whether the neuron keeps it (`init_hidden=True`) or the caller.
"""

import snntorch

from tracegrad.core.neurons import register_neuron

# SLSTM and SConv2dLSTM weigh their input once more before they fire: it is no current.
for neuron in (
    snntorch.Leaky,
    snntorch.Synaptic,
    snntorch.Lapicque,
    snntorch.Alpha,
    snntorch.RLeaky,
    snntorch.RSynaptic,
):
    register_neuron(neuron, step=True, state="mem", reset="reset_mem()")
