import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lampo.compare.comparison import (
    Comparison,
    MethodSummary,
    area_under_curve,
    collapsed,
    compare_methods,
    largest_drop,
    learning_curve,
    rollouts_to,
    tuned_methods,
)
from lampo.compare.results import Point, RunResult
from lampo.compare.statistics import (
    Paired,
    intervals,
    mean_over_seeds,
    paired_p,
    pooled,
    probability_of_improvement,
    smallest_shown,
)
from lampo.compare.table import HOW_TO_READ, Table, in_words, markdown, tables


def points(accuracies: list[float], rollouts_a_step: int = 100, pass_at_k: float | None = 0.9) -> tuple[Point, ...]:
    return tuple(
        Point(step, step * rollouts_a_step, step * 1000, step, step * 2.0, accuracy, pass_at_k, 10.0, 0.0, 100, 4)
        for step, accuracy in enumerate(accuracies)
    )


def run(method: str, seed: int, accuracies: list[float], *, rollouts_a_step: int = 100, **changes) -> RunResult:
    result = RunResult(
        task="sums",
        method=method,
        seed=seed,
        learning_rate=1e-6,
        phase="test",
        status="finished",
        error="",
        entropy_end=0.5,
        gradient_spikes=0.0,
        points=points(accuracies, rollouts_a_step),
    )
    return replace(result, **changes)


def study(*methods: tuple[str, list[float]]) -> list[RunResult]:
    """A start of 0.1 and the given final accuracies, seed 0 onwards."""
    return [run(name, seed, [0.1, final]) for name, finals in methods for seed, final in enumerate(finals)]


def only(results: list[RunResult]) -> Comparison:
    (comparison,) = compare_methods(results, "grpo")
    return comparison


def of(comparison: Comparison, name: str) -> MethodSummary:
    (method,) = (method for method in comparison.methods if method.method == name)
    return method


def beside_baseline(comparison: Comparison, name: str) -> Paired:
    pair = of(comparison, name).final_difference
    assert pair is not None
    return pair


# One run -------------------------------------------------------------------------------------------------------------


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


# Over seeds ----------------------------------------------------------------------------------------------------------


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


# Beside the baseline -------------------------------------------------------------------------------------------------


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


def test_a_planted_difference_is_found_and_its_size_covered():
    generator = np.random.default_rng(0)
    seeds = generator.normal(0.5, 0.08, 10)  # what a seed brings is far larger than the difference, and cancels
    better, worse, same = (seeds + shift + generator.normal(0, 0.01, 10) for shift in (0.03, -0.03, 0.0))
    comparison = only(study(("grpo", list(seeds)), ("up", list(better)), ("down", list(worse)), ("same", list(same))))
    verdicts = {m.method: m.final_difference and m.final_difference.verdict for m in comparison.methods}
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
            m.final_difference and m.final_difference.verdict in ("better", "worse") for m in comparison.methods
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


