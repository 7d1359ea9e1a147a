"""The table that chooses a way."""

from itertools import product

import pytest
import torch

from tracegrad.events.choice import BREAK_EVEN, Events, Mode, Operation, break_even, can_pay, cost, mode
from tracegrad.events.library import INSTRUCTION_SETS

OPERATIONS: tuple[Operation, ...] = ("current", "weight")


def test_the_table_has_a_row_for_every_case_and_no_other() -> None:
    kinds = product(INSTRUCTION_SETS, ("bf16", "float32"), OPERATIONS, ("1x1", "larger"))
    assert set(BREAK_EVEN) == set(kinds)
    assert all(0 <= rate < 1 for row in BREAK_EVEN.values() for rate in row)


@pytest.mark.parametrize(("outputs", "column"), [(1, 0), (16, 0), (17, 1), (32, 1), (33, 2), (255, 2), (256, 3)])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_break_even_is_read_by_the_channels_that_come_out(outputs: int, column: int, operation: Operation) -> None:
    found = break_even(operation, torch.Size((outputs, 512, 3, 3)), torch.bfloat16, "avx2")
    assert found == BREAK_EVEN["avx2", "bf16", operation, "larger"][column]
    of_smaller_end = break_even(operation, torch.Size((512, outputs, 1, 1)), torch.float32, "avx2")
    assert of_smaller_end == BREAK_EVEN["avx2", "float32", operation, "1x1"][column]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_way_depends_on_the_rate_and_not_on_threads(operation: Operation) -> None:
    size, before = torch.Size((64, 64, 3, 3)), torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            rare, frequent = (cost(operation, rate, size, 1024, torch.float32) for rate in (0.05, 0.95))
            assert rare < 1 < frequent
            assert cost(operation, 0.05, size, 16, torch.float32) > 1, "of so few positions the call takes longer"
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("instruction_set", "dtype", "outputs", "size", "expected"),
    [
        ("amx_bf16", torch.bfloat16, 256, 32, False),  # the dense way is faster at any rate
        ("amx_bf16", torch.float32, 64, 32, True),
        ("avx512_bf16", torch.bfloat16, 64, 32, True),
        ("avx512_bf16", torch.bfloat16, 64, 4, False),  # the calls take longer
    ],
)
def test_spikes_are_packed_only_where_that_can_pay(
    monkeypatch: pytest.MonkeyPatch,
    instruction_set: str,
    dtype: torch.dtype,
    outputs: int,
    size: int,
    expected: bool,
) -> None:
    monkeypatch.setattr("tracegrad.events.choice.machine_instruction_set", lambda: instruction_set)
    assert can_pay(torch.Size((4, 64, size, size)), torch.Size((outputs, 64, 3, 3)), dtype) is expected


@pytest.mark.parametrize(
    ("said", "events", "expected"),
    [
        (None, "auto", "auto"),
        ("auto", "auto", "auto"),
        ("0", "auto", "off"),
        ("1", "auto", "always"),
        ("auto", True, "always"),
        ("auto", False, "off"),
        ("0", True, "off"),
        ("1", False, "off"),
    ],
)
def test_the_caller_and_the_environment_say_when(
    monkeypatch: pytest.MonkeyPatch, said: str | None, events: Events, expected: Mode
) -> None:
    monkeypatch.delenv("TRACEGRAD_EVENTS", raising=False)
    if said is not None:
        monkeypatch.setenv("TRACEGRAD_EVENTS", said)
    assert mode(events) == expected


def test_what_is_none_of_these_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="events must be True, False or 'auto', not 'yes'"):
        mode("yes")  # pyright: ignore[reportArgumentType]
    monkeypatch.setenv("TRACEGRAD_EVENTS", "yes")
    with pytest.raises(ValueError, match="TRACEGRAD_EVENTS must be 0, 1 or auto, not 'yes'"):
        mode()
