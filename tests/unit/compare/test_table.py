"""A comparison as words and tables."""

from dataclasses import replace

import pytest

from lampo.compare.comparison import (
    Comparison,
    compare_methods,
)
from lampo.compare.results import RunResult
from lampo.compare.statistics import (
    smallest_shown,
)
from lampo.compare.table import HOW_TO_READ, Table, in_words, markdown, tables

from ...helpers.study_results import of, only, points, run, study, tuning


def test_power_is_told_for_each_number_of_seeds():
    spread = [0.5, 0.6] * 5
    comparison = only(study(("grpo", [0.5] * 10), ("a", spread), ("b", [0.6] * 10), ("c", spread[:5])))
    size = smallest_shown([0.0, 0.1] * 5, 3)
    assert size
    assert table(comparison, "Final accuracy").note.endswith(
        f"Power: 10 seeds show a difference of 0.0 to {100 * size:.1f} points in 80 % of cases, 5 seeds can show no difference."
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


def test_a_method_that_crashed_before_an_evaluation_of_its_steps_is_not_said_to_have_made_none():
    results = study(("grpo", [0.5] * 7), ("lampo", [0.6] * 7))
    crashed = [replace(untrained(result), status="crashed") for result in study(("own", [0.5] * 7))]
    partly = only([*results, *crashed])
    assert [row[-1] for row in table(partly, "Final accuracy").rows] == ["baseline", "better", "crashed"]
    assert in_words(partly)[1:] == ["own: 7 of 7 crashed."]
    none = only([*map(untrained, results), *crashed])
    assert in_words(none) == [
        "No run that learned was evaluated, so there is nothing to compare.",
        "own: 7 of 7 crashed.",
    ]


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
    pair = ours.differences["most_likely_response"]
    assert pair is not None
    assert pair.verdict == "better"
    assert pair.difference.value == pytest.approx(0.3)
    title = "The most likely response"
    assert title in [table.title for table in tables(comparison)]
    assert title not in [table.title for table in tables(only(results))]
    partly = only([both[0], *results[1:]])  # the older runs of a study do not have it
    assert of(partly, "grpo").greedy is not None
    assert of(partly, "lampo").differences["most_likely_response"] is None


def test_the_last_words_of_a_run_that_crashed_steer_no_terminal() -> None:
    crashed = run("lampo", 1, [], status="crashed", error="at token \x1b[2J")
    (line,) = [line for line in in_words(only([*study(("grpo", [0.4])), crashed])) if "crashed" in line]
    assert line == r"lampo: 1 of 1 crashed before the first evaluation: at token \x1b[2J."
