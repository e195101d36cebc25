"""Means over seeds, and two methods beside each other, seed by seed.

A seed fixes the initial weights and the order of the problems, so methods are compared within a seed and what a seed
brings of its own cancels. Intervals are Student's t. They answer "what if other seeds had been drawn?". The problems stay the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Literal, cast

import numpy as np
from scipy import optimize, stats

from ..evaluation.scores import Array, wilson_interval

PERMUTATIONS = 2**14  # every pattern of signs, hence exact, up to 14 seeds
SIGNIFICANT = 0.05
POWER = 0.8

Finding = Literal["better", "worse", "no difference shown", "too few seeds"]


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """A mean over seeds, or over settings, and the ends of its 95 % interval. One seed has no interval."""

    value: float
    low: float | None
    high: float | None
    num_seeds: int


@dataclass(frozen=True, slots=True)
class Paired:
    """A method minus the baseline in one measure, over the seeds that both have.

    Attributes:
        seeds: the common seeds.
        differences: of each of them.
        difference: their mean.
        improvement: probability of improvement, the share of seeds where the method is ahead, a tie counting half.
        p_alone: of the paired permutation test, two-sided, as if nothing else had been compared; None under two seeds.
        p: the same, corrected by Benjamini and Hochberg over the rows of the table that makes the claim.
        verdict: by `p`, not by the interval.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    difference: OverSeeds
    improvement: OverSeeds
    p_alone: float | None
    p: float | None
    verdict: Finding


