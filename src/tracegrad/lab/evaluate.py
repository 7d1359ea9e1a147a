"""What a trained network does on a part of the data: accuracy and spikes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tracegrad.core.neurons import is_neuron
from tracegrad.lab.data import Batches, Dataset, Split, batch_dim
from tracegrad.lab.recipe.fields import Recipe
from tracegrad.measure.raster import count_neurons
from tracegrad.measure.spikes import SpikeCounter, count_spikes
from tracegrad.methods.objectives import OBJECTIVES, Readout


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Accuracy and activity over a set of images.

    Args:
        accuracy: share of images whose class is right, 0 to 1.
        spikes_per_image: spikes over all neuron layers and time steps, a mean over the images; 0 without neurons.
        spikes_per_layer: the same for each neuron layer, by module name.
        neurons_per_layer: how many there are.
        scores: [images, classes], what the readout makes of the outputs.
    """

    accuracy: float
    spikes_per_image: float
    spikes_per_layer: dict[str, float]
    neurons_per_layer: dict[str, int]
    scores: Tensor


def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], readout: Readout, bf16: bool = False
) -> Evaluation:
    """Measures a network on batches of images; its mode (training or not) is as before afterwards.

    Args:
        model: images [B, C, H, W] or frames [T, B, C, H, W] -> outputs [T, B, classes].
        batches: images and their labels [B].
        readout: outputs -> scores [B, classes], the objective's.
        bf16: evaluate under bfloat16 autocast, as the network was trained.

    Raises:
        ValueError: there is no image, or the images hold NaN or infinity.
    """
    device = next(model.parameters()).device
    scores: list[Tensor] = []
    images_seen, correct, example = 0, 0, None
    was_training = model.training
    model.eval()
    try:
        counting = count_spikes(model) if any(map(is_neuron, model.modules())) else nullcontext(SpikeCounter())
        with counting as spikes, torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            for images, labels in batches:
                if not images.isfinite().all():
                    raise ValueError(f"images {images_seen} to {images_seen + len(labels) - 1} hold NaN or infinity")
                example = images.narrow(batch_dim(images), 0, 1).to(device)
                scores.append(readout(model(images.to(device)).float()).cpu())
                correct += int((scores[-1].argmax(-1) == labels).sum())
                images_seen += len(labels)
    finally:
        model.train(was_training)
    if example is None:
        raise ValueError("there is no image to evaluate on")
    per_layer = {name: count / images_seen for name, count in spikes.per_layer.items()}
    neurons = count_neurons(model, example)
    return Evaluation(correct / images_seen, spikes.total / images_seen, per_layer, neurons, torch.cat(scores))


def evaluate_split(model: nn.Module, split: Split, recipe: Recipe, dataset: Dataset) -> Evaluation:
    """Measures a recipe's network on a part of a data set, on the GPU if there is one; it is on the CPU afterwards.

    Args:
        model: the network.
        split: the part, without augmentation.
        recipe: gives the objective, whose readout counts, batch size and precision.
        dataset: what `split` is a part of.

    Raises:
        ValueError: as `evaluate`.
    """
    batches = Batches(split, recipe.training.batch_size, dataset=dataset, seed=0)
    readout, bf16 = OBJECTIVES[recipe.objective].readout, recipe.training.precision == "bf16"
    try:
        return evaluate(model.to("cuda" if torch.cuda.is_available() else "cpu"), batches, readout, bf16)
    finally:
        model.cpu()


def predict(outputs: Tensor, readout: Readout) -> Tensor:
    """Classes [B] of outputs [T, B, classes]: those of the largest score."""
    return readout(outputs.float()).argmax(-1)
