import itertools
import math
import random
from fractions import Fraction

import pytest

from lampo.evaluation.scores import (
    ProblemMean,
    majority,
    mean_over_problems,
    paired_difference,
    pass_at_k,
    wilson_interval,
)
from lampo.types import Verdict


def test_pass_at_k_is_the_share_of_subsets_with_a_right_one() -> None:
    for n in range(1, 7):
        for c in range(n + 1):
            right = [True] * c + [False] * (n - c)
            for k in range(1, n + 1):
                subsets = list(itertools.combinations(right, k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))
    for arguments in ((3, 1, 4), (3, 4, 1), (3, -1, 1), (3, 1, 0)):
        with pytest.raises(ValueError, match="needs at least"):
            pass_at_k(*arguments)


def test_majority() -> None:
    r, w3, w4 = Verdict("right", "2"), Verdict("wrong", "3"), Verdict("wrong", "4")
    none, unknown = Verdict("wrong"), Verdict("unknown", "2")
    assert majority([r, r, w3]) == 1.0
    assert majority([Verdict("right", "1/2"), Verdict("right", "0.5"), w3, w3, w4]) == 0.5  # two, two and one
    assert majority([r, w3, w4]) == pytest.approx(1 / 3)
    assert majority([w3, Verdict("wrong", " 3 "), r]) == 0.0
    assert majority([none, unknown, none, r]) == 1.0
    assert majority([none, unknown]) is None


def test_an_interval_covers_as_often_as_it_says() -> None:
    generator = random.Random(3)
    rate, covered = 0.35, 0
    for _ in range(200):
        values = [sum(generator.random() < rate for _ in range(4)) / 4 for _ in range(60)]
        estimate = mean_over_problems(values)
        covered += estimate.low <= rate <= estimate.high
    assert 180 <= covered <= 199  # 190 are expected, give or take 3.1


def test_problems_are_resampled_and_not_responses() -> None:
    generator = random.Random(0)
    alike = [float(generator.random() < 0.5) for _ in range(50)]  # all responses to a problem are the same
    one, many = mean_over_problems(alike), mean_over_problems([sum([value] * 16) / 16 for value in alike])
    assert one == many  # sixteen times the responses say nothing more about other problems


def test_where_there_is_nothing_to_resample_the_interval_is_wilsons() -> None:
    assert mean_over_problems([1.0] * 30) == ProblemMean(1.0, *wilson_interval(1.0, 30), 30)
    assert mean_over_problems([0.0]) == ProblemMean(0.0, *wilson_interval(0.0, 1), 1)
    almost = mean_over_problems([0.0] * 29 + [1.0])
    assert 0 <= almost.low <= 1 / 30 <= almost.high <= 0.3
    with pytest.raises(ValueError, match="at least one problem"):
        mean_over_problems([])


def test_a_paired_difference_leaves_the_difficulty_of_problems_out() -> None:
    generator = random.Random(1)
    easy = [generator.random() for _ in range(200)]
    before = [min(1.0, max(0.0, value + generator.gauss(0, 0.05))) for value in easy]
    after = [min(1.0, max(0.0, value + 0.05 + generator.gauss(0, 0.05))) for value in easy]
    difference = paired_difference(before, after)
    assert difference.estimate.low > 0
    assert difference.estimate.value == pytest.approx(math.fsum(after) / 200 - math.fsum(before) / 200)
    alone = mean_over_problems(before)
    assert difference.estimate.high - difference.estimate.low < (alone.high - alone.low) / 3
    assert difference.num_better + difference.num_worse <= 200
    same = paired_difference([0.5] * 40, [0.5] * 40)
    assert same.estimate.low == -same.estimate.high != 0
    assert (same.estimate.value, same.num_better, same.num_worse) == (0, 0, 0)
    with pytest.raises(ValueError, match="no problem in common"):
        paired_difference([], [])


def test_pass_at_k_by_fractions() -> None:
    assert Fraction(pass_at_k(16, 4, 8)).limit_denominator(10**6) == 1 - Fraction(math.comb(12, 8), math.comb(16, 8))
