"""Evaluates a complete run: at every number of time steps, layer by layer, class by class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from tracegrad.lab.data import Dataset, Split
from tracegrad.lab.evaluate import Evaluation
from tracegrad.lab.files import write
from tracegrad.lab.procedures import procedure_of
from tracegrad.lab.procedures.trained import TrainedRun
from tracegrad.lab.report.evaluation_content import Layer, Mistake, Part, RunEvaluation
from tracegrad.lab.report.evaluation_figures import draw
from tracegrad.lab.runs.isolation import isolated, quiet

BEYOND = 2  # by default, up to twice the number of time steps of the training
FEW = 8  # time steps of which every number is measured
SHOWN = 24  # mistakes


def evaluate_run(folder: Path, part: Part = "test", time_steps: Sequence[int] | None = None) -> RunEvaluation:
    """Measures a complete run, and writes evaluation.json, evaluation.md and pictures to its folder `evaluation`.

    Args:
        folder: of the run.
        part: of the data.
        time_steps: at which T to measure, besides the trained one; from 1 to twice the trained one by default.

    Raises:
        ValueError: no complete run, the checkpoint of another network, another data set, or T below 1.
        OSError: the data are missing, or the folder cannot be written to.
    """
    trained = TrainedRun.read(folder)
    recipe, kind = trained.run.setting, procedure_of(trained.run.method)
    trained_steps = trained.time_steps
    dataset = trained.dataset
    _check_same(dataset, trained)
    split: Split = getattr(dataset, part)
    if dataset.time_steps is not None:
        if time_steps:
            raise ValueError(f"a recording of {dataset.name} has {trained_steps} frames: no other T can be measured")
        time_steps = []
    with isolated(trained.run.seed, recipe.training.threads), quiet():
        measured = {
            steps: kind.evaluate(trained.run, network, split, dataset)
            for steps, network in _networks(trained, time_steps).items()
        }
    evaluation = RunEvaluation(
        run=f"{recipe.name}, {trained.run.label}",
        part=part,
        images=len(split),
        time_steps=trained_steps,
        accuracy={steps: each.accuracy for steps, each in measured.items()},
        spikes_per_image={steps: each.spikes_per_image for steps, each in measured.items()},
        layers=_layers(measured[trained_steps], trained_steps),
        classes=list(dataset.classes),
        confusion=_confusion(measured[trained_steps].scores.argmax(-1), split.labels, len(dataset.classes)),
        mistakes=_mistakes(measured[trained_steps].scores, split.labels, dataset.classes),
    )
    _write(evaluation, folder / "evaluation", split)
    return evaluation


def _networks(trained: TrainedRun, chosen: Sequence[int] | None) -> dict[int, nn.Module]:
    """The network at the trained T and others: those chosen, or up to twice the trained one, doubling from afar."""
    own = trained.time_steps
    networks = {own: trained.network()}
    usual = range(1, BEYOND * own + 1) if own <= FEW else [2**power for power in range((BEYOND * own).bit_length())]
    for steps in usual if chosen is None else chosen:
        try:
            networks[steps] = trained.network(steps)
        except ValueError:  # networks without spikes, and those with TEBN, have a T of their own
            if chosen is not None:
                raise
    return dict(sorted(networks.items()))


def _check_same(dataset: Dataset, trained: TrainedRun) -> None:
    here = {"classes": list(dataset.classes), "image_shape": [dataset.channels, *dataset.image_size]}
    for name, value in here.items():
        if value != trained.result[name]:
            raise ValueError(f"{dataset.name} has another {name} ({value}) than in training ({trained.result[name]})")


def _layers(measured: Evaluation, time_steps: int) -> list[Layer]:
    neurons = measured.neurons_per_layer
    return [
        Layer(name, neurons[name], spikes, spikes / (neurons[name] * time_steps))
        for name, spikes in measured.spikes_per_layer.items()
    ]


def _confusion(predicted: Tensor, labels: Tensor, classes: int) -> list[list[int]]:
    return (labels * classes + predicted).bincount(minlength=classes**2).view(classes, classes).tolist()


def _mistakes(scores: Tensor, labels: Tensor, classes: Sequence[str]) -> list[Mistake]:
    confidence, predicted = torch.softmax(scores, -1).max(-1)
    wrong = (predicted != labels).nonzero().flatten()
    order = wrong[confidence[wrong].argsort(descending=True, stable=True)][:SHOWN]
    return [
        Mistake(image, classes[int(labels[image])], classes[int(predicted[image])], float(confidence[image]))
        for image in order.tolist()
    ]


def _write(evaluation: RunEvaluation, folder: Path, split: Split) -> None:
    write(folder / "evaluation.json", json.dumps(asdict(evaluation), indent=2) + "\n")
    images = split.pictures([mistake.image for mistake in evaluation.mistakes])
    pictures = draw(evaluation, images)
    text = [table.markdown() for table in evaluation.tables()]
    for name, (caption, content) in pictures.items():
        write(folder / f"{name}.png", content)
        text.append(f"![{caption}]({name}.png)\n\n{caption}\n")
    write(folder / "evaluation.md", "\n".join(text))
