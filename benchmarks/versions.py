"""Times a training step of two checkouts of tracegrad against each other, alternating, in warm processes of their own.

    git worktree add ../before COMMIT
    python benchmarks/versions.py ../before .

Each workload is timed in both, round by round in random order. Two processes of one and the same checkout differ by a
few per cent, from where their memory lies, so the rounds are shared by several pairs of processes: reported is the
median over pairs of a pair's median ratio new / old, with the lowest and the highest pair.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

TIMES = ("per_step", "mean", "final")
WORKLOADS = [f"{network} {time}" for network in ("at-once", "at-once-small", "step-by-step") for time in TIMES]


def work(workload: str) -> None:
    """A worker: warms up, then takes one training step for each line on standard input and prints its seconds."""
    import torch

    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    step = training_step(*workload.split())
    for _ in range(3):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)


def training_step(network: str, reading: str):
    import torch
    import torch.nn.functional as F
    from torch import nn

    import tracegrad as tg

    torch.manual_seed(0)
    if network == "step-by-step":
        from spikingjelly.activation_based import functional, layer, neuron

        def block(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
            return [
                layer.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                layer.BatchNorm2d(outputs),
                neuron.LIFNode(v_threshold=0.3),
            ]

        layers = [*block(3, 64), *block(64, 64), *block(64, 64), *block(64, 128, 2), *block(128, 128)]
        model = nn.Sequential(*layers, layer.AdaptiveAvgPool2d(1), layer.Flatten(), layer.Linear(128, 10))
        images = torch.randn(16, 3, 32, 32)
        tg.attach(model, images[:1], time=reading)
        functional.reset_net(model)

        def outputs() -> torch.Tensor:
            functional.reset_net(model)
            return torch.stack([model(images) for _ in range(4)])
    else:
        width, batch, size = (64, 16, 32) if network == "at-once" else (16, 32, 16)
        model, images = tg.models.resnet20(width=width), torch.randn(batch, 3, size, size)
        tg.attach(model, images[:1], time=reading)

        def outputs() -> torch.Tensor:
            return model(images)

    target = torch.randint(0, 10, (len(images),))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            out = outputs()
        F.cross_entropy(out.float().mean(0), target).backward()
        optimizer.step()

    return step


def start(checkout: Path, workload: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve() / "src")}
    command = [sys.executable, __file__, "--work", workload]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def seconds(worker: subprocess.Popen) -> float:
    worker.stdin.write("step\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def ratio(old: Path, new: Path, workload: str, rounds: int) -> tuple[float, list[float]]:
    """The median of new / old over the rounds of one pair of processes, and the median seconds of both."""
    workers = [start(checkout, workload) for checkout in (old, new)]
    for worker in workers:
        if worker.stdout.readline().strip() != "ready":
            raise SystemExit(f"{workload}: a worker failed; run `--work '{workload}'` to see why")
    taken: list[list[float]] = [[], []]
    for _ in range(rounds):
        for which in random.sample((0, 1), 2):
            taken[which].append(seconds(workers[which]))
    for worker in workers:
        worker.kill()
        worker.wait()
    ratios = [new / old for old, new in zip(*taken, strict=True)]
    return statistics.median(ratios), [statistics.median(each) for each in taken]


def compare(old: Path, new: Path, workload: str, rounds: int, pairs: int) -> None:
    found = [ratio(old, new, workload, rounds) for _ in range(pairs)]
    ratios = [each for each, _ in found]
    seconds_of = [statistics.median(times) for times in zip(*(each for _, each in found), strict=True)]
    print(
        f"{workload:<24} new / old {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        f"   old {seconds_of[0]:.3f} s   new {seconds_of[1]:.3f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("checkouts", type=Path, nargs="*", help="the old and the new one")
    parser.add_argument("--rounds", type=int, default=6, help="of each pair of processes")
    parser.add_argument("--pairs", type=int, default=7, help="of processes")
    parser.add_argument("--only", default="", help="workloads whose name holds this")
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work)
        return
    if len(arguments.checkouts) != 2:
        parser.error("name two checkouts: the old and the new one")
    for workload in WORKLOADS:
        if arguments.only in workload:
            compare(*arguments.checkouts, workload, arguments.rounds, arguments.pairs)


if __name__ == "__main__":
    main()
