"""What a trained network does on a part of the data: accuracy and spikes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tracegrad.measure.spikes import count_spikes
from tracegrad.methods.objectives import Readout


@dataclass(frozen=True)
class Evaluation:
    """Accuracy and activity over a set of images.

    Args:
        accuracy: share of images whose class is right, 0 to 1.
        spikes_per_image: spikes over all neuron layers and time steps, a mean over the images.
        spikes_per_layer: the same for each neuron layer, by module name.
    """

    accuracy: float
    spikes_per_image: float
    spikes_per_layer: dict[str, float]


def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], readout: Readout, bf16: bool = False
) -> Evaluation:
    """Measures a network on batches of images; its mode (training or not) is as before afterwards.

    Args:
        model: images [B, C, H, W] -> outputs [T, B, classes].
        batches: images and their labels [B].
        readout: outputs -> scores [B, classes], the objective's.
        bf16: evaluate under bfloat16 autocast, as the network was trained.

    Raises:
        ValueError: there is no image, or the images hold NaN or infinity.
    """
    device = next(model.parameters()).device
    images_seen, correct = 0, torch.zeros((), dtype=torch.int64, device=device)
    was_training = model.training
    model.eval()
    try:
        with count_spikes(model) as spikes, torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            for images, labels in batches:
                if not images.isfinite().all():
                    raise ValueError(f"images {images_seen} to {images_seen + len(images) - 1} hold NaN or infinity")
                correct += (predict(model(images.to(device)), readout) == labels.to(device)).sum()
                images_seen += len(images)
    finally:
        model.train(was_training)
    if not images_seen:
        raise ValueError("there is no image to evaluate on")
    per_layer = {name: count / images_seen for name, count in spikes.per_layer.items()}
    return Evaluation(int(correct) / images_seen, spikes.total / images_seen, per_layer)


def predict(outputs: Tensor, readout: Readout) -> Tensor:
    """Classes [B] of outputs [T, B, classes]: those of the largest score."""
    return readout(outputs.float()).argmax(-1)
