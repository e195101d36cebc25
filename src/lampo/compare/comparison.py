"""What a study's runs say: each method over its seeds, and each method beside the baseline.

A run that crashed counts with the last accuracy it reached, and one that crashed before its first evaluation with the
accuracy its seed started from: to leave them out would flatter methods that crash. How many did is always shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from scipy import stats

from .measures import (
    MEASURES,
    accuracy_at,
    by_seed,
    collapsed,
    common_budget,
    greedy_area,
    largest_drop,
    rollouts_to,
    value_of,
    with_points,
)
from .results import MeasureName, RunResult
from .statistics import Measured, OverSeeds, Paired, alike, corrected, intervals, mean_over_seeds, paired

SHARE_OF_GAIN = 0.9

Edge = Literal["lowest", "highest"]
Axis = Literal["rollouts", "tokens", "updates", "seconds"]
BySeed = Mapping[int, Measured]
ByMethod = Mapping[str, BySeed]


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
        differences: to the baseline, in each measure; None for itself, and without a seed in common.
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
    differences: Mapping[MeasureName, Paired | None]
    runs: tuple[RunResult, ...]

    @property
    def trained(self) -> bool:
        """Whether any of its runs made an optimiser step before its last evaluation."""
        return any(run.points[-1].updates > 0 for run in self.runs)

    @property
    def all_crashed(self) -> bool:
        """Whether none of its runs came to its end. What they learned after their last evaluation is not known."""
        return all(run.status == "crashed" for run in self.runs)


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
            trials.append(Trial(rate, mean_over_seeds([run.points[-1].accuracy for run in tried], 0.0, 1.0), crashed))
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
    values_SM = np.array(
        [
            np.interp(grid, [getattr(point, axis) for point in run.points], [point.accuracy for point in run.points])
            for run in runs
        ]
    )
    bounds = intervals(values_SM)
    low, high = (tuple(np.clip(bound, 0, 1).tolist()) for bound in bounds) if bounds else (None, None)
    return Curve(tuple(grid.tolist()), tuple(values_SM.mean(0).tolist()), low, high)


def _compare_task(results: Sequence[RunResult], baseline: str) -> Comparison:
    tested = [result for result in results if result.phase == "test"]
    counted = with_points(tested)
    runs_of = _runs_by_method(counted, baseline)
    budget = common_budget(counted)
    target = _most_of_the_gain(runs_of[baseline]) if baseline in runs_of else None
    problems, samples = _asked(counted)
    values: dict[MeasureName, ByMethod] = {
        measure: {
            name: by_seed(runs, partial(value_of, measure=measure, budget=budget)) for name, runs in runs_of.items()
        }
        for measure in MEASURES
    }
    differences: dict[MeasureName, dict[str, Paired | None]] = {
        measure: _beside_baseline(of, baseline) for measure, of in values.items()
    }
    methods = []
    for name, runs in runs_of.items():
        of_method = [result for result in tested if result.method == name]
        summary = _summary(
            runs,
            of_method,
            budget,
            target,
            samples,
            {measure: of[name] for measure, of in values.items()},
            {measure: of.get(name) for measure, of in differences.items()},
        )
        methods.append(summary)
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


def _most_of_the_gain(baseline_runs: Sequence[RunResult]) -> float | None:
    start, end = (float(np.mean([run.points[at].accuracy for run in baseline_runs])) for at in (0, -1))
    return start + SHARE_OF_GAIN * (end - start) if end > start else None


def _asked(counted: Sequence[RunResult]) -> tuple[int, int]:
    """Problems, and samples of each, at the end. A run that crashed was last asked fewer than the others."""
    ends = [run.points[-1] for run in sorted(counted, key=lambda run: run.status == "crashed")]
    return (ends[0].problems, ends[0].samples) if ends else (0, 0)


def _beside_baseline(values: ByMethod, baseline: str) -> dict[str, Paired | None]:
    """Each other method beside the baseline: a column of a table, for whose rows p is corrected."""
    others = [name for name in values if name != baseline]
    pairs = corrected([paired(values[name], values.get(baseline, {})) for name in others])
    return dict(zip(others, pairs, strict=True))


def _summary(
    runs: Sequence[RunResult],
    of_method: Sequence[RunResult],
    budget: int,
    target: float | None,
    samples: int,
    values: Mapping[MeasureName, BySeed],
    differences: Mapping[MeasureName, Paired | None],
) -> MethodSummary:
    """One method from its runs that count, and from all of them, those without any evaluation included."""
    finals = [run.points[-1].accuracy for run in runs]
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
        final=_mean_share(values["samples"]),
        final_iqm=float(stats.trim_mean(finals, 0.25)),
        area=_mean_share(values["over_training"]),
        at_budget=mean_over_seeds(at_budget, 0.0, 1.0),
        pass_at_k_start=_mean([run.points[0].pass_at_k for run in runs]),
        pass_at_k=mean_over_seeds(passes, 0.0, 1.0) if passes else None,
        greedy_start=_mean([run.points[0].greedy for run in runs]),
        greedy_area=_mean([greedy_area(run, budget) for run in runs]),
        greedy=_mean_share(values["most_likely_response"]) if values["most_likely_response"] else None,
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
        differences=differences,
        runs=tuple(runs),
    )


def _lost(uncounted: Sequence[RunResult]) -> tuple[tuple[str, int, str], ...]:
    errors: dict[str, list[str]] = {}
    for run in uncounted:
        errors.setdefault(run.method, []).append(run.error)
    return tuple((name, len(told), told[0]) for name, told in errors.items())


def _mean_share(values: BySeed) -> OverSeeds:
    """Over seeds, and over problems where all have the same number of them."""
    return mean_over_seeds(alike([*values.values()]), 0.0, 1.0)


def _totals(runs: Sequence[RunResult], axis: Axis) -> list[float | None]:
    return [getattr(run.points[-1], axis) for run in runs if run.status == "finished"]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
