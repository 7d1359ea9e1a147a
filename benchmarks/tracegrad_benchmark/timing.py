"""Times pieces of work side by side, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch

Name = TypeVar("Name", bound=Hashable)

WARM_UP = 3  # calls: the first compiles, the next ones find out what memory they need


def alternate(
    works: Mapping[Name, Callable[[], object]], rounds: int, device: str, advance: Callable[[], None]
) -> dict[Name, list[float]]:
    """Times every work once per round, in an order that is drawn anew, after all of them are warm.

    Args:
        works: by name.
        rounds: how many.
        device: whose end of work is waited for.
        advance: called after each call of a work, the first `WARM_UP` of each too.

    Returns:
        Seconds of each work, by round.
    """
    for work in works.values():
        for _ in range(WARM_UP):
            work()
            advance()
    order, shuffle = list(works), random.Random(0).shuffle
    seconds: dict[Name, list[float]] = {name: [] for name in works}
    synchronize = torch.get_device_module(device).synchronize
    with _uncollected():
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                synchronize()
                begun = time.perf_counter()
                works[name]()
                synchronize()
                seconds[name].append(time.perf_counter() - begun)
                advance()
    return seconds


@contextmanager
def _uncollected() -> Generator[None]:
    """No garbage collection inside the block."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
