"""The table that chooses a way."""

from itertools import product

import pytest
import torch

from tracegrad.events.choice import BREAK_EVEN, Operation, break_even, pays
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
            assert pays(operation, 0.05, size, torch.float32, "auto")
            assert not pays(operation, 0.95, size, torch.float32, "auto")
            assert pays(operation, 1.0, size, torch.float32, "always")
    finally:
        torch.set_num_threads(before)
