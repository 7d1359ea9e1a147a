"""Gradient scaling attached to networks of SpikingJelly, in both of its step modes."""

from copy import deepcopy
from functools import partial

import jelly
import pytest
import torch
import torch.nn.functional as F
from jelly import DYNAMICS, ELEMENT_WISE, NETWORKS
from sklearn.datasets import load_digits
from spikingjelly.activation_based import functional, memopt, neuron
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import reference
import tracegrad as tg
from reference import assert_differ, assert_near, assert_same, gradients, loss_of

TIMES = ("per_step", "mean", "final")

every_mode = pytest.mark.parametrize("mode", ["m", "s"])
every_network = pytest.mark.parametrize("name", NETWORKS)
every_time = pytest.mark.parametrize("time", TIMES)
every_dynamics = pytest.mark.parametrize("dynamics", DYNAMICS.values(), ids=DYNAMICS)


def build(name: str, mode: str) -> nn.Module:
    return jelly.build(name, mode, DYNAMICS["LIF"])


def attached(model: nn.Module, name: str, **method) -> tg.Attachment:
    return tg.attach(model, jelly.frames(name), spiking_input=name != "convolutional", **method)


def fresh_gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    functional.reset_net(model)
    model.zero_grad()
    return gradients(model, x)[0]


# Exact


@pytest.mark.parametrize("name", NETWORKS | ELEMENT_WISE)
@every_time
@every_mode
@every_dynamics
def test_gradients(name: str, time: str, mode: str, dynamics: jelly.Dynamics) -> None:
    model, x = jelly.build(name, mode, dynamics), jelly.frames(name)
    truth = reference.run(jelly.twin(model), x, neuron=dynamics.fire, time=time)
    attachment = attached(model, name, time=time)
    ours, input_gradient = gradients(model, x)
    prefix = "network." if mode == "s" else ""
    assert sorted(attachment.pairs) == [(prefix + a, prefix + b) for a, b in truth.pairs]
    assert_same(ours, {prefix + parameter: gradient for parameter, gradient in truth.gradients.items()}, 1e-10)
    assert_near(input_gradient, truth.input_gradient, 1e-10, "the input's gradient")


@every_network
@every_time
def test_a_loop_over_time_outside_of_the_model(name: str, time: str) -> None:
    model, x = build(name, "s"), jelly.frames(name)
    truth = reference.run(jelly.twin(model), x, neuron=DYNAMICS["LIF"].fire, time=time)
    network = model.network
    tg.attach(network, x[0], spiking_input=name != "convolutional", time=time)
    for _ in range(2):
        network.zero_grad()
        loss_of(torch.stack([network(frame) for frame in x])).backward()
        functional.reset_net(network)
        assert_same({parameter: value.grad for parameter, value in network.named_parameters()}, truth.gradients, 1e-10)


@every_network
@every_time
@every_mode
def test_alpha_zero_is_the_untouched_model(name: str, time: str, mode: str) -> None:
    model, x = build(name, mode), jelly.frames(name)
    untouched = fresh_gradients(deepcopy(model), x)
    attached(model, name, alpha=0.0, time=time)
    assert_same(fresh_gradients(model, x), untouched, 1e-12)


@every_network
@every_time
@every_mode
def test_spikes_and_outputs_are_unchanged_to_the_bit(name: str, time: str, mode: str) -> None:
    model, x = build(name, mode), jelly.frames(name)
    fired: dict[str, list[Tensor]] = {}

    def run(which: nn.Module) -> tuple[Tensor, dict[str, list[Tensor]]]:
        fired.clear()
        return which(x), dict(fired)

    def listen(which: nn.Module) -> None:
        for each, module in which.named_modules():
            if isinstance(module, neuron.BaseNode):
                module.register_forward_hook(lambda _, __, s, each=each: fired.setdefault(each, []).append(s))

    untouched = deepcopy(model)
    attached(model, name, time=time)
    assert model.state_dict().keys() == untouched.state_dict().keys()
    listen(model)
    listen(untouched)
    (ours, our_spikes), (theirs, their_spikes) = run(model), run(untouched)
    assert torch.equal(ours, theirs)
    assert our_spikes.keys() == their_spikes.keys()
    assert any(spikes.any() for each in their_spikes.values() for spikes in each)
    for each, spikes in their_spikes.items():
        assert all(map(torch.equal, our_spikes[each], spikes)), each


