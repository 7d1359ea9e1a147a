"""Time of event kernels against dense ones over the firing rate: run it with `python benchmarks/event_rates.py FOLDER`.

For layers of the paper's ResNet20 and of narrow networks, in bf16: the current, with packing, and the gradient of the
weight. Both ways run once in each round, in an order drawn anew; a point is the median of the ratios within a round.
FOLDER gets rates.csv and rates.png; dotted lines mark what `tracegrad.events.choice` takes for the break-even.
"""

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from torch import Tensor
from tracegrad_benchmark.intervals import paired_ratio
from tracegrad_benchmark.timing import alternate

from tracegrad.events import operators
from tracegrad.events.choice import OPERATIONS, break_even
from tracegrad.events.dense import dense_grad_weight
from tracegrad.events.library import machine_instruction_set
from tracegrad.events.window import Window

LAYERS = {"16 channels, 32x32": (16, 32), "64 channels, 32x32": (64, 32), "256 channels, 8x8": (256, 8)}
RATES = (0.02, 0.05, 0.1, 0.165, 0.25, 0.35, 0.45, 0.6)
IMAGES, ROUNDS, WINDOW = 64, 15, Window(padding=(1, 1))


def ways(channels: int, size: int, rate: float) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Operation -> (by events, dense) of a 3x3 convolution of bf16 spikes."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(IMAGES, channels, size, size, generator=generator) < rate).bfloat16()
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, generator=generator)
    gradient = torch.randn(x.shape, generator=generator).bfloat16().contiguous(memory_format=torch.channels_last)
    half = weight.bfloat16().contiguous(memory_format=torch.channels_last)

    def packed() -> Tensor:
        found = operators.pack(x)
        if found is None:
            raise RuntimeError("the event kernels can't be compiled here")
        return found[0]

    bits = packed()
    return {
        "current": (
            lambda: operators.convolve(packed(), weight, None, WINDOW, torch.bfloat16),
            lambda: torch.conv2d(x, half, None, *WINDOW),
        ),
        "weight": (
            lambda: operators.correlate(bits, gradient, weight.shape, WINDOW),
            lambda: dense_grad_weight(gradient, x, weight.shape, WINDOW),
        ),
    }


def ratio(events: Callable[[], object], dense: Callable[[], object]) -> float:
    """Time by events over time of the dense way: the median over the rounds."""
    seconds = alternate({"events": events, "dense": dense}, ROUNDS, "cpu", lambda: None)
    return paired_ratio(seconds["events"], seconds["dense"]).value


def draw(rows: list[tuple[str, str, float, float]], path: Path) -> None:
    """The picture: one panel an operation, one line a layer."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for panel, operation in zip(panels, OPERATIONS, strict=True):
        for colour, (layer, (channels, _)) in enumerate(LAYERS.items()):
            points = [(100 * rate, ratio) for kind, name, rate, ratio in rows if (kind, name) == (operation, layer)]
            panel.plot(*zip(*points, strict=True), "o-", markersize=4, color=f"C{colour}", label=layer)
            size = torch.Size((channels, channels, 3, 3))
            even = break_even(operation, size, torch.bfloat16, machine_instruction_set())
            panel.axvline(100 * even, color=f"C{colour}", linestyle=":", linewidth=1.2)
        panel.axhline(1, color="0.4", linewidth=1)
        panel.set(title="current" if operation == "current" else "gradient of the weight, relation", ylim=(0, 1.6))
        panel.set_xlabel("inputs that fire (%)")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("time / time of the dense way")
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measures, writes and draws."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, float, float]] = []
    for layer, shape in LAYERS.items():
        for rate in RATES:
            for operation, pair in ways(*shape, rate).items():
                rows.append((operation, layer, rate, ratio(*pair)))
                print(f"{operation:8} {layer:20} {100 * rate:5.1f} %  {rows[-1][-1]:.3f}", flush=True)
    with (folder / "rates.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["operation", "layer", "rate", "time by events / time of the dense way"])
        writer.writerows((*row[:3], f"{row[3]:.4f}") for row in rows)
    draw(rows, folder / "rates.png")


if __name__ == "__main__":
    main()
