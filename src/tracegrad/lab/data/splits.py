"""Fixed stratified splits: every part holds each class in its share."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tracegrad.lab.data.dataset import Dataset, Split, Statistics, pixel_statistics
from tracegrad.lab.data.options import DataOptions

SPLIT_SEED = 0  # no part of a run's seed: every run sees the same split


def stratified_order(labels: Tensor) -> Tensor:
    """A fixed shuffle of the images in which every consecutive piece holds each class in its share.

    The r-th image of a class of n, in random order, is placed at (r + 1/2) / n of the way, so a piece of N images in K
    classes differs from a class's exact share by at most 1 + K n / N images: two where classes are equally large.

    Args:
        labels: [N], int64.

    Returns:
        A permutation [N] of the indices of `labels`.
    """
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    place = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        members = (labels[shuffled] == label).nonzero().flatten()
        place[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return shuffled[place.argsort(stable=True)]


def stratified_pieces(labels: Tensor, *sizes: int) -> tuple[Tensor, ...]:
    """Cuts a data set into stratified pieces.

    Args:
        labels: [N], int64.
        sizes: the number of images in all pieces but the last, which takes the rest.

    Returns:
        The indices of each piece's images, each in stratified order.

    Raises:
        ValueError: too few images for the pieces.
    """
    rest = len(labels) - sum(sizes)
    if rest < 1 or min(sizes) < 1:
        raise ValueError(
            f"{len(labels)} images are too few for train, validation and test parts; 10 or more are needed"
        )
    return stratified_order(labels).split([*sizes, rest])


def first_images(train: Tensor, size: int | None, classes: int) -> Tensor:
    """The fixed subset of a training part: the first `size` of its indices, which are in stratified order.

    Raises:
        ValueError: `size` is smaller than the number of classes or larger than the part.
    """
    if size is None:
        return train
    if not classes <= size <= len(train):
        limits = f"{classes} (one image per class) to {len(train)} (all training images)"
        raise ValueError(f"train_size is {size}; it must be from {limits}")
    return train[:size]


def split_dataset(
    options: DataOptions,
    labels: Tensor,
    take: Callable[[Tensor], Split],
    classes: Sequence[str],
    test: Callable[[], Split] | int,
    validation: int | None = None,
    statistics: Statistics | None = None,
) -> Dataset:
    """Makes a data set by taking the validation part, fixed once and for all, from the images to train on.

    Args:
        options: give the name and the size of the training part.
        labels: [N], int64, of the images of all parts but those that are read otherwise.
        take: reads these images at indices [M].
        classes: the class of label 0, 1, ...
        test: reads the test part, or how many of the N images it takes.
        validation: how many the validation part takes; a tenth by default.
        statistics: mean and standard deviation of each channel; by default those of the training part.

    Raises:
        ValueError: as `stratified_pieces`, `first_images`, `pixel_statistics` and `Dataset`.
    """
    held_out = len(labels) // 10 if validation is None else validation
    sizes = (test, held_out) if isinstance(test, int) else (held_out,)
    *tested, chosen, train = stratified_pieces(labels, *sizes)
    training = take(first_images(train, options.train_size, len(classes)))
    read_test = test if callable(test) else lambda: take(tested[0])
    mean, std = statistics or pixel_statistics(training)
    return Dataset(options.name, training, take(chosen), read_test, tuple(classes), mean, std)
