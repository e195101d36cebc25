"""What the user sees of a study: how many runs have ended, and how far those under way are."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from ..messages import printable
from .collect import collect
from .study import Planned


class PhaseProgress:
    """The progress of one phase of a study.

    As each run begins and ends a line says so. On a terminal there is also a bar at the bottom, and under it the last line that each
    run under way has written.
    """

    def __init__(self, name: str, total: int, console: Console) -> None:
        self._name, self._console = name, console
        self._active: list[Planned] = []
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task(name, total=total)
        self._num_ended, self._total = 0, total

    def shown(self) -> AbstractContextManager[Any]:
        """The time in which the bar is on the terminal, if there is one."""
        if not self._console.is_terminal:
            return nullcontext()
        return Live(self, console=self._console, refresh_per_second=2, transient=True)

    def begins(self, run: Planned) -> None:
        """A run begins, or is tried once more."""
        self._active.append(run)
        self._line(f"{self._name}: {_name(run)} begins, its output goes to {run.log}")

    def fails(self, run: Planned, error: str) -> None:
        """A run has crashed for the first time."""
        self._active.remove(run)
        self._line(f"{self._name}: {_name(run)} crashed and is tried once more: {error}")

    def ends(self, run: Planned, error: str | None) -> None:
        """A run has ended, with why it crashed or None, or it had been before the study began."""
        if run in self._active:
            self._active.remove(run)
        self._num_ended += 1
        self._bar.advance(self._task)
        self._line(f"{self._name} {self._num_ended}/{self._total}: {_name(run)} {_outcome(run, error)}")

    def __rich__(self) -> Group:
        lines = [
            Text(printable(f"  {_name(run)}: {run.last_line()}"), no_wrap=True, overflow="ellipsis")
            for run in self._active
        ]
        return Group(self._bar, *lines)

    def _line(self, text: str) -> None:
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def _name(run: Planned) -> str:
    return f"{run.task} {run.path.name}"


def _outcome(run: Planned, error: str | None) -> str:
    if error is not None:
        return f"crashed twice: {error}"
    points = collect(run, "test", None).points
    if run.phase == "start" or not points:
        return "is ready"
    return f"{points[0].accuracy:.1%} -> {points[-1].accuracy:.1%} in {points[-1].seconds:.0f} s"
