"""Scaled gradients of networks as official code writes them, against one copy of the weight per step, float64."""

import architecture
import attention
import changing_time
import encoders
import mixed
import own_models
import pools
import pytest
import recurrent
import recurrent_libraries
import shortcuts
import time_orders
import volumes
import weights_in_use
from architecture import Architecture

ARCHITECTURES = {
    **time_orders.ARCHITECTURES,
    **changing_time.ARCHITECTURES,
    **shortcuts.ARCHITECTURES,
    **weights_in_use.ARCHITECTURES,
    **attention.ARCHITECTURES,
    **recurrent.ARCHITECTURES,
    **recurrent_libraries.ARCHITECTURES,
    **encoders.ARCHITECTURES,
    **pools.ARCHITECTURES,
    **volumes.ARCHITECTURES,
    **mixed.ARCHITECTURES,
    **own_models.ARCHITECTURES,
}

every_case = pytest.mark.parametrize("case", ARCHITECTURES.values(), ids=ARCHITECTURES)
every_time = pytest.mark.parametrize("time", ["per_step", "mean", "final"])


@every_case
def test_the_reference_is_the_network(case: Architecture) -> None:
    architecture.shows_that_the_reference_is_the_network(case)


@every_case
@every_time
def test_the_case_is_not_void(case: Architecture, time: str) -> None:
    architecture.shows_that_the_case_is_not_void(case, time)


@every_case
def test_pairs_and_reasons(case: Architecture) -> None:
    architecture.shows_its_pairs_and_reasons(case)


@every_case
@every_time
def test_gradients(case: Architecture, time: str) -> None:
    architecture.shows_exact_gradients(case, time)


@pytest.mark.parametrize("name", ["batch-first-dense", "time-last-stacked", "speech", "hand-loop", "steps-then-all"])
@every_time
def test_gradients_of_longer_sequences_than_that_of_attach(name: str, time: str) -> None:
    architecture.shows_exact_gradients(ARCHITECTURES[name], time, steps=7)


@every_case
@every_time
def test_relations(case: Architecture, time: str) -> None:
    architecture.shows_exact_relations(case, time)


@every_case
@every_time
def test_alpha_zero_is_the_baseline(case: Architecture, time: str) -> None:
    architecture.shows_the_baseline_at_alpha_zero(case, time)


@every_case
@every_time
def test_outputs_are_unchanged_to_the_bit(case: Architecture, time: str) -> None:
    architecture.shows_the_same_outputs_to_the_bit(case, time)
