"""sinabs: layers that take [B, T, ...], and their Squeeze variants, [B * T, ...]."""

from collections.abc import Callable
from functools import partial
from typing import Any

import sinabs
import torch
from sinabs.activation import MembraneReset
from sinabs.activation.spike_generation import BackwardClass
from sinabs.layers import ALIF, IAF, LIF, IAFSqueeze, LIFSqueeze, StatefulLayer
from sinabs.layers.alif import ALIFSqueeze
from torch import Tensor, nn

from contract.library import OF_KEPT_STATES, Fire, Library


class SingleSpike(BackwardClass, torch.autograd.Function):
    """The library's own fires in float32, whatever the model's precision."""

    required_states = ("v_mem",)

    @staticmethod
    def forward(ctx: Any, v_mem: Tensor, spike_threshold: Tensor, surrogate_grad_fn: Callable) -> Tensor:
        ctx.save_for_backward(v_mem.clone())
        ctx.spike_threshold, ctx.surrogate_grad_fn = spike_threshold, surrogate_grad_fn
        return (v_mem >= spike_threshold).to(v_mem)


class MultiSpike(SingleSpike):
    """How often the threshold fits into the membrane, the default of IAF and LIF."""

    @staticmethod
    def forward(ctx: Any, v_mem: Tensor, spike_threshold: Tensor, surrogate_grad_fn: Callable) -> Tensor:
        SingleSpike.forward(ctx, v_mem, spike_threshold, surrogate_grad_fn)
        return (v_mem / spike_threshold).trunc().clamp(min=0)


threshold = torch.tensor(0.5)  # exact in float32 too, in which the library makes its first states
single = {"spike_fn": SingleSpike, "spike_threshold": threshold}
several = {"spike_fn": MultiSpike, "spike_threshold": threshold}
leak, adaptation = {"tau_mem": 2.0}, {"tau_mem": 2.0, "tau_adapt": 3.0, "adapt_scale": 0.7}


class Sinabs(Library):
    neurons = {
        "LIF": partial(LIF, norm_input=False, **leak, **several),
        "LIF-synapse": partial(LIF, tau_syn=1.5, train_alphas=True, **leak, **single),
        "LIF-floor": partial(LIF, min_v_mem=-0.2, reset_fn=MembraneReset(), norm_input=False, **leak, **single),
        "IAF": partial(IAF, **several),
        "IAF-single": partial(IAF, **single),
        "ALIF": partial(ALIF, **adaptation, **single),
    }
    layout = "B T"
    reset = r"sinabs\.reset_states\(model\)"
    skips = OF_KEPT_STATES | {"another batch": "a batch of another size goes on with states drawn from the last one's"}

    def begin(self, network: nn.Module) -> Fire:
        sinabs.reset_states(network)
        return self.fire

    def detach(self, model: nn.Module) -> None:
        sinabs.zero_grad(model)


class SinabsSqueeze(Sinabs):
    neurons = {
        "LIF": partial(LIFSqueeze, num_timesteps=4, norm_input=False, **leak, **several),
        "IAF": partial(IAFSqueeze, num_timesteps=4, **several),
        "IAF-of-a-batch": partial(IAFSqueeze, batch_size=3, **single),
        "ALIF": partial(ALIFSqueeze, batch_size=3, num_timesteps=4, **adaptation, **single),
    }
    layout = "B*T"

    def fire(self, neuron: StatefulLayer, current: Tensor) -> Tensor:
        """One step of the layer that the Squeeze variant derives from."""
        unfolded = next(kind for kind in (LIF, ALIF) if isinstance(neuron, kind))
        return unfolded.forward(neuron, current.unsqueeze(1)).squeeze(1)

    def example(self, x: Tensor) -> Tensor:
        """All of it: the neuron holds T, or B, or both."""
        return x
