"""Alpha over a training."""

import math

import pytest

import tracegrad as tg


def test_constant() -> None:
    schedule = tg.AlphaSchedule("constant", 0.3)
    assert [schedule(step) for step in (0, 1, 1000)] == [0.3] * 3


def test_a_line_from_zero() -> None:
    schedule = tg.AlphaSchedule("warmup", 0.4, steps=4)
    assert [schedule(step) for step in range(7)] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4], abs=1e-15)


def test_half_a_cosine_to_zero() -> None:
    schedule = tg.AlphaSchedule("cosine", 0.4, steps=4)
    expected = [0.4, 0.2 + 0.2 * math.sqrt(0.5), 0.2, 0.2 - 0.2 * math.sqrt(0.5), 0.0, 0.0]
    assert [schedule(step) for step in range(6)] == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            ("line", 0.1),
            ValueError,
            "unknown course 'line' of alpha; the known ones are 'constant', 'warmup', 'cosine'",
        ),
        (("cosine", 1.5), ValueError, r"alpha must be in \[0, 1\], not 1.5"),
        (("cosine", "0.1"), TypeError, "alpha must be a number"),
        (("warmup", 0.1, 0), ValueError, "over 1 step or more, not 0"),
    ],
)
def test_wrong_schedules_are_refused(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tg.AlphaSchedule(*arguments)
