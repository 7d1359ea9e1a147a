"""Evaluates a complete run: at every number of time steps, layer by layer, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tracegrad.lab.data import Dataset, Split
from tracegrad.lab.procedures import procedure_of
from tracegrad.lab.procedures.trained import TrainedRun
from tracegrad.lab.report.evaluated import Layer, Mistake, Part, RunEvaluation, write_page
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
    own, dataset = trained.time_steps, trained.dataset
    _check_same(dataset, trained)
    split: Split = getattr(dataset, part)
    if dataset.time_steps is not None:
        if time_steps:
            raise ValueError(f"a recording of {dataset.name} has {own} frames: no other T can be measured")
        time_steps = []
    with isolated(trained.run.seed, recipe.training.threads), quiet():
        measured = {
            steps: kind.evaluate(trained.run, network, split, dataset)
            for steps, network in _networks(trained, time_steps).items()
        }
    at_own, neurons, classes = measured[own], measured[own].neurons_per_layer, len(dataset.classes)
    confusion = (split.labels * classes + at_own.scores.argmax(-1)).bincount(minlength=classes**2)
    evaluation = RunEvaluation(
        run=f"{recipe.name}, {trained.run.label}",
        part=part,
        images=len(split),
        time_steps=own,
        accuracy={steps: each.accuracy for steps, each in measured.items()},
        spikes_per_image={steps: each.spikes_per_image for steps, each in measured.items()},
        layers=[
            Layer(name, neurons[name], spikes, spikes / (neurons[name] * own))
            for name, spikes in at_own.spikes_per_layer.items()
        ],
        classes=list(dataset.classes),
        confusion=confusion.view(classes, classes).tolist(),
        mistakes=_mistakes(at_own.scores, split.labels, dataset.classes),
    )
    figures = evaluation.figures(split.pictures([mistake.image for mistake in evaluation.mistakes]))
    write_page(folder / "evaluation" / "evaluation", evaluation, evaluation.tables(), figures)
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


def _mistakes(scores: Tensor, labels: Tensor, classes: Sequence[str]) -> list[Mistake]:
    confidence, predicted = torch.softmax(scores, -1).max(-1)
    wrong = (predicted != labels).nonzero().flatten()
    order = wrong[confidence[wrong].argsort(descending=True, stable=True)][:SHOWN]
    return [
        Mistake(image, classes[int(labels[image])], classes[int(predicted[image])], float(confidence[image]))
        for image in order.tolist()
    ]
