"""What may happen to a model while scaling is attached: it is moved, loaded, copied, frozen, exported."""

import copy
from collections.abc import Callable

import pytest
import torch
from architecture import assert_equal_gradients
from spiking import TimeFirst, folded
from torch import Tensor, nn

import tracegrad as tg
from attaching.models import FORMS, SCALED, AtOnce, attach, build, frames, gradients, scaled_gradients
from reference import assert_differ, loss_of

every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
every_time = pytest.mark.parametrize("time", ["per_step", "mean", "final"])


@every_form
@every_time
def test_another_precision(form: type[AtOnce], time: str) -> None:
    model = build(form).float()
    tg.attach(model, frames().float(), spiking_input=True, alpha=0.5, time=time)
    rounded = {name: value.double() for name, value in model.state_dict().items()}
    twin = build(form)
    twin.load_state_dict(rounded)
    attach(twin, time=time)
    assert_equal_gradients(gradients(model.double()), gradients(twin), 1e-12)


def checkpoint_of(form: type[AtOnce]) -> dict[str, Tensor]:
    return build(form, seed=7).state_dict()


LOADS: dict[str, Callable[[nn.Module, dict[str, Tensor]], object]] = {
    "load_state_dict": lambda model, state: model.load_state_dict(state, strict=True),
    "assigned": lambda model, state: model.load_state_dict(state, strict=True, assign=True),
    "new parameters": lambda model, state: [
        setattr(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], nn.Parameter(value))
        for name, value in state.items()
    ],
}


@every_form
@every_time
@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_a_checkpoint_of_a_model_that_was_not_attached(form: type[AtOnce], time: str, load: Callable) -> None:
    model, twin = build(form), build(form, seed=7)
    attach(model, time=time)
    gradients(model)
    load(model, checkpoint_of(form))
    attach(twin, time=time)
    assert_equal_gradients(gradients(model), gradients(twin), 0.0)


@every_form
def test_a_checkpoint_of_an_attached_model_fits_one_that_is_not(form: type[AtOnce]) -> None:
    model, plain = build(form), build(form, seed=7)
    attach(model)
    gradients(model)
    plain.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(plain(frames()), model(frames()))


@every_form
@every_time
def test_parameters_from_elsewhere(form: type[AtOnce], time: str) -> None:
    """As torch.func.functional_call puts them in for one call."""
    model, twin = build(form), build(form, seed=7)
    attach(model, time=time)
    attach(twin, time=time)
    parameters = {name: value.detach().clone().requires_grad_() for name, value in twin.named_parameters()}
    loss_of(torch.func.functional_call(model, parameters, (frames(),))).backward()
    found = {name: parameter.grad for name, parameter in parameters.items()}
    assert_equal_gradients(found, gradients(twin), 0.0)


@every_form
@every_time
def test_a_deep_copy_has_an_alpha_of_its_own(form: type[AtOnce], time: str) -> None:
    """Copied while the graph of a forward pass lives, as for an average of weights."""
    model = build(form)
    a = attach(model, time=time)
    loss = loss_of(model(frames()))
    for neuron in (model.n0, model.n1):
        if hasattr(neuron, "reset"):
            neuron.reset()  # a tensor with a graph can't be copied
    duplicate = copy.deepcopy(model)
    loss.backward()
    expected = scaled_gradients(form, time=time)
    assert_equal_gradients({name: parameter.grad for name, parameter in model.named_parameters()}, expected, 1e-12)
    a.alpha = 0.0
    assert_equal_gradients(gradients(duplicate), expected, 1e-12)
    a.detach()
    assert_equal_gradients(gradients(duplicate), expected, 1e-12)
    assert_equal_gradients(gradients(model), gradients(build(form)), 1e-12)


@every_form
def test_weights_that_are_frozen_and_thawed(form: type[AtOnce]) -> None:
    expected, model = scaled_gradients(form), build(form)
    attach(model)
    for name in SCALED:
        model.zero_grad()
        weight = model.get_submodule(name).weight.requires_grad_(False)
        found = gradients(model)
        assert found.pop(f"{name}.weight") is None
        assert_equal_gradients(found, {key: expected[key] for key in found}, 1e-12)
        weight.requires_grad_(True)
    assert_equal_gradients(gradients(model), expected, 1e-12)


@every_form
def test_weights_that_were_frozen_at_attach_and_train_later(form: type[AtOnce]) -> None:
    model = build(form)
    model.a.weight.requires_grad_(False)
    a = attach(model)
    assert ("a", "n0") in a.pairs
    model.a.weight.requires_grad_(True)
    assert_equal_gradients(gradients(model), scaled_gradients(form), 1e-12)


class Normed(nn.Module):
    """Layers that differ between training and evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.n0 = nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), TimeFirst()
        self.dropout, self.b, self.n1 = nn.Dropout(0.4), nn.Linear(8, 7), TimeFirst()

    def forward(self, x: Tensor) -> Tensor:
        s = self.dropout(self.n0(folded(self.norm, self.a(x))))
        return self.n1(self.b(s))


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_training_and_evaluation_mode(mode: bool) -> None:
    """Attached in either mode, it trains, and evaluates, as if attached in the other one."""
    found = []
    for attached_in in (True, False):
        torch.manual_seed(0)
        model = Normed().double().train(attached_in)
        buffers = copy.deepcopy(dict(model.named_buffers()))
        attach(model)
        assert model.training == attached_in
        assert model.dropout.training == attached_in
        assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers()), "a buffer has changed"
        found.append(gradients(model.train(mode)))
    assert_equal_gradients(*found, 0.0)
    plain = Normed().double()
    plain.load_state_dict(model.state_dict())
    assert_differ(found[0], gradients(plain.train(mode)))


@every_form
def test_attached_where_gradients_are_off(form: type[AtOnce]) -> None:
    model = build(form)
    with torch.no_grad():
        a = attach(model)
        assert torch.is_grad_enabled() is False
        model(frames())
    assert a.pairs == [("a", "n0"), ("b", "n1")]
    assert_equal_gradients(gradients(model), scaled_gradients(form), 1e-12)


# Exported, once scaling is off


@pytest.mark.filterwarnings("ignore:The tensor attributes .* assigned during export")  # a neuron's membrane
@every_form
def test_torch_export_after_detach(form: type[AtOnce]) -> None:
    model, x = build(form), frames()
    expected, plain = model(x), str(torch.export.export(build(form), (x,)).graph)
    attach(model)
    gradients(model)
    tg.detach(model)
    for neuron in (model.n0, model.n1):
        if hasattr(neuron, "reset"):
            neuron.reset()
    exported = torch.export.export(model, (x,))
    assert str(exported.graph) == plain, "something of the scaling is left in the graph"
    torch.testing.assert_close(exported.module()(x), expected, rtol=0, atol=1e-12)


def test_onnx_after_detach(tmp_path) -> None:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason=f"torch.onnx.export needs {package}")
    model, x = build().float(), frames().float()
    tg.attach(model, x, spiking_input=True).detach()
    torch.onnx.export(model, (x,), tmp_path / "model.onnx", dynamo=True)
    assert (tmp_path / "model.onnx").stat().st_size > 0
