"""What a network must know of its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tracegrad.lab.data import Batches, Dataset


@dataclass(frozen=True)
class Task:
    """The shape of a classification task, and images for what is fitted to data without training.

    Args:
        classes: how many.
        channels: of an image.
        image_size: its height and width; nothing for sequences.
        first_images: N -> the first N training images, [N, C, H, W], normalised and without augmentation, or frames
            [T, N, C, H, W].
        time_steps: T of frames and sequences; images have none.
    """

    classes: int
    channels: int
    image_size: tuple[int, ...]
    first_images: Callable[[int], Tensor]
    time_steps: int | None = None

    @property
    def example(self) -> Tensor:
        """Zeros shaped like a batch of one."""
        time = () if self.time_steps is None else (self.time_steps,)
        return torch.zeros(*time, 1, self.channels, *self.image_size)

    @classmethod
    def of(cls, dataset: Dataset) -> Task:
        """The task that a data set sets."""

        def first_images(count: int) -> Tensor:
            if not 1 <= count <= len(dataset.train):
                raise ValueError(f"images must be from 1 to the {len(dataset.train)} for training, not {count}")
            images, _ = next(iter(Batches(dataset.train, count, dataset=dataset, seed=0)))
            return images

        return cls(len(dataset.classes), dataset.channels, dataset.image_size, first_images, dataset.time_steps)
