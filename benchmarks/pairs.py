"""Any two methods of a study beside each other, where its own tables have only the baseline.

    python benchmarks/pairs.py docs/results/dropped_carries_mul

Prints the differences as Markdown: in points, paired by seed, with 95 % intervals as on the study's page, and p of the paired permutation
test. Where the study's own table makes the claim, p is the one that stands there. Where it does not, "alone" is said: p is of this pair,
not corrected.
Then what each method gained in pass@k.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path

from lampo.compare.comparison import Comparison, MethodSummary, compare_methods
from lampo.compare.measures import MEASURES, by_seed, value_of
from lampo.compare.numbers import NONE, p_value, points
from lampo.compare.results import RunResult, read_results
from lampo.compare.statistics import Measured, Paired, paired
from lampo.compare.study import load_study
from lampo.types import LampoError


def differences(comparison: Comparison) -> str:
    """The first method of a row minus the second."""
    columns = [*MEASURES.values(), "pass@k"]
    lines = [
        f"| {comparison.task} | " + " | ".join(f"{name} | ahead | p" for name in columns) + " |",
        "|---" * (1 + 3 * len(columns)) + "|",
    ]
    baseline, *others = comparison.methods
    for ours, theirs in combinations([*others, baseline], 2):
        pairs = [
            (theirs is baseline and ours.differences[measure])
            or _pair(ours, theirs, partial(value_of, measure=measure, budget=comparison.budget))
            for measure in MEASURES
        ]
        pairs.append(_pair(ours, theirs, lambda run: run.points[-1].pass_at_k))
        cells = [cell for pair in pairs for cell in _cells(pair)]
        lines.append(f"| {ours.method} minus {theirs.method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def gains(comparison: Comparison) -> str:
    """Pass@k after training minus before, each method for itself."""
    lines = ["| pass@k, after minus before | points | up | p |", "|---|---|---|---|"]
    for method in comparison.methods:
        after, before = (by_seed(method.runs, lambda run, at=at: run.points[at].pass_at_k) for at in (-1, 0))
        lines.append(f"| {method.method} | {' | '.join(_cells(paired(after, before)))} |")
    return "\n".join(lines)


def _pair(ours: MethodSummary, theirs: MethodSummary, value: Callable[[RunResult], Measured | None]) -> Paired | None:
    return paired(by_seed(ours.runs, value), by_seed(theirs.runs, value))


def _cells(pair: Paired | None) -> tuple[str, str, str]:
    if pair is None:
        return NONE, NONE, NONE
    ahead = sum(difference > 0 for difference in pair.differences)
    p = f"{p_value(pair.p_alone)} alone" if pair.p is None else p_value(pair.p)
    return points(pair.difference), f"{ahead} of {len(pair.seeds)}", p


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder with a results.parquet: docs/results/NAME or runs/NAME")
    folder = parser.parse_args().study
    try:
        results = read_results(folder / "results.parquet")
        comparisons = compare_methods(results, load_study(folder / "study.yaml").study.baseline)
    except LampoError as error:
        sys.exit(f"{error} Name a study's folder, such as docs/results/addition.")
    if not any(comparison.methods for comparison in comparisons):
        sys.exit(f"{folder} has no test runs.")
    for comparison in comparisons:
        print(differences(comparison), gains(comparison), sep="\n\n", end="\n\n")


if __name__ == "__main__":
    main()
