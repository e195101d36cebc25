from benchmarks.overview import RESULTS, ROWS, accuracies, pairs_of_methods, read, speed_and_steadiness
from lampo.compare.comparison import compare_methods

README = RESULTS.parents[1] / "README.md"


def test_the_tables_in_the_text_are_what_the_committed_results_give():
    comparisons = compare_methods(pairs_of_methods(read), "grpo")
    assert [comparison.task for comparison in comparisons] == [row.label for row in ROWS]
    assert all([method.method for method in comparison.methods] == ["grpo", "lampo"] for comparison in comparisons)
    assert accuracies(comparisons) in README.read_text(encoding="utf-8")
    assert speed_and_steadiness(comparisons) in (RESULTS / "README.md").read_text(encoding="utf-8")
