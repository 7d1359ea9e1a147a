"""The simulated event camera, against hand-computed events and a plain loop over pixels in float64."""

import math

import pytest
import torch

from tracegrad.event_camera import EventCamera, Events, record, to_frames

IDEAL = EventCamera(mismatch=0, leak=0, shot_noise=0, bandwidth=1e6)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_ramp_fires_at_hand_computed_times():
    # 10 units a second: 0.2 units take 20 ms, then the pixel is blind for 5 ms and starts anew
    camera = EventCamera(mismatch=0, leak=0, shot_noise=0, bandwidth=1e6, refractory=5e-3)
    signs = torch.tensor([1.0, -1.0]).view(1, 1, 2)
    events = record(lambda time: 10 * time * signs.double(), 80, camera, generator())
    assert events.t[events.x == 0].tolist() == pytest.approx([20_000, 45_000, 70_000], abs=1)
    assert torch.equal(events.t[events.x == 0], events.t[events.x == 1])
    assert events.p[events.x == 0].tolist() == [1, 1, 1]
    assert events.p[events.x == 1].tolist() == [0, 0, 0]


def test_the_photoreceptor_is_a_low_pass():
    # A step of 0.5 passes 0.2 after tau ln(0.5 / 0.3), tau = 1 / (2 pi f); 0.1 ms steps
    camera = EventCamera(mismatch=0, leak=0, shot_noise=0, bandwidth=10, dt=1e-4)
    events = record(
        lambda time: torch.full((1, 1, 1), 0.5 * (time > 0), dtype=torch.float64), 1000, camera, generator()
    )
    assert int(events.t[0]) == pytest.approx(1e6 / (2 * math.pi * 10) * math.log(0.5 / 0.3), abs=2)


def by_pixel(log_intensity, steps, camera, thresholds):
    """The model as its equations say, pixel by pixel, without noise: rows (sample, x, y, t, p)."""
    rows = []
    gain = 1 - math.exp(-2 * math.pi * camera.bandwidth * camera.dt)
    for sample, row, column in torch.cartesian_prod(*map(torch.arange, log_intensity(0.0).shape)).tolist():
        theta_on, theta_off = (float(each[sample, row, column]) for each in thresholds)
        y = memory = float(log_intensity(0.0)[sample, row, column])
        sees_from = 0.0
        for step in range(steps):
            before = y
            y += gain * (float(log_intensity((step + 1) * camera.dt)[sample, row, column]) - y)
            if step < sees_from:
                memory = before + min(sees_from - step, 1) * (y - before)
            for threshold, sign in ((theta_on, 1), (-theta_off, 0)):
                if (y - memory - threshold) * (1 if sign else -1) >= 0:
                    within = (memory + threshold - before) / (y - before)
                    rows.append((sample, column, row, int((step + within) * camera.dt * 1e6), sign))
                    sees_from, memory = step + within + camera.refractory / camera.dt, y
                    break
    return sorted(rows)


def test_equal_to_a_loop_over_pixels():
    camera = EventCamera(leak=0, shot_noise=0, refractory=2.5e-3)
    phase, speed = torch.rand(2, 3, 4, 5, generator=generator(1), dtype=torch.float64)

    def log_intensity(time):
        return torch.sin(6 * phase + 150 * time * speed)

    thresholds = camera.thresholds((3, 4, 5), generator(7))
    assert 0.02 < thresholds.std() < 0.04
    expected = by_pixel(log_intensity, 60, camera, thresholds.double())
    events = record(log_intensity, 60, camera, generator(7))
    found = sorted(zip(*(each.tolist() for each in events), strict=True))
    assert len(found) == len(expected) > 300
    for mine, right in zip(found, expected, strict=True):
        assert (mine[:3], mine[4]) == (right[:3], right[4])
        assert abs(mine[3] - right[3]) <= 1
    assert (events.sample.diff() >= 0).all()
    assert (events.t.diff()[events.sample.diff() == 0] >= 0).all()


def test_leak_and_shot_noise_on_a_still_scene():
    still = torch.zeros(2, 20, 20)
    leaking = record(lambda time: still, 500, EventCamera(mismatch=0, leak=3, shot_noise=0), generator())
    assert (leaking.p == 1).all()
    assert len(leaking.t) == pytest.approx(800 * 1.5, rel=0.05)  # 3 a second for half a second
    assert leaking.t.double().mean() == pytest.approx(250_000, rel=0.05)  # from the start on
    noisy = record(lambda time: still, 500, EventCamera(leak=0, shot_noise=8), generator())
    assert len(noisy.t) == pytest.approx(3200, abs=5 * 3200**0.5)
    assert noisy.p.double().mean() == pytest.approx(0.5, abs=0.05)
    assert (noisy.t % 1000).double().mean() == pytest.approx(500, abs=30)


def test_at_most_one_event_in_a_refractory_period():
    camera = EventCamera(refractory=4e-3, shot_noise=50)
    events = record(lambda time: torch.full((1, 8, 8), 40 * time), 200, camera, generator())
    for pixel in range(64):
        assert (events.t[events.y * 8 + events.x == pixel].diff() >= 3_999).all()


def test_equal_seeds_give_equal_events():
    def recorded(seed):
        return record(lambda time: torch.full((2, 6, 6), 5 * time), 100, EventCamera(), generator(seed))

    assert all(map(torch.equal, recorded(0), recorded(0)))
    assert not torch.equal(recorded(0).t[:50], recorded(1).t[:50])


def hand_made():
    rows = [(0, 2, 1, 0, 1), (0, 2, 1, 499, 1), (0, 0, 0, 500, 0), (1, 1, 1, 999, 1), (1, 0, 1, 1000, 1)]
    return Events(*torch.tensor(rows).T)


def test_frames_of_hand_made_events():
    frames = to_frames(hand_made(), 2, (2, 3), time_steps=2, duration=1000, counts=True)
    expected = torch.zeros(2, 2, 2, 2, 3, dtype=torch.uint8)
    expected[0, 0, 1, 1, 2] = 2
    expected[0, 1, 0, 0, 0] = 1
    expected[1, 1, 1, 1, 1] = 1  # the last event is after the end
    assert torch.equal(frames, expected)
    assert torch.equal(to_frames(hand_made(), 2, (2, 3), 2, 1000), expected.clamp(max=1))


def test_counts_stop_at_255():
    zeros = torch.zeros(300, dtype=torch.int64)
    assert to_frames(Events(zeros, zeros, zeros, zeros, zeros), 1, (1, 1), 1, 10, counts=True).flatten().tolist() == [
        255,
        0,
    ]


def test_events_outside_of_the_sensor_are_refused():
    with pytest.raises(ValueError, match="outside of the sensor of 1 x 3 pixels"):
        to_frames(hand_made(), 2, (1, 3), 2, 1000)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"threshold": 0}, "threshold is 0; it must be positive"),
        ({"leak": -1}, "leak is -1; it must be 0 or more"),
        ({"shot_noise": float("nan")}, "shot_noise is nan"),
        ({"refractory": 5e-4}, "refractory is 0.0005 s; it must be one step, 0.001 s, or more"),
    ],
)
def test_constants_that_cannot_be_are_refused(constants, message):
    with pytest.raises(ValueError, match=message):
        EventCamera(**constants)
