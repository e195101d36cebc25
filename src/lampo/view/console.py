"""What the user sees of a run: one live panel on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich import box
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..messages import printable
from ..store.metrics import SummaryRow

SHOWN = (  # of a step's record, in this order; the loss only without rewards, beside which it says nothing
    ("reward/total", "reward", "{:.3f}"),
    ("rollouts/right", "right", "{:.3f}"),
    ("loss/value", "loss", "{:.4f}"),
    ("loss/entropy", "entropy", "{:.3f}"),
    ("rollouts/unknown", "unknown", "{:.0%}"),
    ("rollouts/length_mean", "length", "{:.0f}"),
    ("time/tokens_per_s", "tokens/s", "{:,.0f}"),
)
SECONDS_BETWEEN_LINES = 30.0  # on no terminal; a twentieth of the stage makes a line too


class Progress:
    """The progress of a run, as a context manager.

    Steps count from 1. On a terminal it is a panel at the bottom, above which notes scroll. Leaving the context,
    by an exception or Ctrl-C too, gives the terminal back with the last state of the panel on it. In a pipe or a log
    it is a plain line, without control codes, for every twentieth of a stage or every half minute.
    """

    def __init__(self, name: str, console: Console | None = None) -> None:
        self._name = name
        self._console = console or _standard_output()
        on_terminal = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = Live(self, console=self._console, refresh_per_second=4) if on_terminal else None
        self._began = time.monotonic()
        self._accuracy: list[float] = []
        self.stage("starting", 0)

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start(refresh=True)
        else:
            self._line(self._name)
        return self

    def __exit__(self, *_: object) -> None:
        self._within = ""
        if self._live:
            self._live.stop()

    def hand_over(self) -> None:
        """Draw no more: another process tells of the run from here on."""
        if self._live:
            self._live.stop()
            self._live = None

    def stage(self, name: str, total: int, done: int = 0) -> None:
        """Begin a stage of `total` steps, of which a resumed run has `done` behind it."""
        self._stage, self._total = name, total
        self._stage_began = self._last_line = time.monotonic()
        self._step, self._num_done, self._lines = done, 0, 20 * done // max(total, 1)
        self._record: Mapping[str, Any] = {}
        self._within = ""

    def step(self, step: int, record: Mapping[str, Any]) -> None:
        """A step is done; `record` is what was logged of it."""
        self._step, self._record, self._within = step, record, ""
        self._num_done += 1
        now = time.monotonic()
        twentieths = 20 * step // max(self._total, 1)
        due = twentieths > self._lines or self._num_done == 1 or now - self._last_line >= SECONDS_BETWEEN_LINES
        if self._live is None and due:
            self._lines, self._last_line = twentieths, now
            self._line(f"{self._stage} {step}/{self._total}", *(f"{label} {value}" for label, value in self._numbers()))

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """The held-out problems were evaluated."""
        self._within = ""
        if (accuracy := record.get("evaluation/accuracy")) is None:
            return
        self._accuracy.append(accuracy)
        interval = ""
        if "evaluation/low" in record and "evaluation/high" in record:
            interval = f" [{100 * record['evaluation/low']:.1f}, {100 * record['evaluation/high']:.1f}]"
        self.note(f"held-out accuracy after step {record.get('step', self._step)}: {100 * accuracy:.1f} %{interval}")

    def note(self, text: str) -> None:
        """Something the user should read once: it stays above the panel, or is a line of its own."""
        text = printable(text)
        if self._live:
            self._console.print(Text(text))
        else:
            self._line(text)

    def within(self, text: str) -> None:
        """What a long step is doing now. Without a terminal, a line of its own every half minute."""
        self._within = text
        now = time.monotonic()
        if self._live is None and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._line(f"{self._stage}: {text}")

    def tokens(self, count: int) -> None:
        """A long step has sampled so many tokens by now."""
        self.within(f"sampled {count:,} tokens")

    def _numbers(self) -> list[tuple[str, str]]:
        shown = SHOWN if "reward/total" not in self._record else [row for row in SHOWN if row[1] != "loss"]
        values = [(label, form, self._record.get(key)) for key, label, form in shown]
        numbers = [
            (label, form.format(value))
            for label, form, value in values
            if value is not None and (value > 0 or label != "unknown")  # no news
        ]
        if self._accuracy:
            since = f" (was {100 * self._accuracy[0]:.1f} %)" if len(self._accuracy) > 1 else ""
            numbers.append(("held-out", f"{100 * self._accuracy[-1]:.1f} %{since}"))
        if self._num_done and self._step < self._total:
            seconds_a_step = (time.monotonic() - self._stage_began) / self._num_done
            numbers.append(("left", _duration(seconds_a_step * (self._total - self._step))))
        return numbers

    def _line(self, *parts: str) -> None:
        self._console.out(f"[{_duration(time.monotonic() - self._began)}]", "  ".join(parts), highlight=False)

    def __rich__(self) -> RenderableType:
        """The panel as it is now. Drawn again four times a second."""
        bar = Table.grid(padding=(0, 2), expand=True)
        bar.add_column(no_wrap=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True, justify="right")
        bar.add_row(
            Text(self._stage, style="bold"),
            ProgressBar(total=max(self._total, 1), completed=self._step, complete_style="cyan", finished_style="cyan"),
            Text.assemble(f"{self._step}/{self._total}", (f"  {_duration(time.monotonic() - self._began)}", "dim")),
        )
        numbers = [Text.assemble((f"{label} ", "dim"), value) for label, value in self._numbers()]
        lines: list[RenderableType] = [bar]
        if numbers:
            lines.append(Columns(numbers, padding=(0, 3)))
        if self._within:
            lines.append(Text(self._within, style="dim", no_wrap=True, overflow="ellipsis"))
        title = Text(self._name, style="bold")
        return Panel(Group(*lines), title=title, title_align="left", box=box.ROUNDED, border_style="dim")


def final_table(
    rows: Sequence[SummaryRow],
    next_steps: Sequence[tuple[str, str]] = (),
    told: str = "",
    console: Console | None = None,
) -> None:
    """Print what changed from before to after training, what is `told` of it, and a line a label: where things are, what to type next."""
    console = console or _standard_output()
    if rows:
        style = (
            {"box": box.SIMPLE_HEAD, "header_style": "dim"}
            if console.is_terminal
            else {"box": None, "header_style": ""}
        )
        table = Table(pad_edge=False, **style)
        table.add_column("measure")
        for column in ("before", "after", "change"):
            table.add_column(column, justify="right", no_wrap=True)
        for row in rows:
            bold = "bold" if console.is_terminal and row is rows[0] else None
            table.add_row(*(Text(cell) for cell in (row.measure, row.before, row.after, row.change)), style=bold)
        console.print(table)
    if told:
        console.out(told, highlight=False)
    width = max((len(label) for label, _ in next_steps), default=0) + 2
    for label, text in next_steps:
        console.out(f"{label + ':':{width}}{text}", highlight=False)


def _standard_output() -> Console:
    return Console(force_terminal=sys.stdout is not None and sys.stdout.isatty())


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
