import math

import pytest
import torch

import tracegrad as tg

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


def test_shapes_that_do_not_belong_together() -> None:
    with pytest.raises(ValueError, match=r"outputs must be \[T, B, K\] .* \[2, 2, 3\] and \[3\]"):
        tg.objectives.mean_cross_entropy(OUTPUTS, torch.tensor([0, 1, 2]))
