"""Any two methods of a study beside each other, where its own tables have only the baseline.

    python benchmarks/pairs.py docs/results/against_wrong

Prints the differences as Markdown: in points, paired by seed, with 95 % intervals over seeds and p of the paired permutation test, which is
not corrected for the number of comparisons. Then what each method gained in pass@k.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

from lampo.compare.comparison import Comparison, MethodSummary, area_under_curve, compare_methods
from lampo.compare.results import RunResult, read_results
from lampo.compare.statistics import paired
from lampo.compare.table import NONE, p_value, points

Measure = Callable[[RunResult], float | None]


def differences(comparison: Comparison) -> str:
    """The first method of a row minus the second."""
    measures: dict[str, Measure] = {
        "at the end": lambda run: run.points[-1].accuracy,
        "over training": lambda run: area_under_curve(run.points, comparison.budget),
        "most likely response": lambda run: run.points[-1].greedy,
        "pass@k": lambda run: run.points[-1].pass_at_k,
    }
    lines = [
        f"| {comparison.task} | " + " | ".join(f"{name} | ahead | p" for name in measures) + " |",
        "|---" * (1 + 3 * len(measures)) + "|",
    ]
    for ours, theirs in combinations(comparison.methods, 2):
        cells = [cell for measure in measures.values() for cell in _difference(ours, theirs, measure)]
        lines.append(f"| {ours.method} minus {theirs.method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def gains(comparison: Comparison) -> str:
    """Pass@k after training minus before, each method for itself."""
    lines = ["| pass@k, after minus before | points | up | p |", "|---|---|---|---|"]
    for method in comparison.methods:
        cells = _difference(method, method, lambda run: run.points[-1].pass_at_k, lambda run: run.points[0].pass_at_k)
        lines.append(f"| {method.method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference(
    ours: MethodSummary, theirs: MethodSummary, measure: Measure, their_measure: Measure | None = None
) -> tuple[str, str, str]:
    left, right = (
        {run.seed: value for run in method.runs if (value := of(run)) is not None}
        for method, of in ((ours, measure), (theirs, their_measure or measure))
    )
    pair = paired(left, right)
    if pair is None:
        return NONE, NONE, NONE
    ahead = sum(difference > 0 for difference in pair.differences)
    return points(pair.difference), f"{ahead} of {len(pair.seeds)}", p_value(pair.p)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder with a results.parquet: docs/results/NAME or runs/NAME")
    path = parser.parse_args().study / "results.parquet"
    if not path.is_file():
        sys.exit(f"There is no {path}. Name a study's folder, such as docs/results/addition.")
    try:
        results = [result for result in read_results(path) if result.phase == "test"]
    except (OSError, ValueError) as error:
        sys.exit(f"Cannot read {path}: {error}")
    if not results:
        sys.exit(f"{path} has no test runs.")
    for comparison in compare_methods(results, results[0].method):
        print(differences(comparison), gains(comparison), sep="\n\n", end="\n\n")


if __name__ == "__main__":
    main()
