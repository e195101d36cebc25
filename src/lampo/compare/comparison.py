"""What a study's runs say: each method over its seeds, and each method beside the baseline.

A run that crashed counts with the last accuracy it reached, and one that crashed before its first evaluation with the
accuracy its seed started from: to leave them out would flatter methods that crash. How many did is always shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from scipy import integrate, stats

from .results import MeasureName, Point, RunResult
from .statistics import OverSeeds, Paired, corrected, intervals, mean_over_seeds, paired

SHARE_OF_GAIN = 0.9

Edge = Literal["lowest", "highest"]
Axis = Literal["rollouts", "tokens", "updates", "seconds"]


@dataclass(frozen=True, slots=True)
class MethodSummary:
    """One method on one task, over its test seeds.

    Attributes:
        learning_rate: of its test runs.
        seeds: that count, in ascending order.
        finals: final accuracy of each of them, at the last evaluation.
        start: accuracy before training.
        final: mean of `finals`.
        final_iqm: their interquartile mean, the mean of the middle half (arXiv 2108.13264).
        area: mean accuracy over training, the area under the accuracy over the common budget of rollouts.
        at_budget: accuracy when the common budget of rollouts was spent.
        pass_at_k_start: before training; None where there is one sample a problem.
        pass_at_k: at the last evaluation.
        greedy_start: accuracy of the most likely response before training; None where it was not measured.
        greedy_area: its mean over training, like `area`.
        greedy: at the last evaluation.
        reached: share of seeds that reach the target accuracy.
        rollouts_to_target: median over those seeds of the rollouts it took; None where none does.
        entropy_end: nats a token.
        mean_drop: largest fall of the accuracy below its running best, mean over seeds.
        worst_drop: the same, of the worst seed.
        gradient_spikes: share of steps with a gradient norm over five times the run's median.
        num_crashed: seeds that crashed.
        num_collapsed: seeds that ended below where they began, or below half of their best.
        num_uncounted: seeds without any evaluation, and whose start is unknown.
        length: of a response at the last evaluation, in tokens.
        rollouts: of a seed that finished, in all; likewise `tokens`, `updates` and `seconds`.
        final_difference: to the baseline, in final accuracy; None for itself, and without a seed in common.
        area_difference: to the baseline, in `area`.
        greedy_difference: to the baseline, in `greedy`.
        runs: the test runs that count.
    """

    method: str
    learning_rate: float
    seeds: tuple[int, ...]
    finals: tuple[float, ...]
    start: OverSeeds
    final: OverSeeds
    final_iqm: float
    area: OverSeeds
    at_budget: OverSeeds
    pass_at_k_start: float | None
    pass_at_k: OverSeeds | None
    greedy_start: float | None
    greedy_area: float | None
    greedy: OverSeeds | None
    reached: float | None
    rollouts_to_target: float | None
    entropy_end: float | None
    mean_drop: float
    worst_drop: float
    gradient_spikes: float | None
    num_crashed: int
    num_collapsed: int
    num_uncounted: int
    length: float
    rollouts: float | None
    tokens: float | None
    updates: float | None
    seconds: float | None
    final_difference: Paired | None
    area_difference: Paired | None
    greedy_difference: Paired | None
    runs: tuple[RunResult, ...]

    def difference(self, measure: MeasureName) -> Paired | None:
        """To the baseline, in one of the measures."""
        return {
            "most_likely_response": self.greedy_difference,
            "samples": self.final_difference,
            "over_training": self.area_difference,
        }[measure]

    @property
    def trained(self) -> bool:
        """Whether any of its runs made an optimiser step."""
        return any(run.points[-1].updates > 0 for run in self.runs)


@dataclass(frozen=True, slots=True)
class Trial:
    """One learning rate of one method, on the validation problems."""

    learning_rate: float
    accuracy: OverSeeds
    num_crashed: int


@dataclass(frozen=True, slots=True)
class TunedMethod:
    """The learning rates that were tried for a method, in ascending order, and the one that won.

    Attributes:
        edge: the end of the grid at which the winner lies: a better one may lie beyond. None inside the grid, and where
            there was only one.
    """

    method: str
    trials: tuple[Trial, ...]
    learning_rate: float
    edge: Edge | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All methods of a study on one task.

    Attributes:
        budget: rollouts that every finished run had, the smallest total among them.
        target: accuracy for `rollouts_to_target`; None where the baseline gained nothing.
        problems: held-out problems, with `samples` responses each.
        methods: the baseline first, then in the order of the results.
        lost: methods without a run that counts: their names, how many runs crashed, and why the first one did.
        primary: the measure that the study declared to judge by; None where it declared none.
    """

    task: str
    baseline: str
    budget: int
    target: float | None
    problems: int
    samples: int
    methods: tuple[MethodSummary, ...]
    tuning: tuple[TunedMethod, ...]
    lost: tuple[tuple[str, int, str], ...] = ()
    primary: MeasureName | None = None

    @property
    def judged_by(self) -> MeasureName:
        """The primary measure, or else samples after training."""
        return self.primary or "samples"


