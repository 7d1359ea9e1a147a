"""Shows how runs go: a live bar per run in a terminal, a line per run elsewhere."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tracegrad.lab.runs import Run


class RunProgress:
    """The runs of a study on a console: epoch, time left, best validation accuracy, result. A context manager.

    Args:
        console: where to show them.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            TextColumn("{task.fields[epoch]}/{task.fields[epochs]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[outcome]}"),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> RunProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def callback(self, run: Run) -> Callback:
        """A Lightning callback that shows the training of `run`."""
        epochs = run.recipe.training.epochs
        task = self._bars.add_task(run.label, total=None, epoch=0, epochs=epochs, outcome="")
        return _Bar(self._bars, task)

    def finish(self, run: Run, result: dict[str, Any], skipped: bool = False) -> None:
        """Shows the result of a run."""
        outcome = f"test {result['test_accuracy']:.2%}, {result['spikes_per_image'] / 1e3:.2f} K spikes"
        if self.console.is_terminal and not skipped:
            self._bars.update(self._bars.task_ids[-1], outcome=outcome)
        else:
            note = "complete already" if skipped else f"{result['seconds']:.0f} s"
            self.console.print(f"{run.label}: {outcome} per image ({note})", soft_wrap=True, highlight=False)


class _Bar(Callback):
    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars, self._task, self._best = bars, task, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        steps = int(trainer.num_training_batches)
        self._bars.update(self._task, total=(trainer.max_epochs or 0) * steps, completed=trainer.global_step)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bars.update(self._task, epoch=trainer.current_epoch + 1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._bars.advance(self._task)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._best = max(self._best, float(trainer.callback_metrics["validation_accuracy"]))
        self._bars.update(self._task, outcome=f"best validation {self._best:.2%}")
