import io

import pytest
import torch
from matplotlib.image import imread

from tracegrad.lab.report.evaluation import Layer, Mistake, RunEvaluation
from tracegrad.lab.report.style import to_png


def evaluation(classes, mistakes):
    return RunEvaluation(
        run="mine, baseline, seed 0",
        part="test",
        images=30,
        time_steps=2,
        accuracy={1: 0.5, 2: 0.9},
        spikes_per_image={1: 100.0, 2: 210.0},
        layers=[Layer(f"layer.{i}", 10, 5.0, 0.25) for i in range(3)],
        classes=[f"class {i}" for i in range(classes)],
        confusion=[[int(i == j) for i in range(classes)] for j in range(classes)],
        mistakes=[Mistake(i, "class 0", "class 1", 0.9) for i in range(mistakes)],
    )


@pytest.mark.parametrize("classes", [2, 100])
@pytest.mark.parametrize(
    "images",
    [
        torch.randint(256, (7, 3, 4, 4), dtype=torch.uint8),
        torch.zeros(1, 1, 4, 4, dtype=torch.uint8),
        torch.randn(24, 1, 8, 4),
    ],
    ids=["coloured", "one black one", "floats"],
)
def test_pictures_of_any_data_set(classes, images):
    figures = evaluation(classes, len(images)).figures(images)
    assert list(figures) == ["time-steps", "firing-rates", "confusion", "mistakes"]
    for _, figure in figures.values():
        height, width, _ = imread(io.BytesIO(to_png(figure))).shape
        assert height > 300
        assert width > 600


def test_no_mistakes_need_no_picture():
    assert "mistakes" not in evaluation(2, 0).figures(torch.zeros(0, 1, 4, 4))
