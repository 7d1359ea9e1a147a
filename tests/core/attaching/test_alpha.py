"""`attachment.alpha`: set at any time, for all synapses or some, and kept by `state_dict`."""

from decimal import Decimal
from fractions import Fraction

import pytest
import torch
from architecture import assert_equal_gradients
from torch import Tensor

from attaching.models import FORMS, SCALED, AtOnce, attach, build, frames, gradients, scaled_gradients
from reference import assert_differ, loss_of

every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
every_time = pytest.mark.parametrize("time", ["per_step", "mean", "final"])


def mixed(form: type[AtOnce], time: str, alphas: dict[str, float]) -> dict[str, Tensor]:
    """The gradient of each layer from a network with that layer's alpha throughout."""
    gradients = {name: scaled_gradients(form, time=time, alpha=alpha) for name, alpha in alphas.items()}
    found = scaled_gradients(form, time=time)
    return {name: gradients.get(name.partition(".")[0], found)[name] for name in found}


@every_form
@every_time
def test_alpha_counts_from_the_next_backward_pass_on(form: type[AtOnce], time: str) -> None:
    model = build(form)
    a = attach(model, time=time, alpha=0.1)
    gradients(model)
    for alpha in (0.9, 0.0, 1.0):
        output = model(frames())
        a.alpha = alpha  # the forward pass has run
        assert a.alpha == alpha
        model.zero_grad()
        loss_of(output).backward()
        ours = {name: parameter.grad for name, parameter in model.named_parameters()}
        assert_equal_gradients(ours, scaled_gradients(form, time=time, alpha=alpha), 1e-12)
    assert_differ(scaled_gradients(form, time=time, alpha=1.0), scaled_gradients(form, time=time, alpha=0.0))


@every_form
@every_time
def test_alpha_of_some_synapses(form: type[AtOnce], time: str) -> None:
    model = build(form)
    a = attach(model, time=time, alpha=0.1)
    a.alpha = {"b": 0.9}
    assert a.alpha == {"a": 0.1, "b": 0.9}
    expected = mixed(form, time, {"a": 0.1, "b": 0.9})
    assert_equal_gradients(gradients(model), expected, 1e-12)
    assert_differ(expected, scaled_gradients(form, time=time, alpha=0.1))
    a.alpha = {"a": 0.9}
    assert a.alpha == 0.9


@pytest.mark.parametrize("alpha", [1, True, Fraction(1, 2)], ids=str)
def test_any_real_number_is_kept_as_a_float(alpha: float) -> None:
    a = attach(build())
    a.alpha = alpha
    assert (type(a.alpha), a.alpha) == (float, float(alpha))


@pytest.mark.parametrize(
    ("alpha", "error", "message"),
    [
        (1.5, ValueError, r"alpha must be in \[0, 1\], not 1.5"),
        (-0.1, ValueError, r"not -0.1"),
        (float("nan"), ValueError, r"not nan"),
        ({"b": 2}, ValueError, r"not 2"),
        ("0.3", TypeError, r"alpha must be a number in \[0, 1\], not '0.3'"),
        (None, TypeError, r"not None"),
        (Decimal("0.5"), TypeError, r"not Decimal"),
        (torch.tensor(0.3), TypeError, r"not tensor\(0.3"),
        ({"a": [0.1]}, TypeError, r"not \[0.1\]"),
        ({"head": 0.1}, ValueError, r"'head' is no synapse that is scaled; these are a, b"),
        ({"a": 0.3, "c": 0.1}, ValueError, r"'c' is no synapse"),
    ],
    ids=str,
)
def test_a_wrong_alpha_changes_nothing(alpha: object, error: type[Exception], message: str) -> None:
    a = attach(build(), alpha=0.1)
    with pytest.raises(error, match=message):
        a.alpha = alpha
    assert a.alpha == 0.1


@pytest.mark.parametrize("alpha", ["0.3", None, torch.tensor(0.3)], ids=str)
def test_a_wrong_alpha_at_attach(alpha: object) -> None:
    with pytest.raises(TypeError, match=r"alpha must be a number in \[0, 1\]"):
        attach(build(), alpha=alpha)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch.compile's own
@every_form
@pytest.mark.parametrize(
    "time", ["per_step", *(pytest.param(each, marks=pytest.mark.slow) for each in ("mean", "final"))]
)
def test_alpha_of_a_compiled_model(form: type[AtOnce], time: str) -> None:
    """Each new alpha counts; many of them, as in a schedule, compile no more than a few times."""
    torch._dynamo.reset()
    model, graphs = build(form), []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]):
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    a = attach(model, time=time, alpha=0.1)
    compiled = torch.compile(model, backend=backend)
    for alpha in (0.1, 0.9, 0.3, 0.0, 1.0):
        a.alpha = alpha
        assert_equal_gradients(gradients(compiled), scaled_gradients(form, time=time, alpha=alpha), 1e-10)
    many = len(graphs)
    for alpha in range(10):
        a.alpha = alpha / 20
        gradients(compiled)
    assert len(graphs) == many, f"ten more alphas compiled {len(graphs) - many} more graphs"
    a.alpha = {"b": 0.9, "a": 0.1}
    assert_equal_gradients(gradients(compiled), mixed(form, time, {"a": 0.1, "b": 0.9}), 1e-10)


# What a resumed training needs


def test_the_state_of_an_attachment_goes_through_a_file(tmp_path) -> None:
    first, second = build(), build(seed=1)
    a, b = attach(first, alpha=0.1), attach(second, alpha=0.7)
    assert list(first.state_dict()) == list(build().state_dict()), "the model's own keys have changed"
    a.alpha = {"b": 0.9}
    torch.save({"model": first.state_dict(), "attachment": a.state_dict()}, tmp_path / "checkpoint.pt")
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    second.load_state_dict(checkpoint["model"])
    b.load_state_dict(checkpoint["attachment"])
    assert b.alpha == {"a": 0.1, "b": 0.9}
    assert_equal_gradients(gradients(second), gradients(first), 0.0)


def test_a_state_is_a_copy() -> None:
    a = attach(build(), alpha=0.1)
    state = a.state_dict()
    a.alpha = 0.9
    assert state == {"alpha": dict.fromkeys(SCALED, 0.1)}
    state["alpha"]["a"] = 0.5
    assert a.alpha == 0.9


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "not the state of an attachment, which has the key 'alpha'"),
        (build().state_dict(), "not the state of an attachment, which has the key 'alpha': a.weight"),
        ({"alpha": {"a": 0.1, "c": 0.1}}, "'c' is no synapse that is scaled; these are a, b"),
        ({"alpha": {"a": 7.0}}, r"alpha must be in \[0, 1\], not 7"),
    ],
    ids=["empty", "a model's", "another model's", "outside"],
)
def test_a_state_that_does_not_fit(state: dict, message: str) -> None:
    a = attach(build(), alpha=0.1)
    with pytest.raises(ValueError, match=message):
        a.load_state_dict(state)
    assert a.alpha == 0.1
