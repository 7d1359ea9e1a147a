"""What Tables 1 and 2 of the paper cost: `python benchmarks/hours.py [TFLOPS]` prints a table.

The operations are counted: of a training step the forward pass and both gradients, 2 x 3 per multiply-accumulate. What
scaling adds is measured: the ratio of steps in results/benchmark. How many operations a GPU does in a second on such
layers is an assumption, TFLOPS; none was available to measure it.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import tracegrad as tg

ROOT = Path(__file__).parents[1]
IMAGES, EPOCHS, SEEDS = 45_000, 300, 4


def multiply_accumulates(model: nn.Module, image: Tensor) -> int:
    """Of the convolutions and linear layers in a forward pass, over all time steps."""
    counts: list[int] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda m, _, out: counts.append(out.numel() * m.weight[0].numel()))
    with torch.no_grad():
        model.eval()(image)
    return sum(counts)


def measured(competitor: str) -> float:
    """Images per second of a training step on the CPU of results/benchmark."""
    with (ROOT / "results/benchmark/table.csv").open(encoding="utf-8") as file:
        rows = {row["competitor"]: row for row in csv.DictReader(file) if row["section"] == "training"}
    return float(rows[competitor]["images per second"])


def table(tflops: float) -> list[str]:
    """Lines of a Markdown table: GPU hours of a baseline's training, of one with scaling, and of a recipe's study."""
    ratio = measured("tracegrad, bf16") / measured("tracegrad, per_step, bf16")
    lines = [
        "| network | GMAC per image | baseline, h | per_step, h | a study (4 seeds, both), h |",
        "|" + " --- |" * 5,
    ]
    for name in ("resnet20", "resnet32"):
        macs = multiply_accumulates(getattr(tg.models, name)(), torch.zeros(1, 3, 32, 32))
        hours = 6 * macs * IMAGES * EPOCHS / (tflops * 1e12) / 3600
        cells = (f"{macs / 1e9:.2f}", *(f"{each:.1f}" for each in (hours, ratio * hours, SEEDS * (1 + ratio) * hours)))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table(float(sys.argv[1]) if len(sys.argv) > 1 else 40)))
