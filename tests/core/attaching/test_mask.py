"""`attachment.mask`: what is no mask, and how long one counts. Gradients: tests/architectures/test_masks.py."""

import pytest
import torch
from architecture import assert_equal_gradients
from torch import Tensor

import tracegrad as tg
from attaching.models import FORMS, AtOnce, B, T, attach, build, frames, gradients, scaled_gradients
from reference import assert_differ, loss_of

every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
SHORT = torch.arange(T)[:, None] < torch.tensor([4, 2, 3])
OTHER = ~SHORT | torch.tensor([True, False, False])


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.ones(T, B), TypeError, r"a mask is a tensor of bool, True where a step counts, not torch\.float32"),
        (torch.ones(T, B, dtype=torch.long), TypeError, r"not torch\.int64"),
        ([[True] * B] * T, TypeError, "not list"),
        (None, TypeError, "not NoneType"),
        (torch.tensor(True), ValueError, r"a mask is \[T, B\] or \[B\], not of shape \[\]"),
        (torch.ones(T, B, 6, dtype=torch.bool), ValueError, r"not of shape \[4, 3, 6\]"),
    ],
    ids=["float", "integer", "list", "none", "number", "three dimensions"],
)
def test_what_is_no_mask_is_told_before_the_forward_pass(mask: object, error: type[Exception], message: str) -> None:
    a = attach(build())
    with pytest.raises(error, match=message), a.mask(mask):
        raise AssertionError("the block has begun")


@every_form
@pytest.mark.parametrize("shape", [(T, B - 1), (T, B + 1), (B + 1,), (B - 1,), (T - 1, B), (1, B)], ids=str)
def test_a_mask_of_another_shape_is_told_in_the_forward_pass(form: type[AtOnce], shape: tuple[int, ...]) -> None:
    model = build(form)
    a = attach(model)
    message = rf"the mask has shape \[{', '.join(map(str, shape))}\], but \d steps? of 3 examples pass"
    with pytest.raises(ValueError, match=message), a.mask(torch.ones(shape, dtype=torch.bool)):
        model(frames())
    assert_equal_gradients(gradients(model), scaled_gradients(form), 1e-12)  # nothing of it is left


def test_all_steps_at_once_need_as_many_rows() -> None:
    model = build()
    a = attach(model)
    mask = torch.ones(T + 1, B, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"it must be \[T, 3\] with T = 4, or \[3\]"), a.mask(mask):
        model(frames())


def masked(form: type[AtOnce], mask: Tensor) -> dict[str, Tensor]:
    model = build(form)
    with attach(model).mask(mask):
        return gradients(model)


@every_form
def test_masks_within_each_other(form: type[AtOnce]) -> None:
    """The inner one counts inside, the outer one around it, and none behind it."""
    model = build(form)
    a = attach(model)
    with a.mask(SHORT):
        assert_equal_gradients(gradients(model), masked(form, SHORT), 1e-12)
        with a.mask(OTHER):
            assert_equal_gradients(gradients(model), masked(form, OTHER), 1e-12)
        assert_equal_gradients(gradients(model), masked(form, SHORT), 1e-12)
    assert_equal_gradients(gradients(model), scaled_gradients(form), 1e-12)
    assert_differ(masked(form, SHORT), masked(form, OTHER))
    assert_differ(masked(form, SHORT), scaled_gradients(form))


@every_form
def test_a_mask_ends_with_its_block_also_where_that_fails(form: type[AtOnce]) -> None:
    model = build(form)
    a = attach(model)
    with pytest.raises(ZeroDivisionError), a.mask(SHORT):
        1 / 0  # noqa: B018
    assert_equal_gradients(gradients(model), scaled_gradients(form), 1e-12)


@every_form
def test_a_backward_pass_behind_the_block_goes_by_the_forward_pass(form: type[AtOnce]) -> None:
    model = build(form)
    a = attach(model)
    with a.mask(SHORT):
        output = model(frames())
    with a.mask(OTHER):
        loss_of(output).backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert_equal_gradients(found, masked(form, SHORT), 1e-12)


@every_form
@pytest.mark.parametrize("time", ["per_step", "mean", "final"])
def test_a_mask_and_a_part_of_the_batch(form: type[AtOnce], time: str) -> None:
    """R of the first two examples, as far as they count: as if the third did not count at all."""
    model, whole = build(form), build(form)
    part = tg.attach(model, frames(), spiking_input=True, alpha=0.5, time=time, relation_batch=0.6)
    all_of_it = attach(whole, time=time)
    without_third = SHORT & torch.tensor([True, True, False])
    with part.mask(SHORT), all_of_it.mask(without_third):
        assert_equal_gradients(gradients(model), gradients(whole), 1e-12)
    assert_differ(gradients(model), gradients(whole))


@pytest.mark.parametrize(
    "time", ["per_step", *(pytest.param(each, marks=pytest.mark.slow) for each in ("mean", "final"))]
)
def test_masks_of_a_compiled_model(time: str) -> None:
    torch._dynamo.reset()
    model = build()
    a = attach(model, time=time)
    compiled = torch.compile(model, backend="aot_eager")
    assert_equal_gradients(gradients(compiled), scaled_gradients(time=time), 1e-10)
    for mask in (SHORT, OTHER):
        twin = build()
        with a.mask(mask), attach(twin, time=time).mask(mask):
            assert_equal_gradients(gradients(compiled), gradients(twin), 1e-10)
    assert_equal_gradients(gradients(compiled), scaled_gradients(time=time), 1e-10)
