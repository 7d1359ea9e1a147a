"""The way of spikes back through the pools between a synapse and its neuron (`through_pools=True`).

A pool's own backward brings each spike to where its current came from: a maximum to the winner of that step, an average
to all in its window, 1 / window to each.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from tracegrad.core.pairing.graph import operation_of
from tracegrad.core.pairing.operations import LAYOUT, POOLS
from tracegrad.core.torch_internals import Node


def route_back(current: Tensor, path: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """The function from a neuron's spikes to the post-synaptic signal in the shape of a synapse's current.

    Args:
        current: the neuron's input, with the graph behind it.
        path: at each node on the way back, which of its inputs comes next.

    Raises:
        ValueError: the current has no graph: it was computed without gradients; or torch.compile has compiled the way.
    """
    nodes: list[Node] = []
    node = current.grad_fn
    for index in path[1:]:  # the first one leads from the neuron to its input
        if node is None:
            raise ValueError("spikes can't be routed back through pools where currents are computed without gradients")
        if operation_of(node) == "CompiledFunction":
            raise ValueError("through_pools=True needs pools that are not compiled: leave torch.compile out")
        nodes.append(node)
        node = [child for child, _ in node.next_functions if child is not None][index]
    dtype = current.dtype
    moving = [node for node in nodes if operation_of(node) in POOLS or operation_of(node) in (*LAYOUT, "Mean")]

    def back(spikes: Tensor) -> Tensor:
        signal = spikes.to(dtype)
        for node in moving:
            signal = node(signal)
        return signal

    return back