@dataclass(frozen=True, slots=True)
class Curve:
    """Mean accuracy over the seeds of a method, with its 95 % interval. One seed has no interval."""

    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None


def compare_methods(
    results: Sequence[RunResult], baseline: str, primary: MeasureName | None = None
) -> tuple[Comparison, ...]:
    """Every task of a study, in the order of the results.

    Runs of phase "test" are compared, runs of phase "tuning" say how the learning rates were chosen. The target accuracy
    is the baseline's mean start plus 90 % of its mean gain.

    Raises:
        ValueError: a method has a seed twice on a task, or was tested there with several learning rates.
    """
    tasks = dict.fromkeys(result.task for result in results)
    compared = [_compare_task([r for r in results if r.task == task], baseline) for task in tasks]
    return tuple(replace(comparison, primary=primary) for comparison in compared)


def tuned_methods(results: Sequence[RunResult]) -> tuple[TunedMethod, ...]:
    """The tuning runs of one task: the learning rate with the highest mean final accuracy wins, of equals the smallest."""
    runs = with_points([result for result in results if result.phase == "tuning"])
    tuned = []
    for method in dict.fromkeys(run.method for run in runs):
        trials = []
        for rate in sorted({run.learning_rate for run in runs if run.method == method}):
            tried = [run for run in runs if run.method == method and run.learning_rate == rate]
            crashed = sum(run.status == "crashed" for run in tried)
            trials.append(Trial(rate, mean_over_seeds([_final(run) for run in tried], 0.0, 1.0), crashed))
        best = max(trials, key=lambda trial: trial.accuracy.value)
        edge: Edge | None = None
        if len(trials) > 1:
            edge = "lowest" if best is trials[0] else "highest" if best is trials[-1] else None
        tuned.append(TunedMethod(method, tuple(trials), best.learning_rate, edge))
    return tuple(tuned)


def learning_curve(runs: Sequence[RunResult], axis: Axis) -> Curve:
    """Mean accuracy of a method's seeds at equal cost, by linear interpolation between evaluations.

    It ends at the smallest total of the seeds that finished, so that every point is a mean over all seeds. A seed that
    crashed earlier goes on with its last accuracy. There are as many points as a seed has evaluations.
    """
    ends = [getattr(run.points[-1], axis) for run in runs if run.status == "finished"]
    end = min(ends) if ends else max(getattr(run.points[-1], axis) for run in runs)
    longest = max(runs, key=lambda run: len(run.points))
    grid = np.unique([min(getattr(point, axis), end) for point in longest.points] + [end]).astype(float)
    values_SM = np.array([np.interp(grid, _costs(run, axis), _accuracies(run)) for run in runs])
    bounds = intervals(values_SM)
    low, high = (tuple(np.clip(bound, 0, 1).tolist()) for bound in bounds) if bounds else (None, None)
    return Curve(tuple(grid.tolist()), tuple(values_SM.mean(0).tolist()), low, high)


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
    return float(np.interp(budget, _costs(run, "rollouts"), _accuracies(run)))


