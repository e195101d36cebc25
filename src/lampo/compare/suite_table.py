"""A suite as tables of text: methods by tasks beside the baseline, and beside one method."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from .measures import MEASURES, common_budget, value_of, with_points
from .numbers import NONE, points
from .results import MeasureName, RunResult
from .statistics import SIGNIFICANT, OverSeeds, Paired, paired, pooled
from .suite import Row, Suite
from .table import Table, rows_of

POOLED_FROM = 3
"""Tasks that a pooled difference needs: over two, Student's t has one degree of freedom, and the interval says nothing."""
OF_STUDIES = " *"

HOW_TO_READ = (
    "Differences are in percentage points. Brackets are 95 % intervals over seeds, Student's t.",
    "Methods without a star began from the same weights and are paired by seed. Methods with a star are those of the studies: they began "
    "from other weights, and are paired with the study's own baseline. Beside a method without a star they are compared through the "
    "baseline, by Welch's t.",
    "Bold: p is below 0.05, corrected for the methods of its column (Benjamini and Hochberg). It is that of the paired permutation test, "
    "and of Welch's test where a star is compared with none. Few seeds cannot be bold: five in one direction have p 0.06.",
    f"Over all: the mean over the tasks that a method has, at least {POOLED_FROM}, by random effects with Hartung and Knapp's interval. "
    "Bold: the interval leaves out 0. It asks what other tasks of this kind would bring.",
)

BySeed = dict[int, float]


@dataclass(frozen=True, slots=True)
class Difference:
    """Between two methods on one task: the mean with its interval and standard error, and p as if nothing else were compared."""

    mean: OverSeeds
    error: float
    p: float | None


@dataclass(frozen=True, slots=True)
class OnTask:
    """One measure on one task.

    Attributes:
        baseline: the name of the baseline among the rows.
        rows: by name and seed.
        studies: by name with a star, of the method and of the baseline of its study.
    """

    baseline: str
    rows: dict[str, BySeed]
    studies: dict[str, tuple[BySeed, BySeed]]

    def minus_baseline(self, name: str) -> Paired | None:
        """A method minus the baseline that began from the same weights."""
        ours, baseline = self.studies.get(name) or (self.rows.get(name, {}), self.rows.get(self.baseline, {}))
        return paired(ours, baseline)

    def minus(self, row: str, other: str) -> Difference | None:
        """A row minus another method: paired by seed with a row, and through the baseline with a method of a study."""
        if other in self.studies:
            return _through(self.minus_baseline(row), self.minus_baseline(other))
        return _paired(paired(self.rows.get(row, {}), self.rows.get(other, {})))


def suite_text(
    suite: Suite, rows: Sequence[Row], studies: Sequence[Sequence[RunResult]], entered: str | None = None
) -> str:
    """The tables as Markdown.

    Args:
        suite: with its tasks and its baseline.
        rows: methods that were run from the suite's starts.
        studies: the runs of each study on its task, by the suite's names of tasks and methods.
        entered: one of the rows, which the others are set beside too.
    """
    stars = _most_tasks_first(suite, studies)
    parts = [f"# {suite.name}: {entered}" if entered else f"# {suite.name}", ""]
    for measure, title in MEASURES.items():
        values = _measured(suite, rows, studies, measure)
        others = [name for name in (*(row.name for row in rows), *stars) if name != suite.baseline]
        columns = {task: [_paired(each.minus_baseline(name)) for name in others] for task, each in values.items()}
        parts += _table(f"Minus {suite.baseline}: {title}", others, columns)
        if entered:
            others = [name for name in others if name != entered]
            columns = {task: [each.minus(entered, name) for name in others] for task, each in values.items()}
            parts += _table(f"{entered} minus each: {title}", others, columns)
    parts += ["### Seeds", "", *rows_of(_seeds(suite, rows, stars)), ""]
    return "\n".join([*parts, *(f"- {line}" for line in HOW_TO_READ), ""])


def _most_tasks_first(suite: Suite, studies: Sequence[Sequence[RunResult]]) -> dict[str, list[RunResult]]:
    """The runs of each method of the studies but the baseline, by its name with a star; on each task those of the first study."""
    found: dict[str, dict[str, list[RunResult]]] = {}
    for study in studies:
        for task, method in dict.fromkeys((run.task, run.method) for run in study if run.method != suite.baseline):
            runs = [run for run in study if run.method == method]
            found.setdefault(f"{method}{OF_STUDIES}", {}).setdefault(task, runs)
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    return {name: [run for runs in of_task.values() for run in runs] for name, of_task in ordered}