@every_network
@every_mode
def test_attach_and_detach_leave_the_model_as_it_was(name: str, mode: str) -> None:
    model, x = build(name, mode), jelly.frames(name)
    untouched, held = deepcopy(model), held_by(model)
    attachment = attached(model, name)
    assert held_by(model) == held, "the example forward pass left memories behind"
    attachment.detach()
    assert_same(fresh_gradients(model, x), fresh_gradients(untouched, x), 0.0)
    hooks = [module._forward_hooks or module._forward_pre_hooks for module in model.modules()]
    assert not any(hooks), "hooks are left"


def held_by(model: nn.Module) -> dict[str, object]:
    modules = {name: module for name, module in model.named_modules() if hasattr(module, "_memories")}
    return {name: (dict(module._memories), module.v_seq) for name, module in modules.items()}


# A forgotten reset


@every_network
@every_mode
def test_a_forgotten_reset_between_training_steps_raises(name: str, mode: str) -> None:
    model, x = build(name, mode), jelly.frames(name)
    attached(model, name)
    expected = gradients(model, x)[0]
    with pytest.raises(RuntimeError, match=r"neuron .*neuron\d .*functional\.reset_net\(model\)"):
        gradients(model, x)
    assert_same(fresh_gradients(model, x), expected, 0.0)


@every_network
def test_a_reset_that_evaluation_forgets_raises_in_training(name: str) -> None:
    model, x = build(name, "m"), jelly.frames(name)
    attached(model, name)
    for _ in range(2):
        with torch.no_grad():
            model(x)
    with pytest.raises(RuntimeError, match=r"functional\.reset_net\(model\)"):
        gradients(model, x)


@every_network
def test_in_single_step_mode_the_traces_last_as_long_as_the_state(name: str) -> None:
    """Steps without gradients count as steps before: the state goes on, and so do the traces."""
    model, x = build(name, "s").eval(), jelly.frames(name, steps=7)
    attachment = attached(model, name, record=True)
    fresh_gradients(model, x)
    whole = attachment.relations.copy()
    functional.reset_net(model)
    with torch.no_grad():
        model(x[:3])
    gradients(model, x[3:])
    for synapse, relation in whole.items():
        assert_near(attachment.relations[synapse], relation[3:], 1e-12, synapse)


@every_network
@every_mode
def test_a_state_from_before_attaching_raises(name: str, mode: str) -> None:
    model, x = build(name, mode), jelly.frames(name)
    model(x)
    attached(model, name)
    with pytest.raises(RuntimeError, match=r"functional\.reset_net\(model\)"):
        gradients(model, x)


@every_network
@every_mode
def test_a_batch_of_another_size_starts_anew_without_a_reset(name: str, mode: str) -> None:
    """As SpikingJelly's neurons themselves do: nothing of the state is left."""
    model, x = build(name, mode), jelly.frames(name)
    attached(model, name)
    expected = fresh_gradients(model, x)
    functional.reset_net(model)
    with torch.no_grad():
        model(jelly.frames(name, batch=2))
    model.zero_grad()
    assert_same(gradients(model, x)[0], expected, 0.0)


@every_network
@every_mode
@pytest.mark.parametrize("when", ["before", "after"])
def test_resets_before_or_after_each_call(name: str, mode: str, when: str) -> None:
    model, x = build(name, mode), jelly.frames(name)
    attached(model, name)
    expected = fresh_gradients(deepcopy(model), x)
    for _ in range(2):
        for calling in (torch.enable_grad, torch.no_grad):
            if when == "before":
                functional.reset_net(model)
            model.zero_grad()
            with calling():
                output = model(x)
            if output.requires_grad:
                loss_of(output).backward()
                assert_same({parameter: value.grad for parameter, value in model.named_parameters()}, expected, 0.0)
            if when == "after":
                functional.reset_net(model)


# Every neuron

