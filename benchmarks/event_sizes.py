"""Time of event kernels against dense ones over the size of a layer: `python benchmarks/event_sizes.py FOLDER`.

Forward and backward of one 3x3 convolution of spikes, of which 15 % fire, from small to large, on one thread. Both ways
run once in each round, in an order drawn anew; a ratio is the median of those within a round. FOLDER gets sizes.csv;
what the kernels need at least to pay is `LEAST_PRODUCTS` in `tracegrad.events.choice`.
"""

import csv
import os
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from tracegrad_benchmark.intervals import paired_ratio
from tracegrad_benchmark.timing import alternate

from tracegrad.events import choice
from tracegrad.events.convolution import convolve_spikes
from tracegrad.events.window import Window

RATE, ROUNDS, WINDOW = 0.15, 25, Window(padding=(1, 1))
SIZES = ((1, 8), (4, 8), (16, 8), (64, 8), (64, 16), (400, 8))
"""Images, and their height and width."""


def step(channels: int, images: int, size: int, half: bool, events: str) -> Callable[[], None]:
    """One forward and backward pass, with TRACEGRAD_EVENTS as given."""
    generator = torch.Generator().manual_seed(0)
    shape, dtype = (images, channels, size, size), torch.bfloat16 if half else torch.float32
    spikes = (torch.rand(shape, generator=generator) < RATE).to(dtype)
    x = spikes.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(channels, channels, 3, 3, generator=generator).requires_grad_()
    gradient = torch.randn(shape, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last)

    def run() -> None:
        os.environ["TRACEGRAD_EVENTS"] = events
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            current = convolve_spikes(x, weight, None, WINDOW)
        current.backward(gradient)
        x.grad = weight.grad = None

    return run


def main(folder: Path) -> None:
    """Measures, and writes what was found."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    choice.LEAST_PRODUCTS = 0
    with (folder / "sizes.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(
            ["precision", "channels", "images", "size", "products", "time by events / time of the dense way"]
        )
        for half, channels, (images, size) in product((True, False), (16, 32, 64), SIZES):
            ways = {
                name: step(channels, images, size, half, said) for name, said in (("events", "auto"), ("dense", "0"))
            }
            seconds = alternate(ways, ROUNDS, "cpu", lambda: None)
            ratio = paired_ratio(seconds["events"], seconds["dense"]).value
            products = images * size**2 * channels**2 * 9
            row = ["bf16" if half else "float32", channels, images, size, products, f"{ratio:.2f}"]
            table.writerow(row)
            print(*row)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
