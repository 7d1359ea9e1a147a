"""Whether the data set moving tests time: run it with `python benchmarks/moving_checks.py FOLDER [SEED ...]`.

What has no order of events to go by must stay at chance on the direction, and a spiking network of T = 16 must not.
Each network is trained and tested on one view of the recordings, such as single frames. FOLDER gets checks.csv, a row
per network, view and seed, and table.md with the means over the seeds; what is there already is kept.
"""

import csv
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Generator, Tensor, nn

import tracegrad as tg
from tracegrad.lab.data import DataOptions, Split, load

IMAGES, BATCH = 400, 25  # 4,000 recordings to train on
RATE, RATE_OF_CNN = 1e-2, 5e-4  # of Adam, lowered along half a cosine; a larger one silences the CNN

View = Callable[[Tensor, Generator], Tensor]
"""Recordings [B, T, 2, H, W] to what a network is shown."""


def ordered(frames: Tensor, generator: Generator) -> Tensor:
    """The frames as they are."""
    return frames.float()


def backwards(frames: Tensor, generator: Generator) -> Tensor:
    """The frames, last one first."""
    return frames.flip(1).float()


def counts(frames: Tensor, generator: Generator) -> Tensor:
    """The sum over time, as one frame."""
    return frames.float().sum(1, keepdim=True)


def single(frames: Tensor, generator: Generator) -> Tensor:
    """One frame of each recording, drawn at random."""
    which = torch.randint(frames.shape[1], (len(frames),), generator=generator)
    return frames[torch.arange(len(frames)), which][:, None].float()


def shuffled(frames: Tensor, generator: Generator) -> Tensor:
    """The frames in an order that is drawn for each recording."""
    order = torch.rand(frames.shape[:2], generator=generator).argsort(1)
    return frames[torch.arange(len(frames))[:, None], order].float()


VIEWS = {
    "ordered": "frames",
    "counts": "counts over time",
    "single": "a single frame, drawn at random",
    "shuffled": "shuffled frames",
}


