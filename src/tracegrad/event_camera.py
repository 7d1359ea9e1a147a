"""An event camera: log intensities over time to events, and events to frames.

Each pixel follows the model of ESIM and v2e, in steps of `dt`. With `L` the logarithm of the light's intensity, `y`
what the photoreceptor makes of it, and `m` the level that the pixel remembers from its last event:

    y <- y + (1 - exp(-2 pi f dt)) (L - y)      finite bandwidth f
    m <- m - theta_on r dt                      leak: on a still scene, r ON events per second
    ON  where y - m >= theta_on,  OFF  where m - y >= theta_off

An event's time lies within the step, where `y`, taken as a straight line, crosses the threshold. Shot noise adds events
of either sign at random. After an event the pixel is blind for the refractory period, at whose end `m = y`.

Sources: P. Lichtsteiner, C. Posch and T. Delbruck, IEEE J. Solid-State Circuits 43 (2008), the pixel; H. Rebecq,
D. Gehrig and D. Scaramuzza, ESIM, CoRL 2018, times of events; Y. Hu, S.-C. Liu and T. Delbruck, v2e, CVPR Workshops
2021 (arXiv:2006.07722), thresholds, bandwidth and noise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class EventCamera:
    """The pixels' constants.

    Args:
        threshold: mean of theta_on and of theta_off, in units of log intensity.
        mismatch: standard deviation of both over the pixels.
        bandwidth: f, the photoreceptor's cut-off frequency in Hz.
        leak: r, ON events per second and pixel on a still scene.
        shot_noise: random events per second and pixel, half of them ON.
        refractory: seconds for which a pixel is blind after an event; at least `dt`, so one event a step.
        dt: seconds per step.

    Raises:
        ValueError: a constant that is not positive (mismatch, leak and noise may be 0), or refractory below `dt`.
    """

    threshold: float = 0.2
    mismatch: float = 0.03
    bandwidth: float = 200.0
    leak: float = 0.1
    shot_noise: float = 1.0
    refractory: float = 1e-3
    dt: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("threshold", "bandwidth", "dt"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")
        for name in ("mismatch", "leak", "shot_noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not self.dt <= self.refractory < math.inf:
            raise ValueError(f"refractory is {self.refractory} s; it must be one step, {self.dt} s, or more")

    def thresholds(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """theta_on and theta_off of pixels, [2, *shape]: normal, and at least a tenth of the mean."""
        drawn = self.threshold + self.mismatch * torch.randn(2, *shape, generator=generator)
        return drawn.clamp(min=self.threshold / 10)


class Events(NamedTuple):
    """Events of several recordings, sorted by recording and time; all [N], int64.

    Args:
        sample: the recording, from 0.
        x: the column.
        y: the row.
        t: microseconds since the recording began.
        p: 1 for ON, 0 for OFF.
    """

    sample: Tensor
    x: Tensor
    y: Tensor
    t: Tensor
    p: Tensor


def record(
    log_intensity: Callable[[float], Tensor],
    steps: int,
    camera: EventCamera,
    generator: Generator,
) -> Events:
    """Records several scenes at once, each by a camera with thresholds of its own.

    Each camera has rested on its scene for long before: with a leak, `y - m` is anywhere between 0 and theta_on.

    Args:
        log_intensity: of a time in seconds, 0 to `steps * dt`; [B, H, W].
        steps: of the recording.
        camera: the pixels' constants.
        generator: draws thresholds, the state at the start, and noise.
    """
    dt, noise = camera.dt, camera.shot_noise * camera.dt
    gain = 1 - math.exp(-2 * math.pi * camera.bandwidth * dt)
    y = log_intensity(0.0)
    theta_on, theta_off = camera.thresholds(y.shape, generator)
    memory = y - torch.rand(y.shape, generator=generator) * theta_on * (camera.leak > 0)
    seeing_from = torch.zeros_like(y)  # in steps
    kept: list[Tensor] = []
    for step in range(steps):
        before, y = y, torch.lerp(y, log_intensity((step + 1) * dt), gain)
        blind = (seeing_from - step).clamp(0, 1)  # the part of this step
        memory = torch.where(blind > 0, torch.lerp(before, y, blind), memory - camera.leak * dt * theta_on)
        change, chance = y - memory, torch.rand(y.shape, generator=generator)
        on, off = change >= theta_on, change <= -theta_off
        place = (on | off | ((chance < noise) & (blind == 0))).nonzero(as_tuple=True)
        to_threshold = (torch.where(on, theta_on, -theta_off) + memory - before)[place] / (y - before)[place]
        by_light, chance = (on | off)[place], chance[place] / noise if noise else chance[place]
        within = torch.where(by_light, to_threshold.nan_to_num(0).clamp(0, 1), (2 * chance) % 1)
        memory[place], seeing_from[place] = y[place], step + within + camera.refractory / dt
        sample, row, column = place
        time = ((step + within.double()) * dt * 1e6).long().clamp(max=round((step + 1) * dt * 1e6) - 1)
        sign = torch.where(by_light, on[place], chance < 0.5).long()
        kept.append(torch.stack([sample, column, row, time, sign]))
    events = torch.cat(kept, 1)
    order = (events[0] * (steps + 1) * math.ceil(dt * 1e6) + events[3]).argsort(stable=True)
    return Events(*events[:, order])


def to_frames(
    events: Events, samples: int, size: tuple[int, int], time_steps: int, duration: int, counts: bool = False
) -> Tensor:
    """The frames of recordings, uint8 [samples, T, 2, H, W]: channel 0 of OFF events, channel 1 of ON events.

    Args:
        events: of recordings numbered below `samples`.
        samples: how many recordings.
        size: height and width of the sensor in pixels.
        time_steps: T, of equal length.
        duration: of a recording in microseconds; later events are left out.
        counts: numbers of events, at most 255, instead of whether there was one.

    Raises:
        ValueError: an event outside the sensor, or before the start.
    """
    height, width = size
    sample, x, y, t, p = events
    if len(t) and (t.min() < 0 or x.min() < 0 or y.min() < 0 or x.max() >= width or y.max() >= height):
        raise ValueError(f"an event is before the start or outside of the sensor of {height} x {width} pixels")
    kept = t < duration
    step = t * time_steps // duration
    index = (((sample * time_steps + step) * 2 + p) * height + y) * width + x
    number = torch.bincount(index[kept], minlength=samples * time_steps * 2 * height * width)
    return number.clamp(max=255 if counts else 1).to(torch.uint8).view(samples, time_steps, 2, height, width)
