"""What a measurement comes to: every estimator's signal against the baseline's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from .measure import Sketches
from .statistics import Versus, resamples, signals, versus

Scaling = Literal["adam", "plain"]
SCALINGS: tuple[Scaling, ...] = ("adam", "plain")


@dataclass(frozen=True, slots=True)
class Signal:
    """One estimator under one condition.

    Attributes:
        verdicts: clean, or with which made-up errors.
        group_size: rollouts of a problem.
        scaling: adam: each weight's gradient over its root mean square. plain: as it is.
        estimator: its name.
        versus: beside the baseline of these verdicts and this scaling at the largest group size.
    """

    verdicts: str
    group_size: int
    scaling: Scaling
    estimator: str
    versus: Versus


@dataclass(frozen=True, slots=True)
class Answer:
    """A measurement.

    Attributes:
        name: of the recipe or run.
        baseline: the estimator that the others are compared with.
        policy: which one was measured.
        groups: measured.
        scale_groups: further ones that only the scaling was learned from.
        groups_per_step: those of a step that the signal is of.
        rollouts: of each group.
        accuracy: of all rollouts.
        mixed: share of groups with right and wrong responses.
        aggregation: what a response's log-probability is divided by in the step.
        width: numbers of a sketch.
        signals: all of them.
    """

    name: str
    baseline: str
    policy: str
    groups: int
    scale_groups: int
    groups_per_step: int
    rollouts: int
    accuracy: float
    mixed: float
    aggregation: str
    width: int
    signals: tuple[Signal, ...]

    @property
    def verdicts(self) -> list[str]:
        """The conditions, clean verdicts first."""
        return list(dict.fromkeys(each.verdicts for each in self.signals))

    @property
    def group_sizes(self) -> list[int]:
        """Rollouts a group, the most first."""
        return list(dict.fromkeys(each.group_size for each in self.signals))

    @property
    def estimators(self) -> list[str]:
        """Their names, the baseline first."""
        return list(dict.fromkeys(each.estimator for each in self.signals))

    @property
    def by_size(self) -> list[str]:
        """The estimators that were measured in smaller groups too."""
        of_smallest = (each.estimator for each in self.signals if each.group_size == self.group_sizes[-1])
        return list(dict.fromkeys(of_smallest))

    def find(self, verdicts: str, group_size: int, scaling: Scaling, estimator: str) -> Versus:
        """One of the signals."""
        key = (verdicts, group_size, scaling, estimator)
        return next(
            each.versus
            for each in self.signals
            if (each.verdicts, each.group_size, each.scaling, each.estimator) == key
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def compare_signals(sketches: Sketches, baseline: str, groups_per_step: int) -> tuple[Signal, ...]:
    """Every estimator's signal beside the baseline's.

    A smaller group is compared with the baseline of the largest, at the same number of rollouts a step.
    """
    groups_N = np.asarray(sketches.groups_N, dtype=np.int64)
    counts_Rn = resamples(sketches.num_groups)
    found: list[Signal] = []
    largest = max(size for _, size, _ in sketches.weights)
    products = sketches.products()
    for scaling in SCALINGS:
        true_nN, gram_NN = products[scaling]
        of_baseline = {}
        for verdicts, size, estimator in sorted(sketches.weights, key=lambda key: key[2] != baseline):
            signal_R = signals(
                counts_Rn, true_nN, gram_NN, groups_N, sketches.step((verdicts, size, estimator)), groups_per_step
            )
            is_baseline = estimator == baseline and size == largest
            if is_baseline:
                of_baseline[verdicts] = signal_R
            compared = versus(signal_R, of_baseline[verdicts], sketches.num_groups, is_baseline=is_baseline)
            found.append(Signal(verdicts, size, scaling, estimator, compared))
    order = {key: number for number, key in enumerate(sketches.weights)}
    return tuple(sorted(found, key=lambda each: order[each.verdicts, each.group_size, each.estimator]))


def in_words(answer: Answer) -> Sequence[str]:
    """What came out, in a few sentences."""
    size, lines = answer.group_sizes[0], []
    for verdicts in answer.verdicts:
        rows = {
            name: answer.find(verdicts, size, "adam", name) for name in answer.estimators if name != answer.baseline
        }
        if all(row.difference is None for row in rows.values()):
            more = next((row.more_groups for row in rows.values()), None)
            would = (
                f"About {more:,} more groups would tell."
                if more
                else "No number of groups is in sight that would tell."
            )
            lines.append(
                f"{_capital(verdicts)}: too noisy to tell. Even {answer.baseline}'s own signal cannot be told from nothing. {would}"
            )
            continue
        said = []
        for verdict, start in (("better", "more signal than"), ("worse", "less signal than")):
            named = sorted(
                (name for name, row in rows.items() if row.verdict == verdict),
                key=lambda name: -abs(rows[name].difference or 0),
            )
            if named:
                said.append(f"{start} {answer.baseline}: {', '.join(named)}")
        open_rows = [row.more_groups or 0 for row in rows.values() if row.verdict == "cannot tell"]
        if open_rows:
            count = "all others" if len(open_rows) == len(rows) else f"{len(open_rows)} of {len(rows)}"
            said.append(
                f"too noisy to tell: {count}. {min(open_rows):,} to {max(open_rows):,} more groups would tell"
                if min(open_rows) < max(open_rows)
                else f"too noisy to tell: {count}. About {max(open_rows):,} more groups would tell"
            )
        lines.append(
            f"{_capital(verdicts)}: {'. '.join(part[0].upper() + part[1:] for part in said)}."
            if said
            else f"{_capital(verdicts)}: all level."
        )
    return lines


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
