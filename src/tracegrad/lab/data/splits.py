"""Fixed stratified splits: every part holds each class in its share."""

import torch
from torch import Tensor

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