def _measured(
    suite: Suite, rows: Sequence[Row], studies: Sequence[Sequence[RunResult]], measure: MeasureName
) -> dict[str, OnTask]:
    """What each method came to on each task."""
    of_rows = values_by_seed([run for row in rows for run in row.runs], measure)
    found = {task: OnTask(suite.baseline, of_rows.get(task, {}), {}) for task in suite.tasks}
    for study in studies:
        for task, values in values_by_seed(study, measure).items():
            baseline = values.pop(suite.baseline, {})
            for name, by_seed in values.items():
                found[task].studies.setdefault(f"{name}{OF_STUDIES}", (by_seed, baseline))
    return found


def values_by_seed(runs: Sequence[RunResult], measure: MeasureName) -> dict[str, dict[str, BySeed]]:
    """Of runs that are compared: what each method came to on each task, by seed, where it was measured."""
    found: dict[str, dict[str, BySeed]] = {}
    for task in dict.fromkeys(run.task for run in runs):
        counted = with_points([run for run in runs if run.task == task])
        budget = common_budget(counted)
        for run in counted:
            if (value := value_of(run, measure, budget)) is not None:
                found.setdefault(task, {}).setdefault(run.method, {})[run.seed] = float(np.mean(value))
    return found


def _paired(pair: Paired | None) -> Difference | None:
    return None if pair is None else Difference(pair.difference, pair.difference.error, pair.p_alone)


def _through(ours: Paired | None, theirs: Paired | None) -> Difference | None:
    """The difference of two differences to baselines from other starts, whose errors are independent: Welch's t."""
    if ours is None or theirs is None:
        return None
    value, count = ours.difference.value - theirs.difference.value, min(len(ours.seeds), len(theirs.seeds))
    errors = ours.difference.error, theirs.difference.error
    if count < 2 or sum(errors) == 0:
        return Difference(OverSeeds(value, None, None, count), 0.0, None)
    test: Any = stats.ttest_ind(ours.differences, theirs.differences, equal_var=False)
    low, high = test.confidence_interval(0.95)
    return Difference(OverSeeds(value, float(low), float(high), count), math.hypot(*errors), float(test.pvalue))


def _table(title: str, names: Sequence[str], columns: dict[str, list[Difference | None]]) -> list[str]:
    """A row a method, a column a task, and over all. Methods and tasks without any difference are left out."""
    columns = {task: column for task, column in columns.items() if any(column)}
    if not columns:
        return []
    cells = {task: _cells(column) for task, column in columns.items()}
    rows = []
    for number, name in enumerate(names):
        differences = [column[number] for column in columns.values()]
        if any(differences):
            rows.append((name, *(column[number] for column in cells.values()), _over_all(differences)))
    return [f"### {title}", "", *rows_of(Table(title, "", ("method", *columns, "over all"), tuple(rows))), ""]


def _cells(column: Sequence[Difference | None]) -> list[str]:
    known = [each.p for each in column if each and each.p is not None]
    corrected = iter(stats.false_discovery_control(known).tolist() if known else ())
    cells = []
    for each in column:
        p = next(corrected) if each and each.p is not None else 1.0
        cells.append(NONE if each is None else _bold(points(each.mean), p < SIGNIFICANT))
    return cells


def _over_all(differences: Sequence[Difference | None]) -> str:
    """The pooled difference, and over how many tasks if not over all."""
    known = [each for each in differences if each and each.error > 0]
    if len(known) < POOLED_FROM:
        return NONE
    whole = pooled([each.mean.value for each in known], [each.error for each in known])
    assert whole.low is not None
    assert whole.high is not None
    told = _bold(points(whole), whole.low > 0 or whole.high < 0)
    return told if len(known) == len(differences) else f"{told} ({len(known)} tasks)"


def _bold(text: str, clear: bool) -> str:
    return f"**{text}**" if clear else text


def _seeds(suite: Suite, rows: Sequence[Row], stars: Mapping[str, Sequence[RunResult]]) -> Table:
    """How many runs each method has on each task, and what it is."""
    methods = {row.name: (row.runs, _origin(row)) for row in rows}
    methods |= {name: (runs, "the studies") for name, runs in stars.items()}
    cells = tuple(
        (name, *(_count([run for run in runs if run.task == task]) for task in suite.tasks), origin)
        for name, (runs, origin) in methods.items()
    )
    return Table("Seeds", "", ("method", *suite.tasks, "what it is"), cells, (0, len(suite.tasks) + 1))


def _count(runs: Sequence[RunResult]) -> str:
    crashed = sum(run.status == "crashed" for run in runs)
    return f"{len(runs) or NONE}" + (f" ({crashed} crashed)" if crashed else "")


def _origin(row: Row) -> str:
    """The method of a row and its settings."""
    entry = json.loads(row.note["method"])
    settings = [f"{key}={value}" for key, value in entry.get("settings", {}).items()]
    settings += [f"optimizer.learning_rate={value:g}" for value in entry.get("learning_rates") or []]
    return " ".join(filter(None, (entry["method"], ", ".join(settings))))