def greedy_area(run: RunResult, budget: int) -> float | None:
    """The mean accuracy of the most likely response, like `area_under_curve`; None where it was not measured."""
    measured = [replace(point, accuracy=point.greedy) for point in run.points if point.greedy is not None]
    return area_under_curve(measured, budget) if measured else None


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


Measure = Callable[[RunResult], float | None]


def _compare_task(results: Sequence[RunResult], baseline: str) -> Comparison:
    tested = [result for result in results if result.phase == "test"]
    counted = with_points(tested)
    runs_of = _runs_by_method(counted, baseline)
    budget = common_budget(counted)
    target = _most_of_the_gain(runs_of[baseline]) if baseline in runs_of else None
    problems, samples = _asked(counted)
    differences = [
        _beside_baseline(runs_of, baseline, measure) for measure in (_final, lambda run: _area(run, budget), _greedy)
    ]
    methods = []
    for name, runs in runs_of.items():
        of_method = [result for result in tested if result.method == name]
        beside = [of.get(name) for of in differences]
        methods.append(_summary(runs, of_method, budget, target, samples, *beside))
    return Comparison(
        task=results[0].task,
        baseline=baseline,
        budget=budget,
        target=target,
        problems=problems,
        samples=samples,
        methods=tuple(methods),
        tuning=tuned_methods(results),
        lost=_lost([run for run in tested if run.method not in runs_of]),
    )


def _runs_by_method(counted: Sequence[RunResult], baseline: str) -> dict[str, list[RunResult]]:
    """The runs of each method in the order of seeds, the baseline's first."""
    names = sorted(dict.fromkeys(run.method for run in counted), key=lambda name: name != baseline)
    runs_of = {name: sorted((r for r in counted if r.method == name), key=lambda run: run.seed) for name in names}
    for name, runs in runs_of.items():
        if len({run.seed for run in runs}) < len(runs) or len({run.learning_rate for run in runs}) > 1:
            raise ValueError(f"the test runs of {name} on {runs[0].task} repeat a seed or differ in learning rate")
    return runs_of


def common_budget(counted: Sequence[RunResult]) -> int:
    """The rollouts that every finished run had."""
    totals = [run.points[-1].rollouts for run in counted if run.status == "finished" and run.points[-1].rollouts]
    return min(totals, default=max((run.points[-1].rollouts for run in counted), default=0))


def _most_of_the_gain(baseline_runs: Sequence[RunResult]) -> float | None:
    start, end = (float(np.mean([run.points[at].accuracy for run in baseline_runs])) for at in (0, -1))
    return start + SHARE_OF_GAIN * (end - start) if end > start else None


def _asked(counted: Sequence[RunResult]) -> tuple[int, int]:
    """Problems, and samples of each, at the end. A run that crashed was last asked fewer than the others."""
    ends = [run.points[-1] for run in sorted(counted, key=lambda run: run.status == "crashed")]
    return (ends[0].problems, ends[0].samples) if ends else (0, 0)


def _beside_baseline(runs_of: dict[str, list[RunResult]], baseline: str, measure: Measure) -> dict[str, Paired | None]:
    """Each other method beside the baseline: a column of a table, for whose rows p is corrected."""
    values = {name: _by_seed(runs, measure) for name, runs in runs_of.items()}
    others = [name for name in runs_of if name != baseline]
    pairs = corrected([paired(values[name], values.get(baseline, {})) for name in others])
    return dict(zip(others, pairs, strict=True))


def _by_seed(runs: Sequence[RunResult], measure: Measure) -> dict[int, float]:
    return {run.seed: value for run in runs if (value := measure(run)) is not None}


