"""Checkpoints: written whole, read with care, the last two kept."""

from __future__ import annotations

import hashlib
import io
import logging
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from tracegrad.lab.files import write
from tracegrad.lab.recipe.parts import EVERY
from tracegrad.lab.runs.run import Run

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
MAGIC = b"tracegrad checkpoint 1\n"  # and 32 bytes of SHA-256 over all that follows
log = logging.getLogger(__name__)


class Interval:
    """When the next checkpoint is due.

    Args:
        every: `training.checkpoint_every` of a recipe: "90s", "5min", "1h" or "500steps".
    """

    def __init__(self, every: str) -> None:
        number, unit = EVERY.fullmatch(every).groups()  # pyright: ignore[reportOptionalMemberAccess] - it was checked
        self._by_steps = unit == "steps"
        self._most = int(number) * {"s": 1, "min": 60, "h": 3600, "steps": 1}[unit]
        self.begin()

    def begin(self) -> None:
        """Counts anew from here."""
        self._begun, self._steps = time.monotonic(), 0

    def is_over(self) -> bool:
        """Counts a step; whether a checkpoint is due now, from which on it counts anew."""
        self._steps += 1
        over = (self._steps if self._by_steps else time.monotonic() - self._begun) >= self._most
        if over:
            self.begin()
        return over


def write_checkpoint(path: Path, content: Mapping[str, Any], keep: Path | None = None) -> None:
    """Writes a checkpoint, whole or not at all, with a digest over all of it.

    Raises:
        OSError: the folder cannot be written to.
    """
    file = io.BytesIO()
    torch.save(dict(content), file)
    data = file.getvalue()
    write(path, MAGIC + hashlib.sha256(data).digest() + data, keep)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint to the CPU, after its digest was found to be right.

    Raises:
        ValueError: the file is damaged, or holds something else.
        FileNotFoundError: it is missing.
    """
    try:
        data = path.read_bytes()
        head = len(MAGIC) + 32
        if not data.startswith(MAGIC) or hashlib.sha256(data[head:]).digest() != data[len(MAGIC) : head]:
            raise ValueError("its digest is wrong")  # noqa: TRY301
        with zipfile.ZipFile(io.BytesIO(data[head:])) as archive:  # one that is packed could unpack to anything
            if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):
                raise ValueError("it is packed")  # noqa: TRY301
        checkpoint = torch.load(io.BytesIO(data[head:]), map_location="cpu", weights_only=True)
        if not all(isinstance(value, Tensor) for value in checkpoint["model"].values()):
            raise ValueError("its weights are no tensors")  # noqa: TRY301
    except FileNotFoundError:
        raise
    except Exception as error:  # what is wrong inside a file can be anything
        raise ValueError(f"{path} is damaged ({shorten(str(error), 80) or type(error).__name__})") from None
    return checkpoint


def latest_checkpoint(run: Run) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to go on from: the last one, or the one before it if that is damaged; None if there is none.

    Raises:
        ValueError: there are checkpoints, and all of them are damaged.
    """
    damages: list[str] = []
    for path in (run.checkpoints / LAST, run.checkpoints / PREVIOUS):
        try:
            checkpoint = read_checkpoint(path)
        except FileNotFoundError:
            continue
        except ValueError as error:
            damages.append(str(error))
        else:
            if damages:
                log.warning("%s; going on from %s, after epoch %d", damages[0], path.name, checkpoint.get("epoch", 0))
            return path, checkpoint
    if damages:
        advice = f"begin it again with --no-resume, or remove {run.folder}"
        raise ValueError(f"no checkpoint is left to go on from: {', '.join(damages)}; {advice}")
    return None


def kept_weights(run: Run) -> dict[str, Tensor]:
    """The weights of a run that are tested: its best epoch's or its last one's, as `training.keep` says.

    Raises:
        ValueError: the file is damaged or missing.
    """
    try:
        return read_checkpoint(run.weights)["model"]
    except (FileNotFoundError, ValueError) as error:
        advice = f"remove {run.folder / 'result.json'} and start the run again: it is written anew from {LAST}"
        raise ValueError(f"{error}; {advice}") from None


def save_weights(run: Run, weights: Mapping[str, Tensor]) -> None:
    """Writes the weights of a network that are tested.

    Raises:
        OSError: the folder cannot be written to.
    """
    write_checkpoint(run.weights, {"model": dict(weights)})


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Loads weights into a network.

    Args:
        network: takes the weights.
        weights: as its `state_dict`.
        path: where the weights come from, for the error.

    Raises:
        ValueError: they are those of another network.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path} is the checkpoint of another network: {shorten(str(error), 400)}") from None
