"""What a run came to, and methods beside the baseline."""

from dataclasses import replace

import numpy as np
import pytest

from lampo.compare.comparison import (
    compare_methods,
    learning_curve,
    tuned_methods,
)
from lampo.compare.results import RunResult
from lampo.compare.statistics import (
    mean_over_seeds,
)
from lampo.compare.table import OVER_PROBLEMS, OVER_SEEDS, how_to_read, in_words, tables

from ...helpers.study_results import beside_baseline, of, only, run, study, tuning


def test_differences_are_over_problems_where_all_runs_have_them():
    def measured(method: str, by_seed: list[tuple[float, ...]]) -> list[RunResult]:
        runs = study((method, [sum(shares) / len(shares) for shares in by_seed]))
        return [
            replace(each, points=(each.points[0], replace(each.points[1], by_problem=shares)))
            for each, shares in zip(runs, by_seed, strict=True)
        ]

    grpo = measured("grpo", [(0.5, 0.5, 0.0), (0.5, 1.0, 0.0), (0.5, 0.5, 0.5)])
    lampo = measured("lampo", [(1.0, 0.5, 0.0), (1.0, 0.5, 0.5), (1.0, 0.5, 0.5)])
    comparison = only([*grpo, *lampo])
    found = beside_baseline(comparison, "lampo").difference
    expected = mean_over_seeds(np.array([[0.5, 0.0, 0.0], [0.5, -0.5, 0.5], [0.5, 0.0, 0.0]]), -1.0, 1.0)
    assert found == replace(expected, value=pytest.approx(expected.value))
    assert found.num_problems == 3
    assert how_to_read([comparison])[0] == OVER_PROBLEMS
    older = only([*grpo, *study(("lampo", [0.5, 0.6, 0.7]))])
    assert beside_baseline(older, "lampo").difference.num_problems is None
    assert how_to_read([older])[0] == OVER_SEEDS


def test_a_planted_difference_is_found_and_its_size_covered():
    generator = np.random.default_rng(0)
    seeds = generator.normal(0.5, 0.08, 10)  # what a seed brings is far larger than the difference, and cancels
    better, worse, same = (seeds + shift + generator.normal(0, 0.01, 10) for shift in (0.03, -0.03, 0.0))
    comparison = only(study(("grpo", list(seeds)), ("up", list(better)), ("down", list(worse)), ("same", list(same))))
    verdicts = {m.method: m.differences["samples"] and m.differences["samples"].verdict for m in comparison.methods}
    assert verdicts == {"grpo": None, "up": "better", "down": "worse", "same": "no difference shown"}
    mean = beside_baseline(comparison, "up").difference
    assert mean.value == pytest.approx(float(np.mean(better - seeds)))
    assert mean.low is not None
    assert mean.high is not None
    assert 0 < mean.low < 0.03 < mean.high < 0.05


def test_without_a_difference_a_corrected_p_is_rarely_small():
    generator = np.random.default_rng(0)
    false = 0
    for _ in range(20):  # studies of seven methods that are all the same
        results = study(*((name, generator.normal(0.5, 0.05, 8).tolist()) for name in ("grpo", *"abcdef")))
        comparison = only([replace(result, points=result.points[-1:]) for result in results])
        false += any(
            m.differences["samples"] and m.differences["samples"].verdict in ("better", "worse")
            for m in comparison.methods
        )
    assert false <= 2  # uncorrected it would be about 20 (1 - 0.95^6) = 5


def test_p_values_are_corrected_over_the_methods_of_a_task():
    grpo = [0.5] * 8
    up = [0.6] * 8
    mixed = [0.6, 0.4] * 4
    comparison = only(study(("grpo", grpo), ("up", up), ("mixed", mixed)))
    assert beside_baseline(comparison, "up").p_alone == pytest.approx(2 / 2**8)
    assert beside_baseline(comparison, "up").p == pytest.approx(2 * 2 / 2**8)  # smallest of two
    assert beside_baseline(comparison, "mixed").p == 1.0


