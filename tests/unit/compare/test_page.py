import json
import re
from dataclasses import replace
from pathlib import Path

import plotly.graph_objects as go
import pytest

from lampo.compare.comparison import compare_methods
from lampo.compare.comparison_page import _looks, write_comparison
from lampo.compare.results import Point, RunResult

from ...helpers.parsed_page import Page

HOSTILE = "</script><b>x & y"
STUDY = "methods: {grpo: <default>}\n"
FINALS = {"grpo": 0.5, "lampo": 0.6, HOSTILE: 0.5}
AXES = ["rollouts", "tokens", "updates", "seconds"]


def run(method: str, seed: int, task: str, **changes) -> RunResult:
    finals = (0.1, 0.3, FINALS[method] + seed / 1000)
    points = tuple(
        Point(step, step * 100, step * 1000, step * 4, step * 2.0, accuracy, None, 9.0, 0.0, 100, 1)
        for step, accuracy in enumerate(finals)
    )
    result = RunResult(task, method, seed, 1e-6, "test", "finished", "", 0.5, 0.0, points)
    return replace(result, **changes)


@pytest.fixture
def results() -> list[RunResult]:
    tested = [run(method, seed, task) for task in ("sums", "products") for method in FINALS for seed in range(7)]
    tuned = [run("lampo", 0, "sums", phase="tuning", learning_rate=rate) for rate in (1e-6, 1e-5)]
    lost = replace(tested[8], status="crashed", error="no memory", points=tested[8].points[:2])
    return [*tested[:8], lost, *tested[9:], *tuned]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "a & b"
    folder.mkdir()
    return folder


def write(folder: Path, results: list[RunResult]) -> Path:
    return write_comparison(
        folder,
        compare_methods(results, "grpo"),
        results,
        baseline="grpo",
        command="lampo compare 'a b.yaml'",
        versions={"torch": "2.13.0"},
        study=STUDY,
    )


def figures(page: Page) -> list[dict]:
    """The charts of a page, each of which plotly knows every property of."""
    found = [json.loads(script) for script in page.of("script") if script.startswith("{")]
    for figure in found:
        for one in [figure] if "data" in figure else figure.values():
            go.Figure(one)
    return found


def test_both_files_are_whole_and_load_nothing(folder: Path, results: list[RunResult]):
    path = write(folder, results)
    assert sorted(file.name for file in folder.iterdir()) == ["comparison.html", "comparison.md"]
    assert path == folder / "comparison.html"
    page = Page(path)
    assert [entry for entry in page.attributes if entry[1] in ("src", "href", "srcset", "data")] == []
    (policy,) = [value for _, key, value in page.attributes if key == "content" and "default-src" in value]
    assert "default-src 'none'" in policy
    assert "url(" not in "".join(page.of("style"))
    assert (folder / "comparison.md").read_text().startswith("# Comparison with grpo\n")


def test_names_command_and_study_are_shown_as_text(folder: Path, results: list[RunResult]):
    path = write(folder, results)
    page = Page(path)
    assert page.of("h1") == ["a & b"]
    assert page.of("pre") == ["lampo compare 'a b.yaml'", STUDY.strip()]
    assert page.of("dt")[-1] == "torch"
    assert HOSTILE not in path.read_text(encoding="utf-8")
    assert HOSTILE in page.of("button")
    assert ("button", "data-method", HOSTILE) in page.attributes


def test_the_tables_are_those_of_the_text(folder: Path, results: list[RunResult]):
    page = Page(write(folder, results))
    text = (folder / "comparison.md").read_text()
    titles = ["Final accuracy", "Sample efficiency", "Stability", "Cost"]
    shown = [heading for heading in page.of("h3") if heading in (*titles, "Tuned learning rates")]
    assert shown == [*titles, "Tuned learning rates", *titles]
    in_text = [cell.strip() for line in text.splitlines() if line.startswith("|") for cell in line[1:-1].split(" | ")]
    cells = [cell for cell in page.of("td") if cell]
    assert len(cells) > 50
    assert set(cells) <= set(in_text)
    assert page.of("td").count("better") == 2  # lampo on products, finally and over training; on sums it crashed


def test_the_curves_can_be_drawn_over_every_cost(folder: Path, results: list[RunResult]):
    page = Page(write(folder, results))
    _, curves, *_ = figures(page)
    assert sorted(curves) == sorted(AXES)
    radios = [value for tag, key, value in page.attributes if tag == "input" and key == "value"]
    assert radios == AXES
    for axis, last in zip(AXES, (200, 2000, 8, 4), strict=True):
        lines = {trace["name"]: trace for trace in curves[axis]["data"] if trace["meta"]["part"] == "line"}
        assert list(lines) == list(FINALS)
        assert lines["grpo"]["x"] == [0, last / 2, last]
        assert lines["grpo"]["y"] == pytest.approx([0.1, 0.3, 0.503])  # the mean over seeds 0 to 6 of 0.5 + seed / 1000
    parts = {trace["meta"]["part"] for trace in curves["rollouts"]["data"]}
    assert parts == {"line", "interval", "label"}


def test_the_forest_has_a_row_a_method_and_task_filled_where_the_verdict_is_clear(folder, results):
    forest, *_ = figures(Page(write(folder, results)))
    symbols = {(trace["y"][0], trace["meta"]["method"]): trace["marker"]["symbol"] for trace in forest["data"]}
    assert symbols == {
        (1, "lampo"): "circle-open",  # of its seeds one crashed
        (2, HOSTILE): "circle-open",
        (4, "lampo"): "circle",
        (5, HOSTILE): "circle-open",
    }
    labels = forest["layout"]["yaxis"]["ticktext"]
    assert labels[:2] == ["<b>sums</b>", "lampo"]
    assert "</script>" not in "".join(labels)  # plotly's own small HTML
    products = forest["data"][2]
    assert products["x"] == pytest.approx([10.0])  # 60 % minus 50 %, in points