NEURONS = {
    "IFNode": partial(neuron.IFNode, v_threshold=0.3),
    "SimpleIFNode": partial(neuron.SimpleIFNode, v_threshold=0.3),
    "HalfThresholdIFNode": partial(neuron.HalfThresholdIFNode, v_threshold=0.3),
    "ActivationAwareIFNode": partial(neuron.ActivationAwareIFNode, v_threshold=0.3),
    "LIFNode": partial(neuron.LIFNode, v_threshold=0.3, store_v_seq=True),
    "SimpleLIFNode": partial(neuron.SimpleLIFNode, tau=2.0, decay_input=True, v_threshold=0.3),
    "ParametricLIFNode": partial(neuron.ParametricLIFNode, v_threshold=0.3),
    "KLIFNode": partial(neuron.KLIFNode, v_threshold=0.3),
    "ComplementaryLIFNode": partial(neuron.ComplementaryLIFNode, v_threshold=0.3),
    "EIFNode": partial(neuron.EIFNode, v_threshold=0.3),
    "QIFNode": partial(neuron.QIFNode, v_threshold=0.3),
    "IzhikevichNode": partial(neuron.IzhikevichNode, v_threshold=0.3),
    "RAFNode": partial(neuron.RAFNode, v_threshold=0.3),
    "PSN": partial(neuron.PSN, 4),
    "MaskedPSN": partial(neuron.MaskedPSN, 2, 4, lambda_init=1.0),
    "SlidingPSN": partial(neuron.SlidingPSN, 2),
    "GatedLIFNode": partial(neuron.GatedLIFNode, 4),
}
MULTI_STEP_ONLY = {"PSN", "GatedLIFNode"}


@every_mode
@pytest.mark.parametrize("kind", NEURONS)
def test_every_neuron_that_fires(kind: str, mode: str) -> None:
    """The spikes are the neuron's own here, as its equations are not what this is about."""
    if mode == "s" and kind in MULTI_STEP_ONLY:
        pytest.skip("has no single-step mode")
    dynamics = jelly.Dynamics(NEURONS[kind], lambda v, z: v, lambda over: over)
    model, x = jelly.build("residual", mode, dynamics), jelly.frames("residual")
    truth = reference.run(jelly.twin(model, neurons=True), x, neuron=None)
    attachment = attached(model, "residual")
    assert len(attachment.pairs) == 5, str(attachment)
    ours = gradients(model, x)[0]
    for parameter, gradient in truth.gradients.items():
        assert_near(ours["network." * (mode == "s") + parameter], gradient, 1e-10, parameter)
    assert truth.spikes["neuron4"].any(), "the case is void: nothing fires"


# Training


@every_mode
def test_three_epochs_on_digits(mode: str) -> None:
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    model = jelly.digits_network(mode)
    tg.attach(model, images[:1].expand(4, -1, -1, -1, -1))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(3):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch].expand(4, -1, -1, -1, -1)).mean(0), labels[batch]).backward()
            optimizer.step()
            functional.reset_net(model)
    with torch.no_grad():
        right = model(images.expand(4, -1, -1, -1, -1)).mean(0).argmax(1) == labels
    assert right.float().mean() > 0.9, f"accuracy {right.float().mean():.2%} on its own training data"


@every_network
@every_time
@every_mode
def test_micro_batches_add_up_to_the_sum_of_their_own_scaled_gradients(name: str, time: str, mode: str) -> None:
    model = build(name, mode)
    batches = [jelly.frames(name, seed=1), jelly.frames(name, batch=2, seed=2)]
    attached(model, name, time=time, alpha=0.5)
    apart = [fresh_gradients(model, batch) for batch in batches]
    model.zero_grad()
    for batch in batches:
        functional.reset_net(model)
        loss_of(model(batch)).backward()
    together = {parameter: value.grad for parameter, value in model.named_parameters()}
    assert_same(together, {parameter: apart[0][parameter] + apart[1][parameter] for parameter in together}, 1e-12)