def test_too_few_seeds_is_said_where_nothing_could_have_been_shown():
    def verdict(num_seeds: int, num_methods: int = 1) -> str:
        others = [
            (f"up{number}", [0.6] * num_seeds if number == 0 else [0.6, 0.4] * num_seeds)
            for number in range(num_methods)
        ]
        results = study(("grpo", [0.5] * num_seeds), *((name, finals[:num_seeds]) for name, finals in others))
        return beside_baseline(only(results), "up0").verdict

    assert [verdict(n) for n in (1, 2, 5, 6)] == ["too few seeds"] * 3 + ["better"]  # 2 / 2^6 < 0.05 < 2 / 2^5
    assert [verdict(n, num_methods=8) for n in (8, 10)] == ["too few seeds", "better"]  # 8 * 2 / 2^8 > 0.05


def test_only_common_seeds_are_paired():
    results = study(("grpo", [0.4, 0.5, 0.6]))
    results += [run("lampo", seed, [0.1, final]) for seed, final in ((1, 0.7), (2, 0.7), (3, 0.9))]
    comparison = only(results)
    pair = beside_baseline(comparison, "lampo")
    assert (pair.seeds, pair.differences) == ((1, 2), (pytest.approx(0.2), pytest.approx(0.1)))
    assert of(comparison, "lampo").final.value == pytest.approx((0.7 + 0.7 + 0.9) / 3)
    strangers = only([*study(("grpo", [0.5])), run("lampo", 7, [0.1, 0.6])])
    assert of(strangers, "lampo").differences["samples"] is None


def test_the_common_budget_is_the_smallest_total_of_the_runs_that_finished():
    results = [
        run("grpo", 0, [0.0, 0.4, 0.8]),
        run("dynamic", 0, [0.0, 0.4, 0.8], rollouts_a_step=200),
        run("broken", 0, [0.0, 0.4], status="crashed"),
    ]
    comparison = only(results)
    assert comparison.budget == 200
    assert of(comparison, "dynamic").area.value == pytest.approx(0.2)  # its first step takes all of it
    assert of(comparison, "dynamic").at_budget.value == pytest.approx(0.4)
    assert of(comparison, "broken").area.value == pytest.approx((100 * 0.2 + 100 * 0.4) / 200)  # goes on as it crashed
    assert of(comparison, "broken").rollouts is None
    assert of(comparison, "dynamic").rollouts == 400


def test_a_crashed_seed_counts_with_its_last_accuracy_or_its_start():
    results = study(("grpo", [0.5, 0.5, 0.5]))
    results += [
        run("lampo", 0, [0.1, 0.8]),
        run("lampo", 1, [0.1, 0.3], status="crashed"),
        run("lampo", 2, [], status="crashed"),
        run("lampo", 9, [], status="crashed"),  # nobody knows where seed 9 starts
    ]
    lampo = of(only(results), "lampo")
    assert lampo.finals == (0.8, 0.3, 0.1)
    assert (lampo.num_crashed, lampo.num_uncounted, lampo.seeds) == (3, 1, (0, 1, 2))
    assert lampo.differences["samples"] is not None
    assert lampo.differences["samples"].differences == pytest.approx((0.3, -0.2, -0.4))


def test_the_target_is_most_of_what_the_baseline_gained():
    results = study(("grpo", [0.5, 0.7]), ("lampo", [0.9, 0.2]))
    comparison = only(results)
    assert comparison.target == pytest.approx(0.1 + 0.9 * (0.6 - 0.1))
    lampo = of(comparison, "lampo")
    assert lampo.reached == 0.5
    assert lampo.rollouts_to_target == pytest.approx(100 * (0.55 - 0.1) / 0.8)
    assert only(study(("grpo", [0.1]))).target is None  # it gained nothing


def test_the_interquartile_mean_is_the_mean_of_the_middle_half():
    assert only(study(("grpo", [0.0, 0.4, 0.6, 0.7]))).methods[0].final_iqm == pytest.approx((0.4 + 0.6) / 2)