def _summary(
    runs: Sequence[RunResult],
    of_method: Sequence[RunResult],
    budget: int,
    target: float | None,
    samples: int,
    final_difference: Paired | None,
    area_difference: Paired | None,
    greedy_difference: Paired | None,
) -> MethodSummary:
    """One method from its runs that count, and from all of them, those without any evaluation included."""
    finals, areas = [_final(run) for run in runs], [_area(run, budget) for run in runs]
    greedies = list(_by_seed(runs, _greedy).values())
    at_budget = [accuracy_at(run, budget) for run in runs]
    passes = [p for run in runs if run.points[-1].samples == samples and (p := run.points[-1].pass_at_k) is not None]
    reached = [
        rollouts for run in runs if target is not None and (rollouts := rollouts_to(run.points, target)) is not None
    ]
    drops = [largest_drop(run.points) for run in runs]
    return MethodSummary(
        method=runs[0].method,
        learning_rate=runs[0].learning_rate,
        seeds=tuple(run.seed for run in runs),
        finals=tuple(finals),
        start=mean_over_seeds([run.points[0].accuracy for run in runs], 0.0, 1.0),
        final=mean_over_seeds(finals, 0.0, 1.0),
        final_iqm=float(stats.trim_mean(finals, 0.25)),
        area=mean_over_seeds(areas, 0.0, 1.0),
        at_budget=mean_over_seeds(at_budget, 0.0, 1.0),
        pass_at_k_start=_mean([run.points[0].pass_at_k for run in runs]),
        pass_at_k=mean_over_seeds(passes, 0.0, 1.0) if passes else None,
        greedy_start=_mean([run.points[0].greedy for run in runs]),
        greedy_area=_mean([greedy_area(run, budget) for run in runs]),
        greedy=mean_over_seeds(greedies, 0.0, 1.0) if greedies else None,
        reached=len(reached) / len(runs) if target is not None else None,
        rollouts_to_target=float(np.median(reached)) if reached else None,
        mean_drop=float(np.mean(drops)),
        worst_drop=max(drops),
        entropy_end=_mean([run.entropy_end for run in runs]),
        gradient_spikes=_mean([run.gradient_spikes for run in runs]),
        num_crashed=sum(result.status == "crashed" for result in of_method),
        num_collapsed=sum(collapsed(run.points) for run in runs),
        num_uncounted=len(of_method) - len(runs),
        length=float(np.mean([run.points[-1].length for run in runs])),
        **{axis: _mean(_totals(runs, axis)) for axis in ("rollouts", "tokens", "updates", "seconds")},
        final_difference=final_difference,
        area_difference=area_difference,
        greedy_difference=greedy_difference,
        runs=tuple(runs),
    )


def _lost(uncounted: Sequence[RunResult]) -> tuple[tuple[str, int, str], ...]:
    errors: dict[str, list[str]] = {}
    for run in uncounted:
        errors.setdefault(run.method, []).append(run.error)
    return tuple((name, len(told), told[0]) for name, told in errors.items())


def with_points(runs: Sequence[RunResult]) -> list[RunResult]:
    """The runs, one without an evaluation having the start of its seed. Left out where no other run knows that."""
    starts = {(run.task, run.seed): run.points[:1] for run in runs if run.points and run.points[0].step == 0}
    filled = [run if run.points else replace(run, points=starts.get((run.task, run.seed), ())) for run in runs]
    return [run for run in filled if run.points]


def _final(run: RunResult) -> float:
    return run.points[-1].accuracy


def _area(run: RunResult, budget: int) -> float:
    return area_under_curve(run.points, budget)


def _greedy(run: RunResult) -> float | None:
    return run.points[-1].greedy


def _costs(run: RunResult, axis: Axis) -> list[float]:
    return [getattr(point, axis) for point in run.points]


def _accuracies(run: RunResult) -> list[float]:
    return [point.accuracy for point in run.points]


def _totals(runs: Sequence[RunResult], axis: Axis) -> list[float | None]:
    return [getattr(run.points[-1], axis) for run in runs if run.status == "finished"]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
