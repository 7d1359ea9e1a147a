"""Norse (Pehle and Pedersen 2021): cells are called once per step, their sequential modules with all steps at once.

The state is passed to the call and comes back after the spikes; a call without one starts a sequence.
"""

import norse.torch as norse

from tracegrad.core.neurons import register_neuron

# LI and LIBox integrate and do not fire. The recurrent ones weigh their input themselves: it is no current, and their
# weights pair with them.
for cell in (
    norse.IAFCell,
    norse.IzhikevichCell,
    norse.IzhikevichRecurrentCell,
    norse.LIFAdExCell,
    norse.LIFAdExRecurrentCell,
    norse.LIFAdExRefracCell,
    norse.LIFAdExRefracRecurrentCell,
    norse.LIFBoxCell,
    norse.LIFCell,
    norse.LIFRecurrentCell,
    norse.LIFExCell,
    norse.LIFExRecurrentCell,
    norse.LIFRefracCell,
    norse.LIFRefracRecurrentCell,
    norse.LSNNCell,
    norse.LSNNRecurrentCell,
):
    register_neuron(cell, step=True, state="state", reset="it without a state")
for neuron in (
    norse.IAF,
    norse.Izhikevich,
    norse.IzhikevichRecurrent,
    norse.LIF,
    norse.LIFRecurrent,
    norse.LIFAdEx,
    norse.LIFAdExRecurrent,
    norse.LIFEx,
    norse.LIFExRecurrent,
    norse.LSNN,
    norse.LSNNRecurrent,
):
    register_neuron(neuron, state="state", reset="it without a state")
