"""Means, intervals, tests and power over seeds, problems and settings."""

import math

import numpy as np
import pytest
from scipy import stats

from lampo.compare.statistics import (
    intervals,
    mean_over_seeds,
    paired_p,
    pooled,
    probability_of_improvement,
    smallest_shown,
)

from ...helpers.study_results import only, study


def test_an_interval_is_students():
    values = [0.2, 0.5]
    half = stats.t.ppf(0.975, 1) * math.sqrt(2 * 0.15**2) / math.sqrt(2)
    mean = mean_over_seeds(values)
    assert (mean.value, mean.low, mean.high) == (0.35, pytest.approx(0.35 - half), pytest.approx(0.35 + half))
    assert (mean_over_seeds(values, 0.0, 1.0).low, mean_over_seeds(values, 0.0, 1.0).high) == (0.0, 1.0)


def test_equal_seeds_one_seed_and_one_odd_seed_have_an_answer_without_a_warning():
    equal = mean_over_seeds([0.3] * 8)
    assert (equal.low, equal.high) == (pytest.approx(0.3), pytest.approx(0.3))
    assert mean_over_seeds([0.3]).low is None
    odd = mean_over_seeds([0.0] * 9 + [1.0], 0.0, 1.0)  # extreme for the acceleration of BCa
    assert odd.low is not None
    assert odd.high is not None
    assert 0.0 <= odd.low < 0.1 < odd.high <= 1.0
    ten = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    half = 2.262 * math.sqrt(sum((value - 0.55) ** 2 for value in ten) / 9 / 10)
    assert mean_over_seeds(ten).high == pytest.approx(0.55 + half, abs=1e-4)
    with pytest.raises(ValueError, match="at least one seed"):
        mean_over_seeds([])


@pytest.mark.parametrize("num_seeds", [3, 5, 10])
def test_the_interval_covers_the_mean_of_normal_data_as_often_as_it_says(num_seeds: int):
    generator = np.random.default_rng(0)
    bounds = intervals(generator.normal(0.5, 0.05, (num_seeds, 2000)))
    assert bounds
    assert ((bounds[0] <= 0.5) & (bounds[1] >= 0.5)).mean() == pytest.approx(0.95, abs=0.01)


def test_the_same_seeds_give_the_same_interval():
    values = np.random.default_rng(1).normal(size=10).tolist()
    assert mean_over_seeds(values) == mean_over_seeds(values)
    results = study(("grpo", [0.5] * 10), ("lampo", values))
    assert only(results) == only(results[::-1])


def test_the_interval_is_over_problems_too_where_each_has_a_number():
    # two seeds on two problems: what problems bring and seeds do not is var_P / P less the rest, with hand-made numbers
    values_SP = np.array([[0.2, 0.6], [0.4, 1.0]])
    of_seeds = np.var([0.4, 0.7], ddof=1) / 2
    of_problems = np.var([0.3, 0.8], ddof=1) / 2 - 4 * 0.05**2 / (1 * 1) / 4  # what is left of both is -+0.05
    mean = mean_over_seeds(values_SP)
    assert (mean.value, mean.num_problems) == (pytest.approx(0.55), 2)
    assert mean.error == pytest.approx(math.sqrt(of_seeds + of_problems))
    assert mean.high == pytest.approx(0.55 + stats.t.ppf(0.975, 1) * mean.error)
    same = mean_over_seeds(np.repeat([[0.2], [0.4]], 50, axis=1))  # all problems alike: nothing comes of them
    assert same.high == pytest.approx(mean_over_seeds([0.2, 0.4]).high)


def test_the_p_value_counts_the_patterns_of_signs():
    # of the 2^3 patterns, the mean of [3, 2, -1] is reached or passed by itself and by [3, 2, 1]: two-sided twice that
    assert paired_p([0.3, 0.2, -0.1]) == pytest.approx(2 * 2 / 8)
    assert paired_p([0.1] * 10) == pytest.approx(2 / 2**10)
    assert paired_p([0.0] * 5) == 1.0
    assert paired_p([0.1]) is None
    # 2^4 + 2^2 patterns of 2^7 halves, by counting all; in floating-point numbers some of the means that tie differ by 1e-17
    assert paired_p([round(points / 188, 12) for points in (-2, 9, -1, 3, 7, 7)]) == 10 / 64
    assert paired_p([0.1] * 20) == pytest.approx(2 / (2**14 + 1))  # drawn, no longer all


def test_the_probability_of_improvement_counts_a_tie_as_half():
    share = probability_of_improvement([0.1, 0.2, 0.0, -0.1])
    assert share.value == (2 + 0.5) / 4
    certain = probability_of_improvement([0.1] * 10)
    assert (certain.value, certain.high) == (1.0, 1.0)
    assert certain.low == pytest.approx(10 / (10 + 1.96**2))  # Wilson's at p = 1: not certain at all


@pytest.mark.parametrize(("num_seeds", "num_methods"), [(7, 1), (8, 3)])
def test_a_difference_of_the_size_that_is_named_is_shown_in_four_cases_of_five(num_seeds: int, num_methods: int):
    generator = np.random.default_rng(1)
    spread = [0.01, -0.01] * (num_seeds // 2) + [0.0] * (num_seeds % 2)
    size = smallest_shown(spread, num_methods)
    assert size is not None
    drawn = generator.normal(size, np.std(spread, ddof=1), (300, num_seeds))
    shown = sum((paired_p(differences) or 1.0) < 0.05 / num_methods for differences in drawn.tolist())
    assert shown / 300 == pytest.approx(0.8, abs=0.07)


def test_pooling_settings_that_agree_weighs_them_by_their_errors() -> None:
    whole = pooled([1.0, 2.0, 1.5], [0.5, 1.0, 0.8])
    weights = np.array([1 / 0.25, 1.0, 1 / 0.64])
    assert whole.value == pytest.approx((weights * [1.0, 2.0, 1.5]).sum() / weights.sum())
    assert whole.num_seeds == 3


def test_pooling_settings_that_differ_weighs_them_nearly_alike() -> None:
    whole = pooled([0.0, 10.0], [0.1, 1.0])
    assert whole.value == pytest.approx(5.0, abs=0.1)
    assert whole.low is not None
    assert whole.low < 0  # two settings say little of a third


def test_the_interval_over_settings_covers_the_mean_nearly_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        errors = rng.uniform(0.3, 1.5, size=7)
        means = rng.normal(2.0, 1.0, size=7) + rng.normal(size=7) * errors
        whole = pooled(means.tolist(), errors.tolist())
        assert whole.low is not None
        assert whole.high is not None
        covered += whole.low <= 2.0 <= whole.high
    assert covered / 1000 == pytest.approx(0.94, abs=0.02)


def test_pooling_needs_two_settings_with_errors() -> None:
    with pytest.raises(ValueError, match="at least two settings"):
        pooled([1.0], [0.5])
    with pytest.raises(ValueError, match="standard error above 0"):
        pooled([1.0, 2.0], [0.5, 0.0])