class Checkpointed(nn.Module):
    """A network in one checkpoint of PyTorch's."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.network, x, use_reentrant=False)


@every_network
@every_time
@every_mode
def test_the_librarys_checkpoints_change_no_gradient(name: str, time: str, mode: str) -> None:
    plain = build(name, mode)
    wrapped, x = nn.Sequential(memopt.checkpoint_module(deepcopy(plain))), jelly.frames(name)
    untouched = fresh_gradients(deepcopy(plain), x)
    for model in (plain, wrapped):
        attached(model, name, time=time, alpha=0.5)
    expected = fresh_gradients(plain, x)
    got = fresh_gradients(wrapped, x)
    assert_same(
        {parameter.removeprefix("0._checkpoint_wrapped_module."): g for parameter, g in got.items()}, expected, 1e-12
    )
    assert_differ(expected, untouched)


@every_network
@every_mode
def test_pytorchs_checkpoints_around_neurons_are_wrong_without_scaling(name: str, mode: str) -> None:
    """Recomputed neurons go on with the memory that the forward pass left; SpikingJelly's own checkpoints don't."""
    model, x = build(name, mode), jelly.frames(name)
    right = fresh_gradients(deepcopy(model), x)
    wrong = fresh_gradients(Checkpointed(model), x)
    assert_differ({parameter.removeprefix("network."): gradient for parameter, gradient in wrong.items()}, right)


@every_network
@every_time
def test_pytorchs_checkpoints_around_neurons_are_refused(name: str, time: str) -> None:
    model, x = Checkpointed(build(name, "m")), jelly.frames(name)
    attached(model, name, time=time)
    output = model(x)
    with pytest.raises(RuntimeError, match="use the library's own checkpoints"):
        loss_of(output).backward()


class Segmented(nn.Module):
    """A convolution and a norm in one checkpoint of PyTorch's."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.layers, x, use_reentrant=False)


@every_time
@every_mode
def test_pytorchs_checkpoints_around_layers_without_state_change_no_gradient(time: str, mode: str) -> None:
    plain, x = build("residual", mode), jelly.frames("residual")
    segmented = deepcopy(plain)
    network = segmented.network if mode == "s" else segmented
    for place in "1234":
        convolution, norm = network.get_submodule(f"conv{place}"), network.get_submodule(f"norm{place}")
        setattr(network, f"conv{place}", Segmented(convolution, norm))
        setattr(network, f"norm{place}", nn.Identity())
    for model in (plain, segmented):
        attached(model, "residual", time=time, alpha=0.5)
    expected, got = fresh_gradients(plain, x), fresh_gradients(segmented, x)
    for place in "1234":
        prefix = "network." * (mode == "s")
        ours = got[f"{prefix}conv{place}.layers.0.weight"]
        assert_near(ours, expected[f"{prefix}conv{place}.weight"], 1e-12, f"conv{place}")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of states, by the compiler
@every_network
@every_time
@every_mode
def test_compiled(name: str, time: str, mode: str) -> None:
    torch._dynamo.reset()
    model, x = build(name, mode), jelly.frames(name)
    untouched = fresh_gradients(deepcopy(model), x)
    attached(model, name, time=time, alpha=0.5)
    expected = fresh_gradients(model, x)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=mode == "m")
    for _ in range(2):
        functional.reset_net(model)
        model.zero_grad()
        loss_of(compiled(x)).backward()
        assert_same({parameter: value.grad for parameter, value in model.named_parameters()}, expected, 1e-10)
    assert_differ(expected, untouched)


@every_network
@every_time
@every_mode
def test_autocast(name: str, time: str, mode: str) -> None:
    """Of the same spikes, R differs from float32's by bf16's rounding; so does the gradient of what is scaled."""
    model, x = build(name, mode).float(), jelly.frames(name).float()
    scaled = deepcopy(model)
    attachment = tg.attach(scaled, x, spiking_input=name != "convolutional", time=time, alpha=1.0, record=True)

    def in_bf16(which: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        functional.reset_net(which)
        which.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            output = which(x)
        loss_of(output.float()).backward()
        return output, {parameter: value.grad for parameter, value in which.named_parameters()}

    (theirs, untouched), (ours, got) = in_bf16(model), in_bf16(scaled)
    assert torch.equal(ours, theirs), "autocast outputs differ"
    weights = {f"{synapse}.weight" for synapse, _ in attachment.pairs}
    for parameter in got.keys() - weights:
        assert_near(got[parameter], untouched[parameter], 1e-6, parameter)
    for synapse, _ in attachment.pairs:
        relation, gradient = attachment.relations[synapse], untouched[f"{synapse}.weight"]
        assert relation.min() >= 0
        assert relation.max() == 1
        if time != "per_step":
            assert_near(got[f"{synapse}.weight"], gradient * relation, 0.02, synapse)
