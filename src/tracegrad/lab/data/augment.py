"""Augmentation of whole batches: random crop with padding, horizontal flip, CutMix."""

import torch
import torch.nn.functional as F
from scipy.special import betaincinv
from torch import Generator, Tensor

Box = tuple[int, int, int, int]
"""Rows from the first number to the second, columns from the third to the fourth, the ends excluded."""


def crop_and_flip(images: Tensor, top: Tensor, left: Tensor, flip: Tensor, padding: int) -> Tensor:
    """Pads each image with zeros, cuts a window of the image's own size out of it, and mirrors it where asked.

    Args:
        images: [B, C, H, W].
        top: [B], the window's first row in the padded image, 0 to 2 * padding.
        left: [B], its first column.
        flip: [B], bool: mirror the window left to right.
        padding: pixels on every side.

    Returns:
        [B, C, H, W].
    """
    height, width = images.shape[2:]
    windows = F.pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)  # [B, C, top, left, H, W]
    crops = windows[torch.arange(len(images)), :, top, left]
    return torch.where(flip[:, None, None, None], crops.flip(3), crops)


def random_crop_and_flip(images: Tensor, padding: int, flip: bool, generator: Generator) -> Tensor:
    """`crop_and_flip` with a window and, if `flip`, a coin per image from `generator`."""
    batch = len(images)
    top = torch.randint(2 * padding + 1, (batch,), generator=generator)
    left = torch.randint(2 * padding + 1, (batch,), generator=generator)
    coins = torch.rand(batch, generator=generator) < 0.5
    return crop_and_flip(images, top, left, coins & flip, padding)


def random_beta(alpha: float, generator: Generator) -> float:
    """A draw from Beta(alpha, alpha): the inverse of its distribution function at a uniform number."""
    return float(betaincinv(alpha, alpha, torch.rand((), dtype=torch.float64, generator=generator).item()))


def random_box(height: int, width: int, alpha: float, generator: Generator) -> Box:
    """CutMix's box: the share 1 - lambda of the image, lambda from Beta(alpha, alpha), around a uniform centre.

    The box is cut off at the image's borders, so it can be smaller than that share.
    """
    side = (1 - random_beta(alpha, generator)) ** 0.5
    row, column = (int(torch.randint(size, (), generator=generator)) for size in (height, width))
    half_height, half_width = int(side * height / 2), int(side * width / 2)
    rows = max(row - half_height, 0), min(row + half_height, height)
    return *rows, max(column - half_width, 0), min(column + half_width, width)


def cutmix(images: Tensor, labels: Tensor, classes: int, box: Box) -> tuple[Tensor, Tensor]:
    """Fills `box` of each image from the image before it in the batch, and mixes the targets by the areas.

    Args:
        images: [B, C, H, W].
        labels: [B], int64.
        classes: the number of classes K.
        box: the same for the whole batch, as in torchvision.

    Returns:
        The mixed images, and target probabilities [B, K] in float32.

    Source: S. Yun et al., CutMix, ICCV 2019 (arXiv:1905.04899).
    """
    top, bottom, left, right = box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images.roll(1, 0)[:, :, top:bottom, left:right]
    share = (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])
    targets = F.one_hot(labels, classes).float()
    return mixed, (1 - share) * targets + share * targets.roll(1, 0)
