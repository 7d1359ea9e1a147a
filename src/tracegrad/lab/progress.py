"""Shows how runs go: a live table in a terminal, a line per run elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import rich.box
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.live import Live
from rich.table import Table

from tracegrad.lab.runs import Run


@dataclass
class _Row:
    """What the table shows of one run.

    Args:
        label: of the run.
        epochs: in all.
        epoch: the current one, from 1; 0 before the first.
        resumed: epochs that an earlier sitting did.
        begun: when this sitting began.
        share: of the run that is done, 0 to 1.
        best: validation accuracy so far.
        result: content of result.json.
    """

    label: str
    epochs: int
    epoch: int = 0
    resumed: int = 0
    begun: float = 0.0
    share: float = 0.0
    best: float | None = None
    result: dict[str, Any] | None = None

    @property
    def whole(self) -> float | None:
        """Seconds that the run takes from beginning to end; None before there is anything to judge by."""
        here = self.share - self.resumed / self.epochs
        return (time.monotonic() - self.begun) / here if here > 0 else None

    def cells(self) -> tuple[str, ...]:
        """Run, epoch, time left, best validation accuracy, test accuracy, spikes."""
        if self.result:
            accuracies = (f"{self.result[name]:.2%}" for name in ("validation_accuracy", "test_accuracy"))
            spikes = f"{self.result['spikes_per_image'] / 1e3:.2f} K"
            epochs = self.result["epochs"]  # none for a conversion
            return self.label, f"{epochs}/{epochs}" if epochs else "–", "done", *accuracies, spikes
        left = "" if self.whole is None else _duration(self.whole * (1 - self.share))
        best = "" if self.best is None else f"{self.best:.2%}"
        return self.label, f"{self.epoch}/{self.epochs}", left if self.epoch else "waiting", best, "", ""


class RunProgress:
    """The runs of a study on a console: epoch, time left, best validation accuracy, result. A context manager.

    Args:
        console: where to show them.
        runs: all of them, in their order.
    """

    def __init__(self, console: Console, runs: Sequence[Run]) -> None:
        self.console = console
        self._rows = {run.folder: _Row(run.label, run.setting.training.epochs) for run in runs}
        self._live = Live(get_renderable=self.table, console=console) if console.is_terminal else None

    def __enter__(self) -> RunProgress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def callback(self, run: Run) -> Callback:
        """A Lightning callback that shows the training of `run`."""
        return _Watch(self._rows[run.folder])

    def finish(self, run: Run, result: dict[str, Any], skipped: bool = False) -> None:
        """Shows the result of a run."""
        row = self._rows[run.folder]
        row.result = result
        if self._live:
            return
        note = "complete already" if skipped else f"{result['seconds']:.0f} s"
        if row.resumed:
            note += f", resumed after epoch {row.resumed}"
        outcome = f"test {result['test_accuracy']:.2%}, {result['spikes_per_image'] / 1e3:.2f} K spikes per image"
        self.console.print(f"{run.label}: {outcome} ({note})", soft_wrap=True, highlight=False)

    def table(self) -> Table:
        """The runs as they are now."""
        rows = list(self._rows.values())
        done = sum(row.result is not None for row in rows)
        caption = None if done == len(rows) else f"{done} of {len(rows)} runs done{_time_left(rows)}"
        table = Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=caption, caption_justify="left")
        table.add_column("Run", no_wrap=True)
        for name in ("Epoch", "Time left", "Best validation", "Test", "Spikes"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*row.cells())
        return table


class _Watch(Callback):
    """Keeps a row up to date."""

    def __init__(self, row: _Row) -> None:
        self._row = row

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._row.begun = time.monotonic()
        self._row.resumed = trainer.current_epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._row.epoch = trainer.current_epoch + 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        steps = int(trainer.num_training_batches) * self._row.epochs
        self._row.share = trainer.global_step / steps

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        accuracy = float(trainer.callback_metrics["validation_accuracy"])
        self._row.best = max(self._row.best or 0.0, accuracy)


def _time_left(rows: Sequence[_Row]) -> str:
    """What is left of the whole study, if every run takes as long as the present one."""
    running = next((row for row in rows if row.epoch and not row.result), None)
    if running is None or running.whole is None:
        return ""
    waiting = sum(not row.epoch and not row.result for row in rows)
    return f", {_duration(running.whole * (1 - running.share + waiting))} left"


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds: 0:01:05."""
    return str(timedelta(seconds=round(seconds)))