class Cnn(nn.Sequential):
    """A convolutional network that takes all frames as channels."""

    def __init__(self, frames: int) -> None:
        layers: list[nn.Module] = [nn.Flatten(1, 2)]
        channels = 2 * frames
        for width, stride in ((32, 1), (32, 2), (64, 2)):
            layers += [nn.Conv2d(channels, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        super().__init__(*layers, nn.Flatten(), nn.Linear(64 * 16, 2))


class OverTime(nn.Module):
    """A ResNet that sees one frame after the other, its outputs averaged; a single frame stands still, for T = 4."""

    def __init__(self, neuron: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.net = tg.models.resnet(
            num_classes=2, in_channels=2, blocks=(1, 1), width=8, time_steps=4, neuron=neuron, norm="tdbn"
        )

    def forward(self, frames: Tensor) -> Tensor:
        return self.net(frames[:, 0] if frames.shape[1] == 1 else frames.transpose(0, 1)).mean(0)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "SNN": lambda frames: OverTime(lambda: tg.LIF(leak=0.5)),
    "SNN, leak 0": lambda frames: OverTime(lambda: tg.LIF(leak=0.0)),
    "ReLU, outputs averaged": lambda frames: OverTime(nn.ReLU),
    "CNN": Cnn,
}


class Check(NamedTuple):
    """A network on a view, and what its accuracy in % must be: near chance, or above."""

    network: str
    view: View
    epochs: int
    near_chance: float | None


CHECKS = [
    Check("SNN", ordered, 4, None),
    Check("CNN", ordered, 3, None),  # that it could
    Check("ReLU, outputs averaged", ordered, 3, 5),
    Check("SNN, leak 0", ordered, 4, 5),
    *(Check(network, view, epochs, 2) for view, epochs in ((counts, 5), (single, 8)) for network in ("CNN", "SNN")),
    Check("CNN", shuffled, 5, 2),
    Check("SNN", shuffled, 4, 2),
    *(Check("logistic regression", view, 1, 2) for view in (counts, single, shuffled)),
]
LEAST, MEASURES = 85, ("test", "reversed")


@dataclass(frozen=True)
class Measured:
    """In %: accuracy on the test recordings, and how often the twin is predicted of one of them reversed."""

    test: float
    reversed: float


def measure(check: Check, train: Split, test: Split, seed: int) -> Measured:
    """Trains a network on a view of recordings, and tests it."""
    torch.manual_seed(seed)
    generator = Generator().manual_seed(seed)
    predict = (
        _regression(check, train, generator) if "regression" in check.network else _trained(check, train, generator)
    )

    def accuracy(view: View, twin: bool = False) -> float:
        right = 0
        for some in torch.arange(len(test)).split(200):
            labels = test.labels[some]
            right += int((predict(view(test.images[some], generator)) == (1 - labels if twin else labels)).sum())
        return 100 * right / len(test)

    return Measured(accuracy(check.view), accuracy(backwards, twin=True) if check.near_chance is None else math.nan)


def _regression(check: Check, train: Split, generator: Generator) -> Callable[[Tensor], Tensor]:
    model = LogisticRegression(C=0.01, max_iter=200)
    model.fit(check.view(train.images, generator).flatten(1).numpy(), train.labels.numpy())
    return lambda inputs: torch.from_numpy(model.predict(inputs.flatten(1).numpy()))


def _trained(check: Check, train: Split, generator: Generator) -> Callable[[Tensor], Tensor]:
    network = NETWORKS[check.network](check.view(train.images[:1], generator).shape[1])
    optimizer = torch.optim.Adam(network.parameters(), RATE_OF_CNN if check.network == "CNN" else RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, check.epochs * math.ceil(len(train) / BATCH))
    for _ in range(check.epochs):
        for some in torch.randperm(len(train), generator=generator).split(BATCH):
            loss = F.cross_entropy(network(check.view(train.images[some], generator)), train.labels[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()

    @torch.no_grad()
    def predict(inputs: Tensor) -> Tensor:
        return network(inputs).argmax(1)

    return predict


def name_of(check: Check) -> tuple[str, str]:
    """Network and view, as the table has them."""
    return check.network, check.view.__name__


def table(rows: list[dict[str, str]]) -> str:
    """Means over the seeds, and the largest distance of a seed from its mean."""
    lines = ["| network | sees | must be (%) | is (%) | seeds |", "| --- | --- | --- | --- | --- |"]
    for check in CHECKS:
        mine = [row for row in rows if (row["network"], row["view"]) == name_of(check)]
        network, view = name_of(check)
        near = f"within {check.near_chance:g} of 50" if check.near_chance else f"{LEAST} or more"
        lines.append(f"| {network} | {VIEWS[view]} | {near} | {_mean(mine, 'test')} | {len(mine)} |")
        if check.near_chance is None:
            lines.append(
                f"| {network} | frames backwards, for the twin | {near} | {_mean(mine, 'reversed')} | {len(mine)} |"
            )
    return "\n".join(lines) + "\n"


def _mean(rows: list[dict[str, str]], measure: str) -> str:
    values = [float(row[measure]) for row in rows]
    mean = sum(values) / max(len(values), 1)
    return f"{mean:.1f} ± {max((abs(value - mean) for value in values), default=math.nan):.1f}"


def main(folder: Path, seeds: list[int]) -> None:
    """Measures what is not yet in the folder."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "checks.csv"
    rows = list(csv.DictReader(file.open())) if file.is_file() else []
    data = load(DataOptions("moving", train_size=IMAGES))
    for seed in seeds:
        for check in CHECKS:
            if any((row["network"], row["view"], row["seed"]) == (*name_of(check), str(seed)) for row in rows):
                continue
            measured = measure(check, data.train, data.test, seed)
            found = {name: f"{getattr(measured, name):.2f}" for name in MEASURES}
            rows.append(dict(zip(("network", "view"), name_of(check), strict=True)) | {"seed": str(seed)} | found)
            print(rows[-1], flush=True)
            with file.open("w", newline="") as out:
                writer = csv.DictWriter(out, ["network", "view", "seed", *MEASURES], lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
            (folder / "table.md").write_text(table(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]] or [0, 1, 2])
