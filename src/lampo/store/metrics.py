"""Read a run directory: the metrics, and the before/after summary."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..types import LampoError
from .rollouts import Record


def read_metrics(run: Path) -> list[Record]:
    """The records of `metrics.jsonl`, in order.

    A half-written last line is left out: the run may still be writing it, or have been killed at it. A step that was
    done again after a resume is returned once, as it was done last.

    Raises:
        LampoError: there is no `metrics.jsonl`, or a line that is not the last is not a JSON object.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise LampoError(f"{path} does not exist: is {run} the directory of a run that has begun?")
    records: dict[tuple[str, int], Record] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            records[record["stage"], record["step"]] = record
        except (ValueError, TypeError, KeyError) as error:
            if number < len(lines):
                raise LampoError(
                    f"{path}, line {number} is not a record of a stage and a step: {line[:80]!r}"
                ) from error
    return list(records.values())


def find_metrics_damage(file: Path, num_bytes: int) -> str | None:
    """What is wrong with the beginning of `metrics.jsonl` that a checkpoint relies on, or None.

    Args:
        file: the metrics; a missing file is an empty one.
        num_bytes: how long it was when the checkpoint was written.
    """
    data = b""
    if file.exists():
        with file.open("rb") as stream:
            data = stream.read(num_bytes)
    if len(data) < num_bytes:
        return f"{file.name} has {len(data):,} bytes and had {num_bytes:,}"
    lines = data.split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json.loads(line)
            whole = isinstance(record["stage"], str) and isinstance(record["step"], int)
        except (ValueError, TypeError, KeyError, RecursionError):
            whole = False
        if not whole:
            return f"{file.name} is damaged in line {number}"
    return f"{file.name} is damaged in line {len(lines)}" if lines[-1] else None


def nothing_trained(metrics: Sequence[Record]) -> str:
    """A sentence and its reason where there is something to look at, and no optimiser step in it. Else ""."""
    steps = [record for record in metrics if record["stage"] == "train"]
    if not metrics or any("optimizer/gradient_norm" in record for record in steps):
        return ""
    why = ""
    if steps:
        if all(record.get("rollouts/unknown") == 1 for record in steps):
            why = " No response had a reward: to each the verifier or a reward said that it cannot tell."
        elif any(record.get("advantage/groups_without_spread", 1) < 1 for record in steps):
            why = " Rewards differed in some groups, but every advantage was 0."
        else:
            why = " In no group did the rewards differ. A warm start, a denser reward or easier problems would help."
    return f"Nothing was trained: the run has made no optimiser step.{why}"


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One measure before and after training, formatted, so that console and page say the same. "" where unmeasured."""

    measure: str
    before: str
    after: str
    change: str


def summary(metrics: Sequence[Record]) -> list[SummaryRow]:
    """Compare the first held-out evaluation with the last one.

    Only a first evaluation at step 0 counts as "before" and only one at a later step as "after".

    Returns:
        One row a measure that was taken; no row at all for a run without an evaluation.
    """
    evaluations = [record for record in metrics if record["stage"] == "evaluation"]
    before = next((record for record in evaluations if record["step"] == 0), {})
    after = evaluations[-1] if evaluations and evaluations[-1]["step"] > 0 else {}
    rows = [
        _row("held-out accuracy", "evaluation/accuracy", before, after, _share, _points),
        _row("most likely response", "evaluation/greedy/accuracy", before, after, _share, _points),
        _row(
            "completion length",
            "evaluation/length_mean",
            before,
            after,
            "{:.1f} tokens".format,
            "{:+.1f} tokens".format,
        ),
        _row("cut at the length limit", "evaluation/truncated", before, after, _share, _points),
        _row("verdict unknown", "evaluation/unknown", before, after, _share, _points),
        _row("held-out problems", "evaluation/problems", before, after, "{:.0f}".format, lambda _: ""),
        _row("step", "step", before, after, "{:.0f}".format, lambda _: ""),
    ]
    return [row for row in rows if row.before or row.after]


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f} points"


def _row(
    measure: str, key: str, before: Record, after: Record, value: Callable[..., str], change: Callable[..., str]
) -> SummaryRow:
    def text(record: Record) -> str:
        if record.get(key) is None:
            return ""
        if key == "evaluation/accuracy" and "evaluation/low" in record and "evaluation/high" in record:
            low, high = 100 * record["evaluation/low"], 100 * record["evaluation/high"]
            return f"{value(record[key])} [{low:.1f}, {high:.1f}]"
        return value(record[key])

    both = bool(text(before) and text(after))
    return SummaryRow(measure, text(before), text(after), change(after[key] - before[key]) if both else "")