def test_the_forest_has_one_row_a_task_where_there_is_one_method_to_compare(folder, results):
    two = [run for run in results if run.method != HOSTILE]
    forest, *_ = figures(Page(write(folder, two)))
    assert forest["layout"]["yaxis"]["ticktext"] == ["<b>sums</b>", "<b>products</b>"]
    assert [trace["y"] for trace in forest["data"]] == [[0], [1]]
    alone = [run for run in two if run.task == "sums"]
    forest, *_ = figures(Page(write(folder, alone)))
    assert forest["layout"]["yaxis"]["ticktext"] == ["lampo"]


def test_the_untrained_are_in_the_tables_and_not_in_the_charts_of_differences(folder: Path, results: list[RunResult]):
    untrained = [
        replace(result, method="cot", points=tuple(replace(result.points[0], updates=0) for _ in range(1)))
        for result in results
        if result.method == "lampo" and result.phase == "test"
    ]
    page = Page(write(folder, [*results, *untrained]))
    forest, _, seeds, *_ = figures(page)
    assert {trace["meta"]["method"] for figure in (forest, seeds) for trace in figure["data"]} == {"lampo", HOSTILE}
    assert "cot" in page.of("td") + page.of("th")


def test_every_seed_is_a_dot_and_a_crashed_one_a_cross(folder: Path, results: list[RunResult]):
    _, _, seeds, tuning, *_ = figures(Page(write(folder, results)))
    dots = {trace["name"]: trace for trace in seeds["data"] if "name" in trace}
    assert dots["lampo"]["x"] == pytest.approx([10.0, 30.0 - 50.1, *[10.0] * 5])
    assert dots["lampo"]["marker"]["symbol"] == ["circle", "x", *["circle"] * 5]
    assert dots["lampo"]["customdata"][1] == "seed 1: 30.0% against 50.1%<br>crashed: lampo"
    assert tuning["layout"]["xaxis"]["ticktext"] == ["1e-6", "1e-5"]


def test_the_page_starts_with_the_chart(folder: Path, results: list[RunResult]):
    page = Page(write(folder, results))
    assert page.of("h2")[:2] == ["Minus grpo: samples, after training", "In short"]


def test_a_chart_of_methods_with_different_seeds_says_so_itself(folder: Path, results: list[RunResult]):
    equal = Page(write(folder, results)).of("figcaption")
    assert not any("seeds, 0 to" in caption or "both methods have" in caption for caption in equal)
    fewer = [run for run in results if run.phase == "test" and (run.method != "lampo" or run.seed < 3)]
    forest, curves, seeds, *_ = Page(write(folder, fewer)).of("figcaption")
    assert forest.endswith("A row is over the seeds that both methods have, 3 to 7.")
    assert seeds.endswith("A row is over the seeds that both methods have, 3 to 7.")
    assert curves.endswith(f"(grpo, {HOSTILE}: 7 seeds, 0 to 6; lampo: 3 seeds, 0 to 2).")


def test_where_nothing_was_trained_the_page_says_so_and_draws_nothing(folder: Path, results: list[RunResult]):
    tested = [result for result in results if result.phase == "test"]
    still = [replace(result, points=tuple(replace(point, updates=0) for point in result.points)) for result in tested]
    page = Page(write(folder, still))
    assert figures(page) == []
    assert page.of("button") == []
    assert sum(line.startswith("Nothing was trained: ") for line in page.of("li")) == 2


def test_a_claim_has_one_p(folder: Path, results: list[RunResult]):
    forest, *_ = figures(Page(write(folder, results)))
    shown = [trace["hovertemplate"] for trace in forest["data"] if trace["meta"]["method"] == "lampo"][-1]
    text = (folder / "comparison.md").read_text()
    *_, p, _ = next(line for line in text.split("## products")[1].splitlines() if line.startswith("| lampo")).split(
        " | "
    )
    assert p.strip() == "0.031"  # 2 / 2^7, for two methods
    assert "p 0.031: better" in shown
    assert "lampo is better than grpo: +10.0 [+10.0, +10.0] points over 7 seeds, p 0.031." in text


def test_up_to_sixteen_methods_look_different_and_the_baseline_stands_apart():
    looks = _looks([f"method {number}" for number in range(16)] + ["grpo"], "grpo")
    assert len({(look.colour, look.dash) for look in looks.values()}) == 17
    assert next(iter(looks)) == "grpo"
    assert [look.colour for look in looks.values()].count(looks["grpo"].colour) == 1


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_study_that_has_only_begun_has_a_page(folder: Path, results: list[RunResult], number: int):
    begun = [[], results[-2:], [replace(results[0], points=(), status="crashed"), results[7]]][number]
    page = Page(write(folder, begun))
    assert page.of("h1") == ["a & b"]
    assert figures(page) == [] or number != 0


def test_all_ways_through_the_template_leave_no_undefined_numbers(folder: Path, results: list[RunResult]):
    text = write(folder, results).read_text(encoding="utf-8")
    body = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"\bnan\b", body, flags=re.IGNORECASE)
    assert "None" not in re.sub(r"<[^>]*>", "", body)
