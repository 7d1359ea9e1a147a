"""Norse (Pehle and Pedersen 2021): cells are called once per step, their sequential modules with all steps at once.

The state is passed to the call and comes back after the spikes; a call without one starts a sequence.
"""

import norse.torch as norse

from tracegrad.core.neurons import register_neuron

# LI and LIBox integrate and do not fire; the recurrent ones weigh their input before they fire: it is no current.
for cell in (
    norse.IAFCell,
    norse.IzhikevichCell,
    norse.LIFAdExCell,
    norse.LIFAdExRefracCell,
    norse.LIFBoxCell,
    norse.LIFCell,
    norse.LIFExCell,
    norse.LIFRefracCell,
    norse.LSNNCell,
):
    register_neuron(cell, step=True, state="state", reset="it without a state")
for neuron in (norse.IAF, norse.Izhikevich, norse.LIF, norse.LIFAdEx, norse.LIFEx, norse.LSNN):
    register_neuron(neuron, state="state", reset="it without a state")