@pytest.mark.parametrize(("num_seeds", "num_methods"), [(7, 1), (8, 3)])
def test_a_difference_of_the_size_that_is_named_is_shown_in_four_cases_of_five(num_seeds: int, num_methods: int):
    generator = np.random.default_rng(1)
    spread = [0.01, -0.01] * (num_seeds // 2) + [0.0] * (num_seeds % 2)
    size = smallest_shown(spread, num_methods)
    assert size is not None
    drawn = generator.normal(size, np.std(spread, ddof=1), (300, num_seeds))
    shown = sum((paired_p(differences) or 1.0) < 0.05 / num_methods for differences in drawn.tolist())
    assert shown / 300 == pytest.approx(0.8, abs=0.07)


def test_power_is_told_for_each_number_of_seeds():
    spread = [0.5, 0.6] * 5
    comparison = only(study(("grpo", [0.5] * 10), ("a", spread), ("b", [0.6] * 10), ("c", spread[:5])))
    size = smallest_shown([0.0, 0.1] * 5, 3)
    assert size
    assert table(comparison, "Final accuracy").note.endswith(
        f"Power: 10 seeds show a difference of 0.0 to {100 * size:.1f} points in 80 % of cases, 5 seeds can show none."
    )
    assert "Power" not in table(only(study(("grpo", [0.5] * 10))), "Final accuracy").note


def test_the_primary_measure_comes_first_in_words_and_tables():
    results = study(("grpo", [0.5] * 6), ("lampo", [0.6] * 6))
    results = [
        replace(one, points=tuple(replace(point, greedy=0.3 + one.seed / 10) for point in one.points))
        for one in results
    ]
    (comparison,) = compare_methods(results, "grpo", "most_likely_response")
    assert [each.title for each in tables(comparison)][:2] == ["The most likely response", "Final accuracy"]
    assert in_words(comparison) == [
        "The primary measure is the most likely response, after training.",
        "No difference to grpo shown: lampo (0.0 [0.0, 0.0]).",
        "Not the primary measure: in samples, after training, lampo is better (+10.0 [+10.0, +10.0]).",
        "Not the primary measure: in samples, over training, lampo is better (+5.0 [+5.0, +5.0]).",
    ]
    (undeclared,) = compare_methods(results, "grpo")
    assert tables(undeclared)[0].title == "Final accuracy"


def test_only_common_seeds_are_paired():
    results = study(("grpo", [0.4, 0.5, 0.6]))
    results += [run("lampo", seed, [0.1, final]) for seed, final in ((1, 0.7), (2, 0.7), (3, 0.9))]
    comparison = only(results)
    pair = beside_baseline(comparison, "lampo")
    assert (pair.seeds, pair.differences) == ((1, 2), (pytest.approx(0.2), pytest.approx(0.1)))
    assert of(comparison, "lampo").final.value == pytest.approx((0.7 + 0.7 + 0.9) / 3)
    strangers = only([*study(("grpo", [0.5])), run("lampo", 7, [0.1, 0.6])])
    assert of(strangers, "lampo").final_difference is None


# A task --------------------------------------------------------------------------------------------------------------


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
    assert lampo.final_difference is not None
    assert lampo.final_difference.differences == pytest.approx((0.3, -0.2, -0.4))


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
    assert products.methods[0].final_difference is None
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


# Tuning --------------------------------------------------------------------------------------------------------------


def tuning(method: str, finals: dict[float, list[float]]) -> list[RunResult]:
    return [
        run(method, seed, [0.1, final], phase="tuning", learning_rate=rate)
        for rate, at_rate in finals.items()
        for seed, final in enumerate(at_rate)
    ]


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


# As text -------------------------------------------------------------------------------------------------------------


def table(comparison: Comparison, title: str) -> Table:
    (found,) = (table for table in tables(comparison) if table.title == title)
    return found


def test_a_crashed_run_does_not_say_what_the_others_were_asked():
    lost = run("grpo", 0, [0.1])
    lost = replace(lost, status="crashed", points=(replace(lost.points[0], problems=7, samples=1, pass_at_k=None),))
    comparison = only([lost, *study(("grpo", [0.4, 0.5]), ("lampo", [0.5, 0.6, 0.7]))[1:]])
    assert (comparison.problems, comparison.samples) == (100, 4)
    diversity = next(table for table in tables(comparison) if table.title == "Diversity")
    assert diversity.rows[0][2].endswith("(1 seeds)")
    assert "(grpo: 2 seeds, 0, 1; lampo: 3 seeds, 0 to 2)." in tables(comparison)[0].note


def test_the_headline_table_in_full():
    results = study(("grpo", [0.5] * 6), ("lampo", [0.6] * 5 + [0.65]))
    results[-1] = replace(results[-1], status="crashed")
    grpo, lampo = table(only(results), "Final accuracy").rows
    assert grpo == ("grpo", "1e-6", "6", "50.0 % [50.0, 50.0]", "–", "–", "–", "baseline")
    assert lampo[:3] == ("lampo", "1e-6", "6 (1 crashed)")
    assert lampo[3] == "60.8 % [58.7, 63.0]"  # 60 + 5 / 6 -+ 2.57 5 / 6, Student's t of six seeds
    assert lampo[4] == "+10.8 [+8.7, +13.0]"
    assert lampo[5:] == ("100 % [61, 100]", "0.031", "better")


def test_words_name_what_is_clear_first():
    results = study(("grpo", [0.5] * 7), ("same", [0.5] * 7), ("down", [0.4] * 7), ("new", [0.6] * 2))
    p = 3 * 2 / 2**7  # the smallest of three
    assert in_words(only(results)) == [
        f"down is worse than grpo: -10.0 [-10.0, -10.0] points over 7 seeds, p {p:.3f}.",
        "No difference to grpo shown: same (0.0 [0.0, 0.0]).",
        "Too few seeds to show any difference to grpo: new (+10.0 [+10.0, +10.0]). 7 seeds show a method that is ahead in all of them.",
    ]


def untrained(result: RunResult) -> RunResult:
    return replace(result, points=tuple(replace(point, updates=0) for point in result.points))


def test_words_say_where_nothing_was_trained():
    results = study(("grpo", [0.5] * 7), ("lampo", [0.6] * 7))
    nothing = only([untrained(result) for result in results])
    assert in_words(nothing) == ["Nothing was trained: no run made an optimiser step, so there is nothing to compare."]
    assert [row[-1] for row in table(nothing, "Final accuracy").rows] == ["nothing trained"] * 2
    partly = only([*results, *map(untrained, study(("cot", [0.1] * 7)))])
    assert in_words(partly)[1:] == ["Nothing was trained with cot: no optimiser step was made."]
    assert in_words(partly)[0].startswith("lampo is better than grpo")


def test_the_tuned_table_says_what_won_and_where():
    results = (
        study(("grpo", [0.5])) + tuning("grpo", {1e-6: [0.4, 0.4], 1e-5: [0.5, 0.5]}) + tuning("rloo", {1e-4: [0.3]})
    )
    tuned = table(only(results), "Tuned learning rates")
    assert tuned.head == ("method", "1e-6", "1e-5", "0.0001", "seeds each", "won", "note")
    assert tuned.rows == (
        ("grpo", "40.0 %", "50.0 %", "–", "2", "1e-5", "at the highest end of the grid, tested with 1e-6"),
        ("rloo", "–", "–", "30.0 %", "1", "0.0001", ""),
    )


def test_the_text_is_aligned_and_pipes_in_names_are_escaped():
    text = markdown(compare_methods(study(("grpo", [0.5, 0.6]), ("a|b", [0.5, 0.7])), "grpo"))
    lines = text.splitlines()
    assert lines[0] == "# Comparison with grpo"
    rows = [line for line in lines if line.startswith("|")]
    assert any(line.startswith(r"| a\|b ") for line in rows)
    blocks = text.split("\n\n")
    assert all(len({len(line) for line in block.splitlines()}) == 1 for block in blocks if block.startswith("|"))
    assert all(line in text for line in HOW_TO_READ)
    assert text.endswith("\n")


def test_one_sample_a_problem_has_no_table_of_diversity():
    results = [replace(result, points=points([0.1, 0.5], pass_at_k=None)) for result in study(("grpo", [0.5]))]
    assert "Diversity" not in [table.title for table in tables(only(results))]
    assert "Diversity" in [table.title for table in tables(only(study(("grpo", [0.5]))))]


def test_the_most_likely_response_has_a_table_where_it_was_measured():
    def measured(results: list[RunResult], greedy: list[float]) -> list[RunResult]:
        return [
            replace(
                result,
                points=tuple(replace(point, greedy=value) for point, value in zip(result.points, greedy, strict=True)),
            )
            for result in results
        ]

    results = study(("grpo", [0.5] * 6), ("lampo", [0.6] * 6))
    num_points = len(results[0].points)
    grpo, lampo = ([0.8] * (num_points - 1) + [end] for end in (0.4, 0.7))
    both = [
        *measured([result for result in results if result.method == "grpo"], grpo),
        *measured([result for result in results if result.method == "lampo"], lampo),
    ]
    comparison = only(both)
    ours = of(comparison, "lampo")
    assert (ours.greedy_start, ours.greedy and ours.greedy.value) == (pytest.approx(0.8), pytest.approx(0.7))
    assert ours.greedy_area is not None
    assert 0.7 < ours.greedy_area < 0.8
    pair = ours.greedy_difference
    assert pair is not None
    assert pair.verdict == "better"
    assert pair.difference.value == pytest.approx(0.3)
    title = "The most likely response"
    assert title in [table.title for table in tables(comparison)]
    assert title not in [table.title for table in tables(only(results))]
    partly = only([both[0], *results[1:]])  # the older runs of a study do not have it
    assert of(partly, "grpo").greedy is not None
    assert of(partly, "lampo").greedy_difference is None


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
