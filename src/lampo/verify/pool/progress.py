"""A progress bar with a rate and the time left, for what takes longer than two seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BEFORE = 2.0


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of (done, total). The bar goes to standard error, and only if it takes longer than two seconds."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: object) -> Text:
            speed = getattr(task, "finished_speed", None) or getattr(task, "speed", None)
            return Text(f"{speed:,.0f}/s" if speed else "", style="dim")

    begin = time.monotonic()
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    task = progress.add_task(what)
    started = False

    def show(done: int, total: int) -> None:
        nonlocal started
        if not started and time.monotonic() - begin > SECONDS_BEFORE:
            progress.start()
            started = True
        progress.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        if started:
            progress.stop()
