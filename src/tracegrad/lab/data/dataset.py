"""What a data set is, once loaded."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, in the units of the stored pixels."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images, or recordings over time, and their labels: one part of a data set.

    Args:
        images: [N, C, H, W], frames [N, T, C, H, W] or sequences of features [N, T, C]; uint8 or floating point.
        labels: [N], int64.

    Raises:
        TypeError: images or labels of another type.
        ValueError: shapes that do not fit, no image at all, NaN or infinite pixels.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise TypeError(f"images are {images.dtype}; they must be torch.uint8 or floating point")
        if labels.dtype != torch.int64:
            raise TypeError(f"labels are {labels.dtype}; they must be torch.int64")
        if images.ndim not in (3, 4, 5) or labels.shape != images.shape[:1] or not images.numel():
            shapes = f"images {list(images.shape)} and labels {list(labels.shape)}"
            right = "[N, C, H, W], [N, T, C, H, W] or [N, T, C], and [N]"
            raise ValueError(f"{shapes} do not fit; they must be {right}, none of them 0")
        if images.is_floating_point():
            bad = (~images.isfinite()).flatten(1).any(1).nonzero().flatten()
            if len(bad):
                raise ValueError(f"{len(bad)} images hold NaN or infinite pixels, image {int(bad[0])} is the first")

    def __len__(self) -> int:
        return len(self.labels)

    def digest(self) -> str:
        """SHA-256 of images and labels, in hexadecimal: equal for equal images in equal order, and for no others."""
        content = hashlib.sha256(f"{self.images.dtype} {list(self.images.shape)}".encode())
        for values in (self.images, self.labels):
            content.update(values.contiguous().numpy().data)
        return content.hexdigest()

    @property
    def time_steps(self) -> int | None:
        """T of frames and sequences; images have none."""
        return None if self.images.ndim == 4 else self.images.shape[1]

    def pictures(self, indices: list[int]) -> Tensor:
        """Some images to look at, [M, 1 or 3, H, W], float.

        Frames are shown as their mean over time, OFF events in blue and ON events in red; sequences as features by
        time.
        """
        images = self.images[indices].float()
        if images.ndim == 3:
            return images.transpose(1, 2)[:, None]
        if images.ndim == 5:
            images = images.mean(1)
        off, on = images[:, 0], images[:, -1]
        return images if images.shape[1] in (1, 3) else torch.stack([on, torch.zeros_like(on), off], 1)

    def take(self, indices: Tensor) -> "Split":
        """The images and labels at `indices` [M], as a split of its own."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory, with a training, a validation and a test part.

    Args:
        name: what the data set is called in tables.
        train: the part to train on.
        validation: the part to choose by; fixed, the same for every seed of a run.
        read_test: reads the test part; called once, when `test` is first asked for.
        classes: the class of label 0, 1, ...
        mean: per channel, in the units of the stored pixels (0 to 255 for 8-bit images).
        std: likewise.
        mirrors: whether an image is of the same class as its mirror image.

    Raises:
        ValueError: labels outside the classes, images of another size or number of channels, a class without a
            training image, channels that `mean` and `std` do not fit.
    """

    name: str
    train: Split
    validation: Split
    read_test: Callable[[], Split]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirrors: bool = True

    def __post_init__(self) -> None:
        self._check(self.train, "training")
        self._check(self.validation, "validation")
        for label, count in enumerate(self.train.labels.bincount(minlength=len(self.classes)).tolist()):
            if not count:
                raise ValueError(f"class {self.classes[label]!r} has no training image in {self.name!r}; it needs one")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean {self.mean} and std {self.std} must have one value per channel, {self.channels}")

    @cached_property
    def test(self) -> Split:
        """The test part; read now if nobody has asked for it before."""
        test = self.read_test()
        self._check(test, "test")
        return test

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for coloured ones, 2 for events of two signs; the features of a sequence."""
        return self.train.images.shape[1 if self.time_steps is None else 2]

    @property
    def time_steps(self) -> int | None:
        """T of frames and sequences; images have none."""
        return self.train.time_steps

    @property
    def image_size(self) -> tuple[int, ...]:
        """Height and width in pixels; nothing for sequences."""
        return tuple(self.train.images.shape[2 if self.time_steps is None else 3 :])

    def _check(self, split: Split, part: str) -> None:
        where = f"the {part} part of {self.name!r}"
        shape, expected = list(split.images.shape[1:]), list(self.train.images.shape[1:])
        if shape != expected:
            raise ValueError(f"images of {where} are {shape}; the training part has {expected}")
        outside = split.labels[(split.labels < 0) | (split.labels >= len(self.classes))]
        if len(outside):
            raise ValueError(
                f"label {int(outside[0])} in {where} is out of range; labels are 0 to {len(self.classes) - 1}"
            )


def pixel_statistics(split: Split) -> Statistics:
    """Mean and standard deviation of each channel, in the units of the stored pixels.

    Raises:
        ValueError: a channel is the same everywhere and cannot be normalised.
    """
    moments = [torch.std_mean(channel.double(), correction=0) for channel in split.images.unbind(1)]
    mean, std = tuple(float(m) for _, m in moments), tuple(float(s) for s, _ in moments)
    if 0.0 in std:
        raise ValueError(
            f"channel {std.index(0.0)} is {mean[std.index(0.0)]:g} in every training image: nothing to learn"
        )
    return mean, std


def unnormalised(channels: int) -> Statistics:
    """The statistics of events, which are not normalised: silence is 0."""
    return (0.0,) * channels, (1.0,) * channels
