"""Moving images before a simulated event camera: nothing but the order of events tells the classes apart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Generator, Tensor

from tracegrad.event_camera import EventCamera, Events, record, to_frames
from tracegrad.lab.data.dataset import Dataset, Split, unnormalised
from tracegrad.lab.data.options import DataOptions, own_options
from tracegrad.lab.values import require

DIRECTIONS = ("A-B-C", "C-B-A")
VISITS = 4  # of A, B, C and A again, from any of the three on
VISIT_STEPS = 40  # milliseconds, there and back
CONTRAST = 1.5  # in log intensity: an image's brightest pixel to its darkest is 4.5 to 1
CAMERA = EventCamera()
TOGETHER = 250  # images that are recorded at once
SEEDS = {"train": 0, "validation": 1, "test": 2}  # no part of a run's seed: every run sees the same recordings


@dataclass(frozen=True)
class Moving:
    """The options of the data set `moving`.

    Args:
        images: what moves: "digits" or "fashion-mnist".
        frames: T, a multiple of the four visits.
        counts: numbers of events, instead of whether there was one.
        image_class: the class is the image's and the direction, instead of the direction alone.
        repeats: how many times each image is recorded, each time in both directions.
        size: height and width of the sensor in pixels.
        reach: pixels from the centre to A, B and C, under half the size; the image fills what remains.
        shot_noise: random events per second and pixel: the darker the scene, the more.

    Raises:
        ValueError: a reach out of its range, or negative noise.
    """

    images: Literal["digits", "fashion-mnist"] = "digits"
    frames: Annotated[PositiveInt, Field(multiple_of=VISITS)] = 16
    counts: bool = False
    image_class: bool = False
    repeats: PositiveInt = 5
    size: PositiveInt = 16
    reach: PositiveFloat = 3.0
    shot_noise: NonNegativeFloat = CAMERA.shot_noise

    def __post_init__(self) -> None:
        require(self.reach < self.size / 2, "reach", f"under half the size, {self.size / 2:g}", self.reach)


def load_moving(options: DataOptions) -> Dataset:
    """Saccades along A-B-C or C-B-A before an image, as an event camera sees them; the direction is the class.

    A saccade goes from the centre to A and back, to B and back, to C and back, and to the first again; its time
    reversal does so in the opposite order, over the same image. Which point is first, and whether the image is bright
    on dark or dark on bright, is drawn per recording. So start, length and speed are the same for both directions, and
    any frame by itself is as likely in one as in the other. Between two visits the camera rests at the centre until its
    pixels have forgotten the last one; the rest is not recorded. Twins are made of the same four visits, in opposite
    order: their events are the same but for time. `train_size`, `root` and `download` are of the images that move; the
    recordings of an image are all in one part.

    Raises:
        ValueError: an option out of its range.
        OSError: as the images' own loader.
    """
    from tracegrad.lab.data.catalog import load  # which knows this loader

    own = own_options(Moving, options)
    still = load(DataOptions(own.images, options.root, options.download, options.train_size))

    def recorded(part: str) -> Split:
        return _recorded(getattr(still, part), own, Generator().manual_seed(SEEDS[part]))

    names = [f"{name} {way}" for name in still.classes for way in DIRECTIONS] if own.image_class else DIRECTIONS
    mean, std = unnormalised(2)
    return Dataset(
        name=options.name,
        train=recorded("train"),
        validation=recorded("validation"),
        read_test=lambda: recorded("test"),
        classes=tuple(names),
        mean=mean,
        std=std,
        mirrors=False,
    )


def twins(images: Tensor, own: Moving, generator: Generator) -> Iterator[Events]:
    """Records saccades A-B-C over images, and their twins C-B-A.

    Args:
        images: [B, H, W], from 0 to 1.
        own: options.
        generator: draws points, contrast and the camera's noise.

    Yields:
        Of each direction, the events of B recordings of `VISITS * VISIT_STEPS` milliseconds.
    """
    count = len(images)
    contrast = CONTRAST * (1 - 2 * torch.randint(2, (count, 1, 1), generator=generator))
    points = torch.randint(3, (count, 1), generator=generator) + torch.arange(VISITS)
    visits = _visits((contrast * images).repeat_interleave(VISITS, 0), points.flatten() % 3, own, generator)
    sample, visit = visits.sample // VISITS, visits.sample % VISITS
    for place in (visit, VISITS - 1 - visit):
        time = place * _microseconds(VISIT_STEPS) + visits.t
        order = (sample * _microseconds(VISITS * VISIT_STEPS) + time).argsort(stable=True)
        yield Events(*(each[order] for each in (sample, visits.x, visits.y, time, visits.p)))


def moved(images: Tensor, offsets: Tensor, size: int, zoom: float) -> Tensor:
    """What a sensor sees of images whose centres are off its own, interpolated bilinearly: [B, size, size].

    Args:
        images: [B, H, W]; around them is 0.
        offsets: [B, 2], in pixels of the sensor to the right and down.
        size: height and width of the sensor.
        zoom: pixels of the sensor per pixel of an image.
    """
    height, width = images.shape[1:]
    place = torch.arange(size) - (size - 1) / 2
    x = ((place - offsets[:, :1]) * 2 / (zoom * width))[:, None, :].expand(-1, size, -1)
    y = ((place - offsets[:, 1:]) * 2 / (zoom * height))[:, :, None].expand(-1, -1, size)
    return F.grid_sample(images[:, None], torch.stack([x, y], -1), align_corners=False)[:, 0]


def _visits(images: Tensor, points: Tensor, own: Moving, generator: Generator) -> Events:
    """Each image [B, H, W] goes to its point [B], 0 to 2 for A to C, and back, at constant speed."""
    angle = math.tau * points / 3
    point = own.reach * torch.stack([angle.sin(), -angle.cos()], 1)
    camera = replace(CAMERA, shot_noise=own.shot_noise)
    duration, zoom = VISIT_STEPS * CAMERA.dt, (own.size - 2 * own.reach) / images.shape[-1]
    return record(
        lambda time: moved(images, point * (1 - abs(2 * time / duration - 1)), own.size, zoom),
        VISIT_STEPS,
        camera,
        generator,
    )


def _recorded(still: Split, own: Moving, generator: Generator) -> Split:
    """The frames of both directions of every image, the twins side by side."""
    images, labels = still.images.repeat(own.repeats, 1, 1, 1)[:, 0], still.labels.repeat(own.repeats)
    duration, largest = _microseconds(VISITS * VISIT_STEPS), float(still.images.max())
    parts: list[Tensor] = []
    for some in images.split(TOGETHER):
        both = [
            to_frames(events, len(some), (own.size, own.size), own.frames, duration, own.counts)
            for events in twins(some / largest, own, generator)
        ]
        parts.append(torch.stack(both, 1).flatten(0, 1))
    direction = torch.arange(2).repeat(len(images))
    return Split(torch.cat(parts), direction + 2 * labels.repeat_interleave(2) if own.image_class else direction)


def _microseconds(steps: int) -> int:
    return round(steps * CAMERA.dt * 1e6)
