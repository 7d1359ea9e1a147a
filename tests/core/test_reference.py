"""The reference that the exact tests rely on, checked without the package."""

from copy import deepcopy

import pytest
from networks import CASES, DYNAMICS, Case
from torch import nn

import reference

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_dynamics = pytest.mark.parametrize("dynamics", DYNAMICS.values(), ids=DYNAMICS)


def network(case: Case, dynamics: dict) -> nn.Module:
    return case.network(lambda: reference.LIF(**dynamics))


@every_case
@every_dynamics
def test_alpha_zero_is_plain_autograd(case: Case, dynamics: dict) -> None:
    model, x = network(case, dynamics), case.input()
    for time in ("per_step", "mean", "final"):
        truth = reference.run(model, x, alpha=0.0, time=time, **dynamics)
        reference.assert_gradients(deepcopy(model), x, truth, bound=1e-12)


@every_case
@every_dynamics
def test_cases_fire_and_scaling_changes_their_gradients(case: Case, dynamics: dict) -> None:
    model, x = network(case, dynamics), case.input()
    truth = reference.run(model, x, **dynamics)
    for name, spikes in truth.spikes.items():
        assert 0.02 < spikes.mean() < 0.98, f"{name} fires at a rate of {spikes.mean():.3f}: the case tests little"
    plain = reference.run(model, x, alpha=0.0, **dynamics)
    for name in truth.relations:
        scaled, unscaled = truth.gradients[f"{name}.weight"], plain.gradients[f"{name}.weight"]
        assert (scaled - unscaled).abs().max() > 1e-3 * unscaled.abs().max(), f"scaling does nothing to {name}"
