from dataclasses import replace

import pytest
from tracegrad_benchmark.competitors.relu import CONTESTANTS
from tracegrad_benchmark.memory import can_measure, peak_memory
from tracegrad_benchmark.workload import Workload

pytestmark = pytest.mark.skipif(not can_measure("cpu"), reason="reads /proc")


def test_peak_holds_at_least_what_the_backward_pass_needs():
    workload = Workload(batch=64, width=8, image_size=32, blocks=(1,))
    activation = 4 * 64 * 8 * 32 * 32 * 4  # bytes of one layer's output
    # Kept for the backward pass: inputs of four norms, and outputs of three ReLUs, the next convolutions' inputs.
    assert 7 * activation < peak_memory(CONTESTANTS[0], workload) < 20 * activation + 2**27


def test_a_process_that_fails_is_named():
    with pytest.raises(RuntimeError, match="the memory of nobody, float32 could not be measured: StopIteration"):
        peak_memory(replace(CONTESTANTS[0], library="nobody"), Workload())