def mean_over_seeds(values: Sequence[float], lowest: float = -math.inf, highest: float = math.inf) -> OverSeeds:
    """The mean with its 95 % interval over seeds, within [lowest, highest].

        mean -+ t_(0.975, n - 1) s / sqrt(n)

    For 3 to 20 seeds it covers the mean of normal data, and of the differences in the committed studies, as often as it says. A bootstrap
    falls short there (`benchmarks/coverage.py`). Of one value there is none.

    >>> mean_over_seeds([0.5]).low, mean_over_seeds([0.25, 0.25]).high
    (None, 0.25)

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a mean over seeds needs at least one seed")
    values_S1 = np.asarray(values, dtype=float)[:, None]
    mean = float(values_S1.mean())
    bounds = intervals(values_S1)
    if bounds is None:
        return OverSeeds(mean, None, None, len(values))
    low, high = (min(highest, max(lowest, float(bound[0]))) for bound in bounds)
    return OverSeeds(mean, low, high, len(values))


def paired_p(differences: Sequence[float]) -> float | None:
    """Two-sided p-value of the paired permutation test on the mean: had the two runs of a seed swapped names at random.

    Exact up to 14 seeds. With n seeds it is 2^(1 - n) at the least. Means that are equal to nine decimals tie, as means of
    accuracies do that are equal as fractions of problems and not as floating-point numbers.

    >>> paired_p([0.1, 0.2, 0.3, 0.1, 0.2, 0.3]) == 2 / 2**6
    True
    """
    return _paired_p(tuple(differences))


@cache
def _paired_p(differences: tuple[float, ...]) -> float | None:
    if len(differences) < 2:
        return None
    values = np.asarray(differences, dtype=float)
    result = stats.permutation_test(
        (values, np.zeros_like(values)),
        lambda method, baseline, axis: np.round(np.mean(method - baseline, axis=axis), 9),
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def probability_of_improvement(differences: Sequence[float]) -> OverSeeds:
    """Share of seeds where the method is ahead of the baseline, ties counting half, with Wilson's interval.

    arXiv 2108.13264 compares all pairs of runs, because its runs share nothing. Here the runs of a seed share their initial
    weights and problems, so it is the paired form: given the seed, which method ends higher? Wilson's interval instead of
    the bootstrap's, which for "all seeds ahead" has no width at all.
    """
    share = sum((value > 0) + (value == 0) / 2 for value in differences) / len(differences)
    low, high = wilson_interval(share, len(differences))
    return OverSeeds(share, low, high, len(differences))


def seeds_needed(num_methods: int) -> int:
    """Seeds that are enough for one of so many methods, ahead of the baseline in every seed, to be shown to be better.

    The smallest n for which m 2^(1 - n) < 0.05: the least p-value of n pairs after the correction for m methods beside the
    baseline, of which no other one differs from it.

    >>> seeds_needed(1), seeds_needed(13)
    (6, 10)
    """
    seeds = 2
    while num_methods * 2.0 ** (1 - seeds) >= SIGNIFICANT:
        seeds += 1
    return seeds


def smallest_shown(differences: Sequence[float], num_methods: int = 1) -> float | None:
    """The smallest true difference that so many seeds would have shown in 80 % of cases, were their spread the one seen here.

    Shown: the paired permutation test has p below 0.05 / m. That is what the correction leaves where one of m methods beside the baseline
    differs. None where so few seeds can show nothing, whatever the difference.

    >>> smallest_shown([0.1, 0.2, 0.3]) is None, smallest_shown([0.2] * 10)
    (True, 0.0)
    """
    if len(differences) < seeds_needed(num_methods):
        return None
    return _deviations_shown(len(differences), num_methods) * float(np.std(differences, ddof=1))


@cache
def _deviations_shown(num_seeds: int, num_methods: int) -> float:
    """The same in standard deviations of a difference, by simulation: 2,000 samples of normal differences, and their p."""
    generator = np.random.default_rng(0)
    if num_seeds <= 12:  # the pattern that turns every sign has the same mean, so half of them are all
        signs_KS = np.array([(1, *signs) for signs in product((1, -1), repeat=num_seeds - 1)])
    else:
        signs_KS = np.vstack([np.ones(num_seeds), generator.choice((1, -1), (2047, num_seeds))])
    draws_SM = generator.normal(size=(num_seeds, 2000))

    def power(difference: float) -> float:
        sums_KM = np.abs(signs_KS @ (draws_SM + difference))
        p_M = (sums_KM >= sums_KM[0] - 1e-9).mean(0)
        return float((p_M < SIGNIFICANT / num_methods).mean())

    return cast(float, optimize.bisect(lambda difference: power(difference) - POWER, 0.0, 10.0, xtol=0.002))


def paired(ours: dict[int, float], baseline: dict[int, float]) -> Paired | None:
    """One method and one measure, not yet corrected for the other methods."""
    seeds = tuple(sorted(ours.keys() & baseline.keys()))
    if not seeds:
        return None
    # rounded, so that accuracies that are equal as fractions of problems are ties
    differences = tuple(round(ours[seed] - baseline[seed], 12) for seed in seeds)
    improvement, p = probability_of_improvement(differences), paired_p(differences)
    return Paired(seeds, differences, mean_over_seeds(differences, -1.0, 1.0), improvement, p, None, "too few seeds")


def corrected(pairs: Sequence[Paired | None]) -> list[Paired | None]:
    """Benjamini and Hochberg over the rows of a table in one measure, and the verdicts.

    "Too few seeds" is said where no difference is shown and none could have been: even with all seeds on one side, which
    is p = 2^(1 - n), the corrected p would have stayed above 5 %.
    """
    p_values = [pair.p_alone for pair in pairs if pair and pair.p_alone is not None]
    adjusted = iter(stats.false_discovery_control(p_values).tolist()) if p_values else iter(())
    finished: list[Paired | None] = []
    position = 0
    for pair in pairs:
        if pair is None or pair.p_alone is None:
            finished.append(pair)
            continue
        p = next(adjusted)
        at_best = [*p_values[:position], 2.0 ** (1 - len(pair.seeds)), *p_values[position + 1 :]]
        possible = stats.false_discovery_control(at_best)[position] < SIGNIFICANT
        verdict: Finding = "no difference shown" if possible else "too few seeds"
        if p < SIGNIFICANT:
            verdict = "better" if pair.difference.value > 0 else "worse"
        finished.append(replace(pair, p=p, verdict=verdict))
        position += 1
    return finished


def pooled(means: Sequence[float], errors: Sequence[float]) -> OverSeeds:
    """One mean over independent settings that need not share one: random effects, each with its standard error.

    The variance between settings tau^2 is Paule and Mandel's (1982): the one under which the weighted squares

        sum_i w_i (y_i - y)^2 = k - 1,    w_i = 1 / (e_i^2 + tau^2),    y = sum_i w_i y_i / sum_i w_i

    are what chance makes of them, or 0. The interval is Hartung and Knapp's (2001), from Student's t with k - 1 degrees of freedom. It asks
    what other settings of this kind would do to the mean, and not only other seeds.
    With seven settings it covered the mean in 93 to 95 % of simulations.

    Raises:
        ValueError: there are fewer than two settings, or one has no error.
    """
    if len(means) < 2 or min(errors) <= 0:
        raise ValueError("pooling needs at least two settings, each with a standard error above 0")
    y, e = np.asarray(means, dtype=float), np.asarray(errors, dtype=float)

    def squares(between: float) -> tuple[float, float, float]:
        weights = 1 / (e**2 + between)
        mean = float((weights * y).sum() / weights.sum())
        return float((weights * (y - mean) ** 2).sum()), mean, float(weights.sum())

    k, between = len(y), 0.0
    if squares(0.0)[0] > k - 1:
        between = cast(
            float, optimize.brentq(lambda value: squares(value)[0] - (k - 1), 0.0, float(np.ptp(y)) ** 2 * k)
        )
    total, mean, weight = squares(between)
    half = float(stats.t.ppf(0.975, k - 1)) * math.sqrt(total / (k - 1) / weight)
    return OverSeeds(mean, mean - half, mean + half, k)


def intervals(values_SM: Array) -> tuple[Array, Array] | None:
    """95 % intervals of the means of columns, as `mean_over_seeds` says; None for one seed."""
    n = len(values_SM)
    if n < 2:
        return None
    mean_M = values_SM.mean(0)
    half_M = float(stats.t.ppf(0.975, n - 1)) * values_SM.std(0, ddof=1) / math.sqrt(n)
    return mean_M - half_M, mean_M + half_M
