import math

import pytest
import torch

import tracegrad as tg
from tracegrad.methods.objectives import OBJECTIVES, Objective

OUTPUTS = torch.tensor([[[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]], [[3.0, 1.0, 0.0], [1.0, 0.0, 0.5]]], dtype=torch.float64)


def cross_entropy(scores: list[list[float]], target: list[list[float]]) -> float:
    losses = []
    for row, probabilities in zip(scores, target, strict=True):
        normaliser = math.log(sum(math.exp(score) for score in row))
        losses.append(-sum(p * (score - normaliser) for p, score in zip(probabilities, row, strict=True)))
    return sum(losses) / len(losses)


READ = {
    "mean_cross_entropy": [[2.0, 0.5, -0.5], [0.5, 1.0, 0.25]],
    "membrane_cross_entropy": [[3.9, 1.0, -0.9], [1.0, 1.8, 0.5]],
}


@pytest.mark.parametrize("name", READ)
def test_cross_entropy_of_what_is_read(name: str) -> None:
    objective = getattr(tg.objectives, name)
    classes, mixed = torch.tensor([0, 2]), torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5]], dtype=torch.float64)
    one_hot = [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    assert objective(OUTPUTS, classes).item() == pytest.approx(cross_entropy(READ[name], one_hot))
    assert objective(OUTPUTS, mixed).item() == pytest.approx(cross_entropy(READ[name], mixed.tolist()))


@pytest.mark.parametrize(("lam", "phi"), [(0.0, 1.0), (1e-3, 1.0), (0.3, -0.5)])
def test_tet_is_its_formula(lam: float, phi: float) -> None:
    objective = tg.objectives.TemporalEfficientTraining(lam, phi)
    steps = OUTPUTS.tolist()
    error = sum((o - phi) ** 2 for step in steps for row in step for o in row) / OUTPUTS.numel()
    mixed = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5]], dtype=torch.float64)
    for target, probabilities in ((torch.tensor([0, 2]), [[1, 0, 0], [0, 0, 1]]), (mixed, mixed.tolist())):
        entropy = sum(cross_entropy(step, probabilities) for step in steps) / len(steps)
        assert objective(OUTPUTS, target).item() == pytest.approx((1 - lam) * entropy + lam * error, rel=1e-14)
    assert torch.equal(objective.readout(OUTPUTS), OUTPUTS.mean(0))


def test_tet_by_name_is_without_regularisation() -> None:
    assert OBJECTIVES["tet"] is tg.objectives.tet
    assert tg.objectives.tet == tg.objectives.TemporalEfficientTraining(lam=0.0, phi=1.0)
    with pytest.raises(ValueError, match=r"lam must be in \[0, 1\], not 1.5"):
        tg.objectives.TemporalEfficientTraining(lam=1.5)


@pytest.mark.parametrize("objective", [tg.objectives.mean_cross_entropy, tg.objectives.tet])
def test_shapes_that_do_not_belong_together(objective: Objective) -> None:
    with pytest.raises(ValueError, match=r"outputs must be \[T, B, K\] .* \[2, 2, 3\] and \[3\]"):
        objective(OUTPUTS, torch.tensor([0, 1, 2]))
