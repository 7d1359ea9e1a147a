"""sinabs 3 (SynSense): layers take all steps at once, [B, T, ...], their Squeeze variants [B * T, ...].

They keep their state in buffers until `reset_states()`; a call that goes on with a state of another one is refused. IAF
and LIF fire several spikes in one step (`MultiSpike`, their default): the counts enter the traces as they are.
"""

from functools import partial
from typing import cast

from sinabs.layers import ALIF, IAF, LIF, ALIFRecurrent, ExpLeak, IAFRecurrent, IAFSqueeze, LIFRecurrent, LIFSqueeze
from sinabs.layers.alif import ALIFSqueeze
from sinabs.layers.reshape import SqueezeMixin
from torch import Tensor, nn

from tracegrad.core.neurons import exclude_neuron, register_neuron


def _time_steps(neuron: nn.Module, x: Tensor) -> int:
    """T of [B * T, ...]: a Squeeze layer holds T, or B, or both; -1 stands for what it does not hold."""
    layer = cast(SqueezeMixin, neuron)
    return layer.num_timesteps if layer.num_timesteps > 0 else x.shape[0] // layer.batch_size


_register = partial(register_neuron, state="v_mem", time_dim=1, graded=True)
for layer in (IAF, LIF, ALIF):
    _register(layer, reset="sinabs.reset_states(model)")
for layer in (IAFSqueeze, LIFSqueeze, ALIFSqueeze):
    _register(layer, reset="sinabs.reset_states(model)", folded=_time_steps)
# sinabs.reset_states(model) passes over layers that hold others, as these hold rec_connect.
for layer in (IAFRecurrent, LIFRecurrent, ALIFRecurrent):
    _register(layer, reset="its reset_states()")
exclude_neuron(ExpLeak, "integrates and does not fire")
