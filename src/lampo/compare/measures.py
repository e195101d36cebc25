"""What one run came to: the measures that methods are compared by, and what else its evaluations say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from scipy import integrate

from ..evaluation.scores import Array
from .results import MeasureName, Point, RunResult
from .statistics import Measured

MEASURES: dict[MeasureName, str] = {
    "most_likely_response": "the most likely response, after training",
    "samples": "samples, after training",
    "over_training": "samples, over training",
}
"""Each in words. `value_of` says what it is of a run."""


def value_of(run: RunResult, measure: MeasureName, budget: int) -> Measured | None:
    """What a run came to: for each problem where that is known. None where the most likely response was not measured.

    Args:
        run: with an evaluation.
        measure: one of those that methods are compared by.
        budget: rollouts that "over training" is over.
    """
    end = run.points[-1]
    if measure == "over_training":
        by_problem = area_by_problem(run.points, budget)
        return area_under_curve(run.points, budget) if by_problem is None else by_problem
    value, shares = (end.accuracy, end.by_problem) if measure == "samples" else (end.greedy, end.greedy_by_problem)
    return value if shares is None else np.array(shares)


def by_seed(runs: Iterable[RunResult], value: Callable[[RunResult], Measured | None]) -> dict[int, Measured]:
    """What the runs of one method came to, by their seeds. Without those where it was not measured."""
    return {run.seed: found for run in runs if (found := value(run)) is not None}


def with_points(runs: Sequence[RunResult]) -> list[RunResult]:
    """The runs, one without an evaluation having the start of its seed. Left out where no other run knows that."""
    starts = {(run.task, run.seed): run.points[:1] for run in runs if run.points and run.points[0].step == 0}
    filled = [run if run.points else replace(run, points=starts.get((run.task, run.seed), ())) for run in runs]
    return [run for run in filled if run.points]


def common_budget(counted: Sequence[RunResult]) -> int:
    """The rollouts that every finished run had."""
    totals = [run.points[-1].rollouts for run in counted if run.status == "finished" and run.points[-1].rollouts]
    return min(totals, default=max((run.points[-1].rollouts for run in counted), default=0))


def area_under_curve(points: Sequence[Point], budget: int) -> float:
    """Mean accuracy while the first `budget` rollouts were sampled: the area under the accuracy over the budget.

        1 / B * integral from 0 to B of accuracy(rollouts)

    with straight lines between evaluations, and the last accuracy going on where a run ended before. Methods with dynamic
    sampling use more rollouts a step. At equal rollouts, not steps, they are compared fairly.
    """
    rollouts = np.array([point.rollouts for point in points], dtype=float)
    if budget <= 0:
        return points[0].accuracy
    grid = np.unique([0.0, *rollouts[rollouts < budget], float(budget)])
    accuracies = np.interp(grid, rollouts, [point.accuracy for point in points])
    return float(integrate.trapezoid(accuracies, grid)) / budget


def accuracy_at(run: RunResult, budget: int) -> float:
    """When so many rollouts were sampled, on the straight line between evaluations."""
    return float(np.interp(budget, [point.rollouts for point in run.points], [point.accuracy for point in run.points]))


def greedy_area(run: RunResult, budget: int) -> float | None:
    """The mean accuracy of the most likely response, like `area_under_curve`; None where it was not measured."""
    measured = [replace(point, accuracy=point.greedy) for point in run.points if point.greedy is not None]
    return area_under_curve(measured, budget) if measured else None


def area_by_problem(points: Sequence[Point], budget: int) -> Array | None:
    """One number for each problem, whose mean is `area_under_curve`. None where the results of problems are not there.

    The area is a sum of the accuracies of evaluations, weighted. An evaluation of few problems says as much more of each:

        area + sum over evaluations of weight * P / P_evaluation * (share right of the problem - accuracy)
    """
    known = [np.array(point.by_problem) for point in points if point.by_problem]
    if len(known) < len(points):
        return None
    alone = [[replace(point, accuracy=float(point is one)) for point in points] for one in points]
    weights = [area_under_curve(each, budget) for each in alone]
    area_P = np.full(max(map(len, known)), area_under_curve(points, budget))
    for weight, shares in zip(weights, known, strict=True):
        area_P[: len(shares)] += weight * len(area_P) / len(shares) * (shares - shares.mean())
    return area_P


def rollouts_to(points: Sequence[Point], target: float) -> float | None:
    """Rollouts when the accuracy first reached the target, on the straight line between evaluations. None if never."""
    if points[0].accuracy >= target:
        return float(points[0].rollouts)
    for before, after in pairwise(points):
        if after.accuracy >= target:
            share = (target - before.accuracy) / (after.accuracy - before.accuracy)
            return before.rollouts + share * (after.rollouts - before.rollouts)
    return None


def largest_drop(points: Sequence[Point]) -> float:
    """How far the accuracy fell below its running best, at most: max over i <= j of accuracy_i - accuracy_j."""
    accuracies = np.array([point.accuracy for point in points])
    return float(np.max(np.maximum.accumulate(accuracies) - accuracies))


def collapsed(points: Sequence[Point]) -> bool:
    """Whether a run ended below where it began, or below half of its best."""
    accuracies = [point.accuracy for point in points]
    return accuracies[-1] < max(accuracies[0], max(accuracies) / 2)
