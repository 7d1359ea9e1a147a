"""Keeps what a run changes in the process inside the run."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

LOGGERS = ("lightning.pytorch", "lightning.fabric", "matplotlib")


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Runs a block from its own seed, deterministically on CPUs; random state and settings are restored after it.

    Args:
        seed: for what draws from torch's global generator, such as initial weights.
    """
    deterministic, warn_only = torch.are_deterministic_algorithms_enabled(), (
        torch.is_deterministic_algorithms_warn_only_enabled()
    )
    fill = torch.utils.deterministic.fill_uninitialized_memory
    interrupt = signal.getsignal(signal.SIGINT)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.utils.deterministic.fill_uninitialized_memory = False  # would cost time and changes no result
        torch.use_deterministic_algorithms(not torch.cuda.is_available())  # on GPUs it costs time
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.utils.deterministic.fill_uninitialized_memory = fill
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, interrupt)  # Lightning ignores it after the first Ctrl-C


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Lightning's tips and notes, which are not addressed to our users, off the screen."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
