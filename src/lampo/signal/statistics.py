"""From inner products of gradients to signals, their intervals over groups, and verdicts. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[np.floating[Any]]
RESAMPLES = 1000
LEVEL = 0.05
"""Differences of signal smaller than this share are called level."""
SAME = 1e-6
"""Where no resample differs by more than this share, two estimators push alike: they differ by a factor at most."""

Finding = Literal["baseline", "same", "better", "worse", "level", "cannot tell"]


@dataclass(frozen=True, slots=True)
class Step:
    """One estimator's steps, as weights of gradients that were sketched.

    Attributes:
        weights_N: of each sketched gradient in the step of its sub-group.
        subgroups_N: number of the sub-group that each belongs to.
        num_subgroups: of each group.
    """

    weights_N: Array
    subgroups_N: NDArray[np.integer[Any]]
    num_subgroups: int


@dataclass(frozen=True, slots=True)
class Versus:
    """An estimator's signal against the baseline's.

    Attributes:
        signal: its expected improvement over the root mean square length of a step.
        difference: of its signal to the baseline's, as a share of that; None where the baseline has no signal to speak of.
        low: lower end of the 95 % interval over groups.
        high: upper end.
        verdict: better or worse: the interval leaves out 0; level: it lies within 5 %; same: it pushes like the baseline, but for a
            factor.
        more_groups: about how many further groups would settle it; None where it is settled, or where nothing can be said.
    """

    signal: float
    difference: float | None
    low: float | None
    high: float | None
    verdict: Finding
    more_groups: int | None = None


def resamples(num_groups: int) -> Array:
    """(R + 1, n) how often each group counts: once in the first row, and in the others as in a bootstrap over groups."""
    drawn = np.random.default_rng(0).multinomial(num_groups, [1 / num_groups] * num_groups, size=RESAMPLES)
    return np.concatenate([np.ones((1, num_groups)), drawn]).astype(float)


def by_group(groups_N: NDArray[np.integer[Any]], num_groups: int, weights_N: Array) -> Any:
    """(N, n) sparse matrix that adds up gradients, each with its weight, by group."""
    return sparse.csr_matrix((weights_N, (np.arange(len(groups_N)), groups_N)), shape=(len(groups_N), num_groups))


def signals(
    counts_Rn: Array,
    true_nN: Array,
    gram_NN: Array,
    groups_N: NDArray[np.integer[Any]],
    step: Step,
    groups_per_step: int,
) -> Array:
    r"""(R,) the signal of an estimator in each resample.

        signal = <g, E u> / sqrt(E |mean of B steps u|^2),        E |mean|^2 = |E u|^2 + (E |u|^2 - |E u|^2) / B

    g is the gradient of the accuracy, u the step of a group, B the groups of an optimiser step. <g, E u> and |E u|^2 are taken over
    pairs of different groups alone, so no noise of a group meets itself; E |u|^2 is over the groups.

    Args:
        counts_Rn: see `resamples`.
        true_nN: inner products of each group's estimate of g with each sketched gradient.
        gram_NN: inner products of the sketched gradients.
        groups_N: the group of each.
        step: the estimator.
        groups_per_step: B, in full groups; a group that was split counts as its parts.
    """
    n = counts_Rn.shape[1]
    mean = by_group(groups_N, n, step.weights_N / step.num_subgroups)
    inner_nn = np.asarray(true_nN @ mean)
    steps_nn = np.asarray(mean.T @ gram_NN @ mean)
    parts = by_group(step.subgroups_N, n * step.num_subgroups, step.weights_N)
    squares = np.asarray(parts.multiply(gram_NN @ parts).sum(0)).reshape(n, step.num_subgroups).mean(1)
    total_R = counts_Rn.sum(1)
    pairs_R = total_R**2 - (counts_Rn**2).sum(1)
    improvement_R = _cross(counts_Rn, inner_nn) / pairs_R
    drift_R = np.maximum(_cross(counts_Rn, steps_nn) / pairs_R, 0)
    square_R = counts_Rn @ squares / total_R
    size_R = drift_R + np.maximum(square_R - drift_R, 0) / (groups_per_step * step.num_subgroups)
    return improvement_R / np.sqrt(np.maximum(size_R, np.finfo(float).tiny))


def _cross(counts_Rn: Array, products_nn: Array) -> Array:
    """The sum over ordered pairs of different groups, each counted as often as it was drawn."""
    return ((counts_Rn @ products_nn) * counts_Rn).sum(1) - counts_Rn**2 @ np.diagonal(products_nn)


def versus(ours_R: Array, baseline_R: Array, num_groups: int, *, is_baseline: bool = False) -> Versus:
    """An estimator's signal against the baseline's, in the sample itself and over its resamples."""
    signal = float(ours_R[0])
    if is_baseline:
        return Versus(signal, 0.0, 0.0, 0.0, "baseline")
    if baseline_R[0] <= 0 or np.quantile(baseline_R[1:], 0.025) <= 0:
        return Versus(signal, None, None, None, "cannot tell", groups_for_signal(baseline_R, num_groups))
    ratios_R = ours_R / baseline_R - 1
    difference, (low, high) = float(ratios_R[0]), map(float, np.quantile(ratios_R[1:], (0.025, 0.975)))
    if np.abs(ratios_R).max() < SAME:
        return Versus(signal, 0.0, 0.0, 0.0, "same")
    verdict: Finding = "better" if low > 0 else "worse" if high < 0 else "cannot tell"
    if verdict == "cannot tell" and low >= -LEVEL and high <= LEVEL:
        verdict = "level"
    more = None
    if verdict == "cannot tell":  # until the interval would leave out 0, or lie within what is called level
        wanted = max(abs(difference), LEVEL - abs(difference))
        more = _more(num_groups, (high - low) / 2 / wanted)
    return Versus(signal, difference, low, high, verdict, more)


def groups_for_signal(baseline_R: Array, num_groups: int) -> int | None:
    """About how many further groups would tell the baseline's own signal from nothing; None where no end is in sight."""
    half = float(np.quantile(baseline_R[1:], 0.975) - np.quantile(baseline_R[1:], 0.025)) / 2
    return _more(num_groups, half / baseline_R[0]) if baseline_R[0] > 0.1 * half else None


def _more(num_groups: int, too_wide: float) -> int | None:
    """Intervals shrink with the root of the number of groups."""
    more = num_groups * (too_wide**2 - 1)
    return (
        None if not math.isfinite(more) else max(10, int(round(more, 2 - len(str(int(max(more, 10)))))))
    )  # two digits are known
