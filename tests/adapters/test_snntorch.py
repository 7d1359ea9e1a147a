"""What is peculiar to snnTorch: its utilities, its own surrogates, recurrent neurons."""

from functools import partial

import pytest
import snntorch
import torch
from contract.cases import Case
from contract.libraries.snntorch import SnnTorchHidden, leaky, options
from contract.library import Fire
from contract.truth import truth
from snntorch import utils
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError, checkpoint

import tracegrad as tg
from reference import assert_same


class ByUtils(SnnTorchHidden):
    """`snntorch.utils.reset` resets all neurons that were ever built, but no copies of them."""

    neurons = SnnTorchHidden.neurons | {"own": partial(snntorch.Leaky, beta=0.8, threshold=0.5, init_hidden=True)}

    def begin(self, network: nn.Module) -> Fire:
        utils.reset(network)
        return self.fire


@pytest.mark.parametrize("way", ["loop-inside", "loop-outside"])
@pytest.mark.parametrize("network", ["convolutional", "residual"])
@pytest.mark.parametrize(("neuron", "bound"), [("Leaky", 1e-10), ("own", 1e-5)], ids=["Leaky", "own-surrogate"])
def test_sequences_that_utils_reset_begins(neuron: str, bound: float, network: str, way: str) -> None:
    """The library's own surrogates fire in float32 and round the gradients that pass."""
    case = Case(ByUtils(), neuron, way, network)
    model, x = case.build(), case.frames()
    by_neuron = SnnTorchHidden()
    by_neuron.neurons = case.library.neurons
    expected = truth(Case(by_neuron, neuron, way, network), model, x)
    attachment = case.attach(model)
    assert len(attachment.pairs) == len(expected.pairs)
    assert all(spikes.any() for spikes in expected.spikes.values()), "the case is void: a layer does not fire"
    for _ in range(2):
        assert_same(case.gradients(model, x), expected.gradients, bound)


def test_checkpoints_around_hidden_states_fail_without_scaling() -> None:
    """A recomputed neuron goes on with the membrane that the forward pass left behind."""
    case = Case(SnnTorchHidden(), "Leaky", "loop-inside", "residual")
    model = case.build()
    model.segment = lambda step, frame, fire: checkpoint(step, frame, fire, use_reentrant=False)
    with pytest.raises(CheckpointError):
        case.gradients(model, case.frames())


def test_a_recurrent_neuron_and_the_synapse_within_it() -> None:
    """Its spikes and its current count; its own recurrent weights are left alone, with a reason."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.neuron0 = nn.Linear(5, 4), snntorch.RLeaky(beta=0.8, linear_features=4, **options)
            self.second, self.neuron1 = nn.Linear(4, 3), leaky()

        def forward(self, x: Tensor) -> Tensor:
            (spikes, mem), mem1, out = self.neuron0.reset_mem(), self.neuron1.reset_mem(), []
            for frame in x:
                spikes, mem = self.neuron0(self.first(frame), spikes, mem)
                s, mem1 = self.neuron1(self.second(spikes), mem1)
                out.append(s)
            return torch.stack(out)

    attachment = tg.attach(Recurrent(), torch.rand(3, 2, 5).round(), spiking_input=True)
    assert attachment.pairs == [("first", "neuron0"), ("neuron0.recurrent", "neuron0"), ("second", "neuron1")]
    assert not attachment.skipped
