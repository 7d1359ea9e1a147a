"""What is peculiar to Norse: its containers, its modules that take all steps, checkpoints around a call."""

import norse.torch as norse
import pytest
import torch
from contract.cases import Case, every_time
from contract.libraries.norse import Norse, box, lif
from contract.truth import truth
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint

import reference
import tracegrad as tg

T = Norse.time_steps


class Sequential(nn.Module):
    """The convolutional network in Norse's container: Lift runs a layer step by step, LIF takes all steps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        lift = norse.Lift
        self.layers = norse.SequentialState(
            *(lift(network.stem), lift(network.norm0), network.neuron0, lift(network.pool), lift(network.hidden)),
            *(lift(network.norm1), network.neuron1),
        )
        self.head = network.head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x)[0].to(x).mean((3, 4)))


@every_time
def test_lifted_synapses_and_neurons_of_all_steps(time: str) -> None:
    built = Case(Norse(), "LIF", "at-once", "convolutional").build()
    lifted = Case(Norse(), "LIF", "lifted", "convolutional")  # its norms see each step alone
    network, x = built.network, lifted.frames()
    expected = truth(lifted, built, x, time=time)
    model = Sequential(network)
    attachment = tg.attach(model, x[:3], time=time)
    assert attachment.pairs == [("layers.4.lifted_module", "layers.6")]
    reference.loss_of(model(x)).backward()
    ours = {name: value.grad for name, value in network.named_parameters()}
    reference.assert_same(ours, {name: expected.gradients[name] for name in ours}, 1e-10)
    assert expected.spikes["neuron1"].any(), "the case is void"


def test_a_checkpoint_around_each_call_of_the_model_changes_no_gradient() -> None:
    """With truncated back-propagation, so that a sequence goes on behind steps that were computed anew."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = norse.SequentialState(
                *(nn.Linear(5, 6), norse.LIFBoxCell(box), nn.Linear(6, 4), norse.LIFBoxCell(box))
            )

        def forward(self, x: Tensor, state: list | None) -> tuple[Tensor, list]:
            return self.layers(x, list(state) if state else None)

    torch.manual_seed(0)
    model, x = Net().double(), torch.rand(T, 3, 5, dtype=torch.float64).round() * 2
    tg.attach(model, (x[0], None), spiking_input=True, alpha=0.5)
    found = []
    for call in (model, lambda *inputs: checkpoint(model, *inputs, use_reentrant=False)):
        model.zero_grad()
        state = None
        for half in x.chunk(2):
            outputs = []
            for frame in half:
                spikes, state = call(frame, state)
                outputs.append(spikes)
            reference.loss_of(torch.stack(outputs).double()).backward()
            state = [each and tree_map(Tensor.detach, each) for each in state]
        found.append({name: value.grad.clone() for name, value in model.named_parameters()})
    reference.assert_same(found[1], found[0], 1e-12)


def test_a_container_of_cells_and_what_does_not_fire() -> None:
    model = norse.SequentialState(
        nn.Conv2d(1, 4, 3), norse.LIFCell(), nn.Conv2d(4, 4, 3), norse.LIFBoxCell(), nn.Flatten(), nn.Linear(64, 3),
        norse.LICell(),
    )  # fmt: skip
    attachment = tg.attach(model, torch.rand(2, 1, 8, 8))
    assert attachment.pairs == [("2", "3")]
    reasons = dict(attachment.skipped)
    assert "its input is the data" in reasons["0"]
    assert "no post-synaptic neuron" in reasons["5"], "a leaky integrator does not fire"


def test_a_state_that_goes_on_into_another_call_with_all_steps_is_an_error() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.neuron = nn.Linear(5, 3), norse.LIF(lif)

        def forward(self, x: Tensor, state: object = None) -> tuple[Tensor, object]:
            return self.neuron(self.linear(x), state)

    model, x = Net(), torch.rand(T, 2, 5).round()
    assert tg.attach(model, x, spiking_input=True).pairs == [("linear", "neuron")]
    for _ in range(2):
        spikes, state = model(x)
        spikes.sum().backward()
    with pytest.raises(RuntimeError, match="neuron neuron goes on with the state of an earlier call"):
        model(x, tree_map(Tensor.detach, state))
