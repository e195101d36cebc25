from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import overview, pairs
from benchmarks.overview import RESULTS, ROWS, accuracies, compare_pairs, read
from lampo.compare.comparison import Comparison, compare_methods
from lampo.compare.measures import MEASURES
from lampo.compare.numbers import NONE, points
from lampo.compare.results import read_results
from lampo.types import LampoError


@pytest.fixture(scope="module")
def comparisons() -> list[Comparison]:
    return compare_pairs(read)


def test_a_row_is_lampo_beside_grpo(comparisons: list[Comparison]):
    assert [comparison.task for comparison in comparisons] == [row.label for row in ROWS]
    assert all([method.method for method in comparison.methods] == ["grpo", "lampo"] for comparison in comparisons)


def test_a_table_takes_the_place_of_the_one_with_its_header():
    text = "# Results\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n\nWhat it says.\n"
    assert overview.with_table(text, "| a | b |\n|---|---|\n| 5 | 6 |") == (
        "# Results\n\n| a | b |\n|---|---|\n| 5 | 6 |\n\nWhat it says.\n"
    )
    with pytest.raises(LampoError, match="no page has a table that begins with"):
        overview.with_table(text, "| c |")


def test_a_claim_has_the_same_p_in_every_table(comparisons: list[Comparison]):
    shown = accuracies(comparisons).splitlines()[2].split(" | ")
    text = (RESULTS / "addition" / "comparison.md").read_text(encoding="utf-8")
    final, area = (line.split(" | ") for line in text.splitlines() if line.startswith("| lampo ") and "better" in line)
    assert (shown[5], shown[7].removesuffix(" |")) == (final[-2].strip(), area[3].strip())
    (addition,) = compare_methods(read("addition"), "grpo")
    (row,) = (line.split(" | ") for line in pairs.differences(addition).splitlines() if "| lampo minus grpo " in line)
    assert (row[6], row[9]) == (shown[5], shown[7].removesuffix(" |"))
    assert row[12].endswith(" alone |")  # no table of the study compares pass@k


def test_any_two_methods_of_a_study_beside_each_other():
    results = read_results(RESULTS / "dropped_carries_add" / "results.parquet")
    (comparison,) = compare_methods(results, "grpo")
    rows = [line.split(" | ") for line in pairs.differences(comparison).splitlines()]
    (row,) = (row for row in rows if row[0] == "| lampo minus grpo")
    (lampo,) = (method for method in comparison.methods if method.method == "lampo")
    assert lampo.differences["samples"]
    pairs_of = [lampo.differences[measure] for measure in MEASURES]
    assert [row[at] for at in (1, 4, 7)] == [points(pair.difference) if pair else NONE for pair in pairs_of]
    assert row[5] == "8 of 10"
    assert len(rows) == 2 + 5 * 4 // 2
    gained = [line.split(" | ")[1:3] for line in pairs.gains(comparison).splitlines() if line.startswith("| lampo |")]
    assert gained == [["+63.1 [+61.0, +65.2]", "10 of 10"]]


def test_a_study_that_is_only_declared_is_left_out_until_its_results_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "RESULTS", tmp_path)
    for name, files in {"declared": ["study.yaml"], "lost": ["study.yaml", "README.md"], "suite": ["x"]}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
    assert overview.studies() == ["lost"]  # whose missing results are then told


def test_results_that_are_missing_empty_or_cut_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "RESULTS", tmp_path)
    (tmp_path / "small").mkdir()
    path = tmp_path / "small" / "results.parquet"
    with pytest.raises(LampoError, match="there is no such file"):
        read("small")
    path.touch()
    with pytest.raises(LampoError, match="file size is 0"):
        read("small")
    pq.write_table(pq.read_table(RESULTS / "addition" / "results.parquet").drop_columns(["accuracy", "seed"]), path)
    with pytest.raises(LampoError, match=r"it has no columns accuracy and seed\. Take it from git again"):
        read("small")
    pq.write_table(pa.table({}), path)
    with pytest.raises(LampoError, match="it has no columns"):
        read("small")
