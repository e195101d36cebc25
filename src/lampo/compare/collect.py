"""A run directory -> what it came to."""

from __future__ import annotations

import statistics
from itertools import accumulate
from typing import Any

from ..store.metrics import read_metrics
from .results import Phase, Point, RunResult
from .study import Planned

SPIKE = 5.0


def collect(run: Planned, phase: Phase, error: str | None) -> RunResult:
    """What a run came to. `error` is why it crashed, None if it is finished."""
    metrics = read_metrics(run.path) if (run.path / "metrics.jsonl").is_file() else []
    train = [record for record in metrics if record["stage"] == "train"]
    evaluations = [record for record in metrics if record["stage"] == "evaluation"]
    costs = {record["step"]: cost for record, cost in zip(train, accumulate(map(_costs, train), _add), strict=True)}
    updates = run.config.training.updates_per_batch
    points = []
    for record in evaluations:
        rollouts, tokens, steps, seconds = costs.get(record["step"], (0, 0, 0, 0.0))
        points.append(
            Point(
                step=record["step"],
                rollouts=int(rollouts),
                tokens=int(tokens),
                updates=int(steps) * updates,
                seconds=seconds,
                accuracy=record["evaluation/accuracy"],
                pass_at_k=record.get("evaluation/pass_at_k"),
                length=record["evaluation/length_mean"],
                truncated=record["evaluation/truncated"],
                problems=int(record["evaluation/problems"]),
                samples=int(record["evaluation/samples"]),
                greedy=record.get("evaluation/greedy/accuracy"),
                by_problem=_all_known(record.get("evaluation/by_problem")),
                greedy_by_problem=_all_known(record.get("evaluation/greedy/by_problem")),
            )
        )
    norms = [record["optimizer/gradient_norm"] for record in train if "optimizer/gradient_norm" in record]
    entropies = [record["loss/entropy"] for record in train[-max(1, len(train) // 10) :] if "loss/entropy" in record]
    return RunResult(
        task=run.task,
        method=run.method,
        seed=run.seed,
        learning_rate=run.config.optimizer.learning_rate,
        phase=phase,
        status="finished" if error is None else "crashed",
        error=error or "",
        entropy_end=statistics.fmean(entropies) if entropies else None,
        gradient_spikes=(
            sum(norm > SPIKE * statistics.median(norms) for norm in norms) / len(norms) if norms else None
        ),
        points=tuple(points),
    )


def _all_known(by_problem: list[float | None] | None) -> tuple[float, ...] | None:
    """The shares of right responses, if every problem has one: a problem without a verdict is another one in each run."""
    known = tuple(share for share in by_problem or () if share is not None)
    return known if by_problem and len(known) == len(by_problem) else None


def _costs(record: dict[str, Any]) -> tuple[float, float, float, float]:
    """Rollouts, tokens, steps with an update, and seconds of one training step."""
    updated = "optimizer/gradient_norm" in record
    return record["rollouts/sampled"], record["rollouts/tokens"], float(updated), record["time/total"]


def _add(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, float, float, float]:
    rollouts, tokens, steps, seconds = (x + y for x, y in zip(a, b, strict=True))
    return rollouts, tokens, steps, seconds