def test_the_baseline_comes_first_and_tasks_stay_apart():
    results = [*study(("lampo", [0.6]), ("grpo", [0.5])), replace(run("lampo", 0, [0.1, 0.2]), task="products")]
    sums, products = compare_methods(results, "grpo")
    assert [m.method for m in sums.methods] == ["grpo", "lampo"]
    assert [m.method for m in products.methods] == ["lampo"]
    assert products.methods[0].differences["samples"] is None
    assert in_words(products)[0].startswith("The baseline grpo has no test runs")


def test_a_seed_that_is_there_twice_is_refused():
    with pytest.raises(ValueError, match="lampo on sums repeat a seed"):
        compare_methods(study(("grpo", [0.5]), ("lampo", [0.5]), ("lampo", [0.6])), "grpo")
    mixed = [run("lampo", 0, [0.5]), run("lampo", 1, [0.5], learning_rate=1e-5)]
    with pytest.raises(ValueError, match="differ in learning rate"):
        compare_methods(mixed, "grpo")


def test_a_curve_is_a_mean_at_equal_cost_and_ends_with_the_shortest_seed():
    runs = [run("grpo", 0, [0.0, 0.4, 0.8]), run("grpo", 1, [0.2, 0.4], status="crashed")]
    runs += [run("grpo", 2, [0.1, 0.3], rollouts_a_step=150)]
    curve = learning_curve(runs, "rollouts")
    assert curve.x == (0.0, 100.0, 150.0)
    assert curve.mean == pytest.approx((0.3 / 3, (0.4 + 0.4 + (0.1 + 0.2 * 100 / 150)) / 3, (0.6 + 0.4 + 0.3) / 3))
    assert curve.low is not None
    assert learning_curve(runs[:1], "seconds").low is None
    assert learning_curve(runs[:1], "seconds").x == (0.0, 2.0, 4.0)


def test_the_highest_mean_wins_of_equals_the_smallest_and_an_edge_is_flagged():
    results = [
        *tuning("inside", {1e-6: [0.2, 0.2], 1e-5: [0.3, 0.5], 1e-4: [0.3, 0.3]}),
        *tuning("low", {1e-5: [0.4], 1e-6: [0.4]}),
        *tuning("high", {1e-6: [0.4], 1e-5: [0.5]}),
        *tuning("single", {1e-6: [0.4]}),
    ]
    tuned = {one.method: one for one in tuned_methods(results)}
    assert {name: (one.learning_rate, one.edge) for name, one in tuned.items()} == {
        "inside": (1e-5, None),
        "low": (1e-6, "lowest"),
        "high": (1e-5, "highest"),
        "single": (1e-6, None),
    }
    assert [trial.accuracy.value for trial in tuned["inside"].trials] == pytest.approx([0.2, 0.4, 0.3])
    assert tuned["inside"].trials[1].accuracy.num_seeds == 2


def test_a_crash_while_tuning_counts_against_the_learning_rate():
    results = tuning("grpo", {1e-6: [0.4, 0.4], 1e-5: [0.5, 0.5]})
    results[3] = replace(results[3], status="crashed", points=())
    (tuned,) = tuned_methods(results)
    assert tuned.learning_rate == 1e-6
    assert tuned.trials[1].accuracy.value == pytest.approx((0.5 + 0.1) / 2)
    assert tuned.trials[1].num_crashed == 1


def test_tuning_runs_are_not_compared():
    results = study(("grpo", [0.5]), ("lampo", [0.6])) + tuning("lampo", {1e-6: [0.9], 1e-5: [0.8]})
    assert of(only(results), "lampo").finals == (0.6,)
    only_tuned = only(tuning("lampo", {1e-6: [0.9], 1e-5: [0.8]}))
    assert only_tuned.methods == ()
    assert [table.title for table in tables(only_tuned)] == ["Tuned learning rates"]
    assert in_words(only_tuned)[0] == "There are no test runs yet."
