"""Keeps what a run changes in the process inside the run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.deterministic

deterministic_options: Any = torch.utils.deterministic  # its module type hides the option from type checkers
LOGGERS = ("lightning_fabric", "lightning.fabric", "matplotlib", "torch")


@contextmanager
def isolated(seed: int, threads: int | None = None) -> Generator[None]:
    """Runs a block from its own seed, deterministically on CPUs; random state and settings are restored after it.

    Args:
        seed: for what draws from torch's global generator, such as initial weights.
        threads: CPU threads of PyTorch; None leaves them as they are.
    """
    mode, fill = torch.get_deterministic_debug_mode(), deterministic_options.fill_uninitialized_memory
    before = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.set_num_threads(threads or before)
        deterministic_options.fill_uninitialized_memory = False  # would cost time and changes no result
        torch.use_deterministic_algorithms(not torch.cuda.is_available())  # on GPUs it costs time
        try:
            yield
        finally:
            torch.set_num_threads(before)
            torch.set_deterministic_debug_mode(mode)
            deterministic_options.fill_uninitialized_memory = fill


@contextmanager
def quiet() -> Generator[None]:
    """Keeps tips and notes of libraries, which are not addressed to our users, off the screen; errors stay."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view")  # costs DDP little
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
