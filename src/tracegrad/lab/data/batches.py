"""Batches that can be replayed to the bit."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Generator, Tensor

from tracegrad.lab.data.augment import cutmix, random_box, random_crop_and_flip
from tracegrad.lab.data.dataset import Dataset, Split
from tracegrad.lab.data.options import DataOptions


class Batches:
    """Normalised and augmented batches of a split.

    Every random draw is a function of (seed, epoch, position of the batch) and of nothing else: any epoch can be
    replayed alone, and global random state is neither read nor changed. Iterating again without `set_epoch` repeats the
    epoch. The last batch may be smaller; a shuffled (training) epoch leaves out a last batch of a single image, of
    which batch normalisation knows no variance.

    Each batch is a pair of

    - images, float32 [B, C, H, W], frames [T, B, C, H, W] or sequences [T, B, C], normalised by the data set's mean and
      standard deviation; a recording is augmented as a whole, the same way at each step;
    - targets, int64 labels [B], or float32 probabilities [B, K] in epochs with CutMix.

    Args:
        split: the images and labels.
        batch_size: images per batch.
        dataset: what `split` is a part of; gives the normalisation and the number of classes.
        seed: the run's seed, 0 or more.
        options: the augmentation; none by default.
        shuffle: a new order in each epoch.

    Raises:
        ValueError: `batch_size` under 1, a negative seed, a crop padding as large as the image; augmentation of
            sequences, or mirror images that would be of another class.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        dataset: Dataset,
        seed: int,
        options: DataOptions | None = None,
        shuffle: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be 1 or more")
        if seed < 0:
            raise ValueError(f"seed is {seed}; it must be 0 or more")
        self.split = split
        self.batch_size = batch_size
        self.options = options or DataOptions()
        self.seed = seed
        self.shuffle = shuffle
        self.epoch, self.first = 0, 0
        augmented = bool(self.options.crop_padding or self.options.flip or self.options.cutmix)
        if augmented and not dataset.image_size:
            raise ValueError(f"crop_padding, flip and cutmix are for images; {dataset.name} holds sequences")
        if self.options.flip and not dataset.mirrors:
            raise ValueError(f"flip makes another class of what {dataset.name} shows; leave it false")
        size = min(dataset.image_size, default=1)
        if self.options.crop_padding >= size:
            raise ValueError(f"crop_padding is {self.options.crop_padding}; it must be under the image's {size} pixels")
        self._classes = len(dataset.classes)
        shape = [-1, *(1 for _ in dataset.image_size)]
        self._mean = torch.tensor(dataset.mean).view(shape)
        self._std = torch.tensor(dataset.std).view(shape)

    def set_epoch(self, epoch: int, first: int = 0) -> None:
        """Chooses the epoch that iterations yield, and the batch from which on; both count from 0."""
        self.epoch, self.first = epoch, first

    def __len__(self) -> int:
        whole, rest = divmod(len(self.split), self.batch_size)
        single = self.shuffle and rest == 1 and whole > 0
        return whole + (rest > 0 and not single)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch, count = self.epoch, len(self.split)
        shuffled = _generator(self.seed, epoch, 0)
        order = torch.randperm(count, generator=shuffled) if self.shuffle else torch.arange(count)
        parts = order.split(self.batch_size)
        for position in range(self.first, len(self)):
            images, labels = self.split.images[parts[position]], self.split.labels[parts[position]]
            images, targets = self._augment(images, labels, epoch, _generator(self.seed, epoch, position + 1))
            images = images.float().sub_(self._mean).div_(self._std)
            yield images if self.split.time_steps is None else images.transpose(0, 1).contiguous(), targets

    def _augment(self, images: Tensor, labels: Tensor, epoch: int, generator: Generator) -> tuple[Tensor, Tensor]:
        options, shape, targets = self.options, images.shape, labels
        if options.crop_padding or options.flip:
            together = images.flatten(1, -3)  # all frames of a recording
            images = random_crop_and_flip(together, options.crop_padding, options.flip, generator).view(shape)
        if options.cutmix and (options.cutmix_until is None or epoch < options.cutmix_until):
            box = random_box(shape[-2], shape[-1], options.cutmix, generator)
            images, targets = cutmix(images.flatten(1, -3), labels, self._classes, box)
        return images.view(shape), targets


def batch_dim(inputs: Tensor) -> int:
    """Where the batch is in what `Batches` yields: 0 in images, 1 in frames and sequences, which begin with time."""
    return 0 if inputs.ndim == 4 else 1


def seed_of(seed: int, *key: int) -> int:
    """The seed of a random stream of its own for each key."""
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0])


def _generator(seed: int, epoch: int, stream: int) -> Generator:
    """Stream 0 is the epoch's order, the batches follow."""
    return Generator().manual_seed(seed_of(seed, epoch, stream))
