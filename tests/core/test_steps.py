"""Networks that are called step by step, with a neuron written here, against the same network on all steps at once."""

import copy
import subprocess
import sys

import pytest
import torch
from stepping import AllSteps, B, Cell, Loop, T, assert_same, frames, gradients, loop, reset
from torch import Tensor, nn

import tracegrad as tg

TIMES = ("per_step", "mean", "final")


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("relation", ["positive", "test_steps stdp"])
def test_steps_one_by_one_give_what_all_at_once_give(time: str, relation: str) -> None:
    model, twin = loop(), AllSteps().double()
    twin.load_state_dict(model.layers.state_dict())
    options = {"time": time, "relation": relation, "normalize": "mean", "record": True, "relation_batch": 0.5}
    stepping, at_once = tg.attach(model, frames(steps=2), **options), tg.attach(twin, frames(), **options)
    for seed in (1, 2):
        assert_same(gradients(model, frames(seed, steps=6)), gradients(twin, frames(seed, steps=6)))
    for name, relation_ in at_once.relations.items():
        torch.testing.assert_close(stepping.relations[f"layers.{name}"], relation_, rtol=1e-10, atol=1e-10)


stdp = (tg.Term(+1, pre="trace", post="spikes"), tg.Term(-1, pre="spikes", post="trace"))
tg.register_relation("test_steps stdp", stdp)


