"""Trained networks with event kernels and without: `python benchmarks/trained_step.py RUN...`.

Each RUN is the folder of a complete run. Its network, with its best weights, gets the first BATCH training images, in
bf16; both ways run once in each round, in an order drawn anew. Printed are the mean rate of its layers and their range,
and the time by events over that of dense convolutions, of a training step and of an inference, with 95 % intervals.
"""

import sys
from pathlib import Path

from tracegrad_benchmark.intervals import Median, paired_ratio
from tracegrad_benchmark.rates import firing_rates
from tracegrad_benchmark.timing import alternate
from tracegrad_benchmark.workload import NetworkWork, Workload

from tracegrad.lab.procedures.trained import TrainedRun

BATCH, ROUNDS = 100, 30


def work(trained: TrainedRun, events: str) -> NetworkWork:
    """The run's network on its own images."""
    images = trained.task.first_images(BATCH)
    return NetworkWork(trained.network(), Workload(batch=BATCH), "bf16", True, events, images)


def main() -> None:
    """Measures, and prints the table."""
    print("| run | mean rate, of the layers (%) | training step, events / dense | inference, events / dense |")
    print("|---|---|---|---|")
    for folder in map(Path, sys.argv[1:]):
        trained = TrainedRun.read(folder)
        works = {events: work(trained, events) for events in ("auto", "0")}
        rates = [100 * rate for rate in firing_rates(works["0"].network, works["0"].infer)]
        cells = [f"{sum(rates) / len(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})"]
        for call in ("step", "infer"):
            calls = {events: getattr(each, call) for events, each in works.items()}
            seconds = alternate(calls, ROUNDS, "cpu", lambda: None)
            cells.append(_text(paired_ratio(seconds["auto"], seconds["0"])))
        print(f"| {folder} | {' | '.join(cells)} |")


def _text(ratio: Median) -> str:
    return f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


if __name__ == "__main__":
    main()
