"""What the runs of a study came to, as plain data and as a Parquet table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from ..messages import joined
from ..types import LampoError

Phase = Literal["tuning", "test"]
MeasureName = Literal["most_likely_response", "samples", "over_training"]
"""What methods are compared by: accuracy of the most likely response after training, of samples after it, of samples over it."""


@dataclass(frozen=True, slots=True)
class Point:
    """One evaluation of a run, and what it had cost until then.

    Attributes:
        step: training step; 0 is before training.
        rollouts: sampled for training so far, those that dynamic sampling threw away included.
        tokens: their completion tokens.
        updates: optimiser steps so far.
        seconds: of training so far, without evaluations.
        accuracy: share of right responses (avg@k).
        pass_at_k: with all the samples of the evaluation; None where there is one sample a problem.
        length: mean length of the responses in tokens.
        truncated: share of them that was cut.
        problems: held-out problems that were asked.
        samples: responses to each of them.
        greedy: accuracy of the most likely response; None where it was not measured (`evaluation.greedy`).
    """

    step: int
    rollouts: int
    tokens: int
    updates: int
    seconds: float
    accuracy: float
    pass_at_k: float | None
    length: float
    truncated: float
    problems: int
    samples: int
    greedy: float | None = None


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run: a method on a task with a seed and a learning rate.

    Attributes:
        phase: tuning (measured on the validation problems) or test (on the others, with the learning rate that won).
        status: finished; crashed (twice, `error` says how).
        entropy_end: mean entropy in nats a token over the last tenth of the steps; None where nothing was trained.
        gradient_spikes: share of steps whose gradient norm was over five times the median of the run's.
        points: evaluations in the order of steps; those that a crashed run reached.
    """

    task: str
    method: str
    seed: int
    learning_rate: float
    phase: Phase
    status: Literal["finished", "crashed"]
    error: str
    entropy_end: float | None
    gradient_spikes: float | None
    points: tuple[Point, ...]


def write_results(path: Path, results: Sequence[RunResult], note: Mapping[str, str] | None = None) -> None:
    """One row an evaluation, with the columns of its run. A run without an evaluation is one row without a step.

    The note says how they were made. It lies in the file's metadata, where `read_note` finds it.
    """
    rows = []
    nothing = dict.fromkeys(field.name for field in fields(Point))
    for result in results:
        run = {field.name: getattr(result, field.name) for field in fields(RunResult) if field.name != "points"}
        rows += [run | asdict(point) for point in result.points] or [run | nothing]
    aside = path.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA.with_metadata(dict(note or {}))), aside)
    aside.replace(path)


def read_note(path: Path) -> dict[str, str]:
    """The note of `write_results`. Empty where there is none.

    Raises:
        LampoError: the file cannot be read.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, ValueError) as error:
        raise LampoError(f"Cannot read {path}: {error}.") from None
    return {key.decode(): value.decode() for key, value in metadata.items() if not key.startswith(b"ARROW:")}


def read_results(path: Path) -> list[RunResult]:
    """What `write_results` wrote.

    Raises:
        LampoError: there is no such file, it cannot be read, or it lacks columns.
    """
    try:
        table = pq.read_table(path)
        if missing := set(_SCHEMA.names) - {"greedy"} - set(table.column_names):  # older tables have no `greedy`
            columns = "column" if len(missing) == 1 else "columns"
            raise ValueError(f"it has no {columns} {joined(sorted(missing))}")
    except (OSError, ValueError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error
        raise LampoError(f"Cannot read {path}: {reason}. Take it from git again, or run the study anew.") from None
    runs: dict[tuple[object, ...], tuple[dict[str, object], list[Point]]] = {}
    names = [field.name for field in fields(Point)]
    for row in table.to_pylist():
        point = {name: row.pop(name, None) for name in names}
        _, points = runs.setdefault(tuple(row.values()), (row, []))
        if point["step"] is not None:
            points.append(Point(**point))
    return [RunResult(**run, points=tuple(points)) for run, points in runs.values()]  # pyright: ignore[reportArgumentType]


_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("task", "method")),
        ("seed", pa.int64()),
        ("learning_rate", pa.float64()),
        *((name, pa.string()) for name in ("phase", "status", "error")),
        *((name, pa.float64()) for name in ("entropy_end", "gradient_spikes")),
        *((name, pa.int64()) for name in ("problems", "samples", "step", "rollouts", "tokens", "updates")),
        *((name, pa.float64()) for name in ("seconds", "accuracy", "pass_at_k", "length", "truncated", "greedy")),
    ]
)
