"""Shows how far a section is: a bar in a terminal, a line at its end."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class SectionProgress:
    """The progress of one section on a console. A context manager.

    Args:
        console: where to show it.
        section: its name.
    """

    def __init__(self, console: Console, section: str) -> None:
        self._console = console
        self._section = section
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        # Drawn between measurements alone: a thread that draws would take time from what is timed.
        self._bar = Progress(*columns, console=console, auto_refresh=False, transient=True)
        self._task = self._bar.add_task(section, total=None)

    def __enter__(self) -> SectionProgress:
        self._begun = time.monotonic()
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()
        if kind is None:
            seconds = time.monotonic() - self._begun
            self._console.print(f"{self._section}: measured in {seconds:.0f} s", soft_wrap=True, highlight=False)

    def expect(self, total: int) -> None:
        """Says how many measurements there are."""
        self._bar.update(self._task, total=total)
        self._refresh()

    def advance(self) -> None:
        """One measurement more is done."""
        self._bar.advance(self._task)
        self._refresh()

    def _refresh(self) -> None:
        if self._console.is_terminal:
            self._bar.refresh()
