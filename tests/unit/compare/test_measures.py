"""What one run came to."""

from dataclasses import replace

import numpy as np
import pytest

from lampo.compare.measures import (
    MEASURES,
    area_by_problem,
    area_under_curve,
    by_seed,
    collapsed,
    largest_drop,
    rollouts_to,
    value_of,
)
from lampo.compare.results import MeasureName

from ...helpers.study_results import points, run


def test_the_area_is_the_mean_height_of_straight_lines():
    curve = points([0.0, 0.4, 0.8])  # at 0, 100 and 200 rollouts
    assert area_under_curve(curve, 200) == pytest.approx((100 * 0.2 + 100 * 0.6) / 200)
    assert area_under_curve(curve, 150) == pytest.approx((100 * 0.2 + 50 * (0.4 + 0.6) / 2) / 150)
    assert area_under_curve(curve, 400) == pytest.approx((100 * 0.2 + 100 * 0.6 + 200 * 0.8) / 400)  # it ended earlier
    assert area_under_curve(curve, 0) == 0.0


def test_the_target_is_crossed_on_the_line_between_evaluations():
    curve = points([0.1, 0.3, 0.2, 0.6])
    assert rollouts_to(curve, 0.2) == pytest.approx(100 * 0.1 / 0.2)
    assert rollouts_to(curve, 0.3) == pytest.approx(100)
    assert rollouts_to(curve, 0.5) == pytest.approx(200 + 100 * 0.3 / 0.4)
    assert (rollouts_to(curve, 0.1), rollouts_to(curve, 0.7)) == (0.0, None)


def test_a_drop_is_from_the_running_best_and_a_collapse_below_the_start_or_half_of_the_best():
    assert largest_drop(points([0.1, 0.5, 0.3, 0.9, 0.8])) == pytest.approx(0.5 - 0.3)
    assert largest_drop(points([0.1, 0.2, 0.2])) == 0.0
    assert collapsed(points([0.2, 0.9, 0.44]))
    assert not collapsed(points([0.2, 0.9, 0.45]))
    assert collapsed(points([0.2, 0.21, 0.19]))


def test_the_area_of_problems_has_the_area_as_its_mean_and_few_problems_count_for_more():
    first, last = (
        replace(point, by_problem=shares)
        for point, shares in zip(points([0.5, 0.5]), ((1.0, 0.0), (1.0, 0.0, 1.0, 0.0)), strict=True)
    )
    area_P = area_by_problem((first, last), 100)
    assert area_P is not None
    assert area_P.mean() == area_under_curve((first, last), 100) == 0.5
    # half of the area is the first evaluation's, and it asked half of the problems
    assert area_P.tolist() == [
        0.5 + 0.5 * 2 * 0.5 + 0.5 * 0.5,
        0.5 - 0.5 * 2 * 0.5 - 0.5 * 0.5,
        0.5 + 0.5 * 0.5,
        0.5 - 0.5 * 0.5,
    ]
    assert area_by_problem(points([0.5, 0.5]), 100) is None


@pytest.mark.parametrize(
    ("measure", "expected"), [("most_likely_response", None), ("samples", 0.8), ("over_training", (0.2 + 0.6) / 2)]
)
def test_a_measure_is_a_number_and_with_the_results_of_problems_one_for_each(
    measure: MeasureName, expected: float | None
) -> None:
    plain = run("grpo", 0, [0.0, 0.4, 0.8])
    assert value_of(plain, measure, 200) == (expected and pytest.approx(expected))
    shares = {0.0: (0.0, 0.0), 0.4: (0.5, 0.3), 0.8: (1.0, 0.6)}
    known = tuple(
        replace(point, greedy=point.accuracy, by_problem=each, greedy_by_problem=each)
        for point in plain.points
        for each in [shares[point.accuracy]]
    )
    of_problems = value_of(replace(plain, points=known), measure, 200)
    assert of_problems is not None
    assert np.shape(of_problems) == (2,)
    assert np.mean(of_problems) == pytest.approx(0.8 if expected is None else expected)


def test_values_by_seed_are_without_the_seeds_that_were_not_measured() -> None:
    runs = [run("grpo", seed, [0.1, 0.2]) for seed in (3, 4)]
    runs[1] = replace(runs[1], points=tuple(replace(point, greedy=0.7) for point in runs[1].points))
    assert by_seed(runs, lambda run: value_of(run, "most_likely_response", 100)) == {4: 0.7}
    assert by_seed(runs, lambda run: value_of(run, "samples", 100)) == {3: 0.2, 4: 0.2}
    assert set(MEASURES) == {"most_likely_response", "samples", "over_training"}
