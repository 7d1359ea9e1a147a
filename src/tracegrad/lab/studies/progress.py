"""Shows how runs go: a live table in a terminal, a line per run elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tracegrad.lab.ranks import is_first
from tracegrad.lab.runs.run import Run
from tracegrad.lab.train import Moment, Watch

FIELDS = ("epoch", "best", "test", "spikes")


class StudyProgress:
    """The runs of a study on a console: epoch, time left, best validation accuracy, result. A context manager.

    Args:
        console: where to show them.
        runs: all of them, in their order.
        complete: those of them that were so before; they are shown first.
    """

    def __init__(self, console: Console, runs: Sequence[Run], complete: Sequence[Run] = ()) -> None:
        self.console, self.complete = console, complete
        columns = [TextColumn("{task.description}", markup=False), BarColumn(20), TimeRemainingColumn()]
        columns += [TextColumn(f"{{task.fields[{name}]}}", markup=False, justify="right") for name in FIELDS]
        self.bars = Progress(*columns, console=console, disable=not console.is_terminal)
        self._tasks = {run.folder: self._add(run.label, "waiting") for run in runs}
        self._all = self._add("all runs", f"0/{len(runs)} runs", total=len(runs)) if len(runs) > 1 else None
        self._resumed: dict[TaskID, int] = {}

    def _add(self, label: str, epoch: str, total: float = 1.0) -> TaskID:
        return self.bars.add_task(label, start=False, total=total, epoch=epoch, best="", test="", spikes="")

    def __enter__(self) -> StudyProgress:
        self.bars.start()
        for run in self.complete:
            self.over(run, "complete already")
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def watch(self, run: Run) -> Watch:
        """What shows the training of a run."""
        task, epochs = self._tasks[run.folder], run.setting.training.epochs

        def show(moment: Moment) -> None:
            state = moment.state
            if moment.batch is None:
                self.bars.reset(task)
                self._resumed[task] = state.epoch
            epoch = f"{min(state.epoch + 1, epochs)}/{epochs}"
            best = f"{state.best_accuracy:.2%}" if state.rows else ""
            self.bars.update(task, completed=moment.share, epoch=epoch, best=best)
            self._update_all()

        return show

    def note(self, run: Run, text: str) -> None:
        """Shows something about a run instead of its epoch."""
        self.bars.update(self._tasks[run.folder], epoch=text)

    def over(self, run: Run, note: str = "") -> None:
        """Shows how a run that is over ended; `note` says how it came about, the seconds that it took by default."""
        if is_first():
            self._finish(run, run.read_result(), note) if run.complete else self._fail(run, run.diverged or "")

    def _finish(self, run: Run, result: dict[str, Any], note: str) -> None:
        task, epochs = self._tasks[run.folder], result["epochs"]  # none for a conversion
        test, spikes = f"{result['test_accuracy']:.2%}", f"{result['spikes_per_image'] / 1e3:.2f} K"
        best, epoch = f"{result['validation_accuracy']:.2%}", f"{epochs}/{epochs}" if epochs else "done"
        self.bars.update(task, completed=1.0, epoch=epoch, best=best, test=f"test {test}", spikes=spikes)
        note = note or f"{result['seconds']:.0f} s"
        if self._resumed.get(task):
            note += f", resumed after epoch {self._resumed[task]}"
        self._line(f"{run.label}: test {test}, {spikes} spikes per image ({note})")

    def _fail(self, run: Run, reason: str) -> None:
        self.bars.update(self._tasks[run.folder], completed=1.0, epoch="diverged")
        self._line(f"diverged: {reason}")

    def _line(self, text: str) -> None:
        self._update_all()
        if not self.console.is_terminal:
            self.console.print(text, soft_wrap=True, highlight=False, markup=False, emoji=False)

    def _update_all(self) -> None:
        if self._all is not None:
            tasks = [task for task in self.bars.tasks if task.id != self._all]
            done = f"{sum(task.completed >= 1 for task in tasks)}/{len(tasks)} runs"
            self.bars.start_task(self._all)
            self.bars.update(self._all, completed=sum(task.completed for task in tasks), epoch=done)