@pytest.mark.parametrize("time", TIMES)
def test_two_sequences_before_one_backward_pass(time: str) -> None:
    model = loop()
    tg.attach(model, frames(), time=time, alpha=0.5)
    apart = [gradients(model, frames(seed)) for seed in (1, 2)]
    model.zero_grad()
    weights = torch.randn(T, B, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sum((model(frames(seed)) * weights).sum() for seed in (1, 2)).backward()
    together = {name.removeprefix("layers."): p.grad for name, p in model.named_parameters()}
    assert_same(together, {name: apart[0][name] + apart[1][name] for name in together}, 1e-12)


@pytest.mark.parametrize("frozen", ["conv1.weight", "conv2.weight"])
def test_frozen_weights_change_no_other_gradient(frozen: str) -> None:
    model = loop()
    tg.attach(model, frames(), alpha=0.5)
    expected = gradients(model, frames())
    model.layers.get_parameter(frozen).requires_grad_(False)
    del expected[frozen]
    assert_same(gradients(model, frames()), expected, 0.0)


def test_evaluation_between_training_steps_changes_nothing() -> None:
    model = loop()
    tg.attach(model, frames())
    expected, outputs = gradients(model, frames()), model(frames())
    with torch.no_grad():
        assert torch.equal(model(frames()), outputs)
    with torch.inference_mode():
        model(frames(3))
    assert_same(gradients(model, frames()), expected, 0.0)


def test_a_sequence_goes_on_from_steps_without_gradients() -> None:
    """R of a step reads the traces of all steps before it, also of those that no gradient reaches."""
    model = loop().layers
    a = tg.attach(model, frames()[0], record=True, normalize="none")
    reset(model)
    torch.stack([model(frame) for frame in frames()]).sum().backward()
    whole = {name: relation.clone() for name, relation in a.relations.items()}
    reset(model)
    with torch.no_grad():
        for frame in frames()[:2]:
            model(frame)
    torch.stack([model(frame) for frame in frames()[2:]]).sum().backward()
    for name, relation in a.relations.items():
        torch.testing.assert_close(relation, whole[name][2:])


@pytest.mark.parametrize("how", ["none", "zeros", "zeroed in place", "another batch"])
def test_what_starts_a_sequence(how: str) -> None:
    model = loop().layers
    a = tg.attach(model, frames()[0], record=True, normalize="none")
    reset(model)
    torch.stack([model(frame) for frame in frames()]).sum().backward()
    fresh = {name: relation.clone() for name, relation in a.relations.items()}
    x = frames()
    for module in model.modules():
        if isinstance(module, Cell) and module.v is not None:
            if how == "none":
                module.v = None
            elif how == "zeros":
                module.v = torch.zeros_like(module.v)
            elif how == "zeroed in place":
                module.v = module.v.detach_().zero_()
            else:
                module.v = torch.zeros(2 * B, *module.v.shape[1:], dtype=torch.float64)
    if how == "another batch":
        x = torch.cat([x, x], 1)
    torch.stack([model(frame) for frame in x]).sum().backward()
    for name, relation in a.relations.items():
        expected = fresh[name] * (2 if how == "another batch" else 1)
        torch.testing.assert_close(relation, expected)


def test_neurons_behind_one_synapse_must_start_together() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.left, self.right = nn.Linear(5, 3), Cell(), Cell()

        def forward(self, x: Tensor) -> Tensor:
            current = self.linear(x)
            return self.left(current) - 2 * self.right(current)

    model, x = Fork(), torch.rand(B, 5).round()
    tg.attach(model, x, spiking_input=True)
    reset(model)
    model(x)
    model.left.v = None
    with pytest.raises(
        RuntimeError, match="neuron right goes on with a sequence where another neuron .*call its reset"
    ):
        model(x)


def test_what_is_not_called_once_for_every_step_is_told() -> None:
    class Still(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.neuron0, self.second, self.neuron1 = nn.Linear(5, 4), Cell(), nn.Linear(4, 3), Cell()

        def forward(self, spikes: Tensor) -> Tensor:
            reset(self)
            still = self.first(spikes)
            return torch.stack([self.neuron1(self.second(self.neuron0(still))) for _ in range(T)])

    a = tg.attach(Still(), torch.ones(B, 5), spiking_input=True)
    assert a.pairs == [("second", "neuron1")]
    assert a.skipped == [("first", "it is called 1 times, but its neuron neuron0 4 times: not once for every step")]


def test_a_neuron_that_serves_several_layers_is_told() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.neuron = nn.Linear(5, 5), nn.Linear(5, 5), Cell()

        def forward(self, x: Tensor) -> Tensor:
            reset(self)
            return torch.stack([self.neuron(self.second(self.neuron(self.first(frame)))) for frame in x])

    a = tg.attach(Shared(), torch.ones(T, B, 5), spiking_input=True, allow_empty=True)
    assert not a.pairs
    assert "4 times, but its neuron neuron 8 times" in dict(a.skipped)["first"]


@pytest.mark.parametrize("time", TIMES)
def test_a_synapse_used_twice_a_step_gets_the_sum_of_two(time: str) -> None:
    class Twice(nn.Module):
        def __init__(self, shared: bool) -> None:
            super().__init__()
            self.first, self.neuron0, self.neuron1 = nn.Linear(5, 5), Cell(), Cell()
            self.second = self.first if shared else nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            reset(self)
            return torch.stack([self.neuron1(self.second(self.neuron0(self.first(frame)))) for frame in x])

    torch.manual_seed(0)
    shared, twins = Twice(True).double(), Twice(False).double()
    state = shared.first.state_dict()
    twins.load_state_dict({f"{each}.{name}": value for each in ("first", "second") for name, value in state.items()})
    x = (torch.rand(T, B, 5) < 0.7).double()
    for model in (shared, twins):
        tg.attach(model, x, time=time, alpha=0.5, spiking_input=True)
    ours, theirs = gradients(shared, x), gradients(twins, x)
    torch.testing.assert_close(ours["first.weight"], theirs["first.weight"] + theirs["second.weight"])
    assert theirs["first.weight"].any()


def test_a_call_of_the_neuron_or_of_the_synapse_alone_is_an_error() -> None:
    model = loop()
    tg.attach(model, frames())
    with pytest.raises(ValueError, match=r"neuron layers\.neuron1 was called without layers\.conv1 before it"):
        run_instead(model, lambda layers, x: layers.neuron1(layers.neuron0(layers.stem(x))))
    with pytest.raises(ValueError, match=r"layers\.conv1 was called without its neuron after it"):
        run_instead(model, lambda layers, x: layers.conv1(layers.neuron0(layers.stem(x))))
    model(frames()).sum().backward()


def run_instead(model: Loop, forward) -> None:
    model.layers.forward = lambda x: forward(model.layers, x)
    try:
        model(frames())
    finally:
        del model.layers.forward


@pytest.mark.parametrize("time", ["mean", "final"])
def test_a_scaling_that_is_not_linear_needs_per_step(time: str) -> None:
    @tg.register_scaling(f"test_steps {time}")
    def sign(grad: Tensor, relation: Tensor, alpha: float) -> Tensor:
        return grad.sign() * relation

    with pytest.raises(ValueError, match="needs the whole gradient at once"):
        tg.attach(loop(), frames(), time=time, scaling=f"test_steps {time}")
    tg.attach(loop(), frames(), scaling=f"test_steps {time}")


def test_a_step_neuron_must_name_its_state() -> None:
    with pytest.raises(ValueError, match="LIF is called step by step: state='...' must name its state"):
        tg.register_neuron(tg.LIF, step=True)


def test_a_deep_copy_trains_with_traces_of_its_own() -> None:
    model = loop()
    tg.attach(model, frames(), alpha=0.5)
    expected = gradients(model, frames())
    reset(model)
    duplicate = copy.deepcopy(model)
    tg.detach(model)
    assert_same(gradients(duplicate, frames()), expected, 0.0)


def test_importing_tracegrad_imports_no_other_library() -> None:
    code = "import sys, tracegrad; print(*({'snntorch', 'norse', 'spikingjelly', 'nir'} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not found.stdout.split(), f"imported: {found.stdout}"
