"""Does LamPO beat GRPO? The tables of README.md and docs/results/README.md, and a page, from the evaluations of all studies that asked.

    python benchmarks/overview.py             # from the results that are committed under docs/results
    python benchmarks/overview.py --anew      # run every study first, or go on with it: twelve hours on two CPU cores, and gsm8k on a GPU

Prints the tables, and writes docs/results/overview: each of their rows as one task of a comparison.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from lampo.compare.command import compare
from lampo.compare.comparison import Comparison, compare_methods, largest_drop, rollouts_to
from lampo.compare.page import write_comparison
from lampo.compare.results import RunResult, read_results
from lampo.compare.statistics import SIGNIFICANT, Paired, corrected, paired
from lampo.compare.study import load_study
from lampo.compare.table import NONE, p_value, points
from lampo.types import LampoError

RESULTS = Path(__file__).parents[1] / "docs" / "results"


@dataclass(frozen=True, slots=True)
class Row:
    """Two methods of one study that differ in the advantage alone, LamPO's and GRPO's."""

    label: str
    study: str
    lampo: str = "lampo"
    grpo: str = "grpo"
    task: str | None = None


ROWS = (
    Row("addition", "addition"),
    Row("multiplication", "multiplication"),
    Row("addition, sparse start", "sparse"),
    Row("addition, sure of a mistake at the start", "misconception"),
    Row("multiplication, sure of a mistake at the start", "against_wrong", task="forgotten-carries"),
    Row("words spelled backward", "reasoning_gym"),
    Row("the same at a third of the learning rate", "reasoning_gym", "lampo-third", "grpo-third"),
    Row("sums of complex numbers", "complex_arithmetic"),
    Row("one-step arithmetic, SmolLM2-135M", "smollm2"),
    Row("two-term sums and differences, SmolLM2-135M", "chain_sum"),
    Row("GSM8K, SmolLM2-135M", "gsm8k"),
    Row("addition, groups of 4", "groups", task="groups-of-4"),
    Row("addition, groups of 16", "groups", task="groups-of-16"),
    Row("addition, one update a batch", "groups", task="one-update"),
    Row("addition, four updates a batch", "groups", task="four-updates"),
    Row("the same, the learning rate tuned for it", "four_updates"),
    Row("addition, both with ROUGE-L", "rouge_l"),
    Row("addition, sparse start, both with ROUGE-L", "sparse", "lampo-rouge", "grpo-rouge"),
    Row("multiplication, both inside DAPO", "multiplication", "lampo-dapo", "dapo"),
    Row("addition, sparse start, both inside DAPO", "sparse", "lampo-dapo", "dapo"),
)


def read(study: str) -> list[RunResult]:
    """The results of a study that are committed."""
    path = RESULTS / study / "results.parquet"
    try:
        return read_results(path)
    except (OSError, ValueError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error
        raise LampoError(
            f"Cannot read {path}: {reason}. Take it from git again, or run the studies with --anew."
        ) from None


def make(study: str) -> list[RunResult]:
    """Those of running it, or of going on with it, in runs/."""
    return compare(load_study(RESULTS / study / "study.yaml"), Console())


def pairs_of_methods(results_of: Callable[[str], list[RunResult]]) -> list[RunResult]:
    """The test runs of all rows, each row's as those of lampo and grpo on a task with its label."""
    results = {study: results_of(study) for study in dict.fromkeys(row.study for row in ROWS)}
    return [
        replace(run, task=row.label, method=name)
        for row in ROWS
        for method, name in ((row.lampo, "lampo"), (row.grpo, "grpo"))
        for run in results[row.study]
        if run.method == method and run.phase == "test" and row.task in (None, run.task)
    ]


def accuracies(comparisons: tuple[Comparison, ...]) -> str:
    """The table of README.md, as Markdown."""
    lampos = [comparison.methods[1] for comparison in comparisons]
    finals = corrected([method.final_difference for method in lampos])
    areas = corrected([method.area_difference for method in lampos])
    lines = [
        "| study | seeds | GRPO ends at | LamPO minus GRPO, at the end | ahead in | p | on average over training | p |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, comparison, final, area in zip(ROWS, comparisons, finals, areas, strict=True):
        assert final
        cells = (
            f"[{row.label}](docs/results/{row.study}/README.md)",
            f"{len(final.seeds)}",
            f"{comparison.methods[0].final.value * 100:.1f} %",
            *(
                _difference(final),
                f"{sum(difference > 0 for difference in final.differences)}",
                p_value(final.p_corrected),
            ),
            *(_difference(area), p_value(area and area.p_corrected)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def speed_and_steadiness(comparisons: tuple[Comparison, ...]) -> str:
    """The table of docs/results/README.md, as Markdown: LamPO minus GRPO in other measures of a run."""

    def pairs(measure: Callable[[RunResult, Comparison], float | None]) -> list[Paired | None]:
        found = []
        for comparison in comparisons:
            grpo, lampo = (
                {run.seed: value for run in method.runs if (value := measure(run, comparison)) is not None}
                for method in comparison.methods
            )
            found.append(paired(lampo, grpo))
        return corrected(found)

    columns = (pairs(_share_to_target), pairs(lambda run, _: largest_drop(run.points)), pairs(_pass_at_k))
    lines = [
        "| study | rollouts to the target, in % of all | p | largest drop | p | pass@k at the end | p |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, *differences in zip(ROWS, *columns, strict=True):
        cells = [part for pair in differences for part in (_difference(pair), p_value(pair and pair.p_corrected))]
        lines.append(f"| {' | '.join([row.label, *cells])} |")
    return "\n".join(lines)


def _share_to_target(run: RunResult, comparison: Comparison) -> float | None:
    """Of a run's rollouts, those until it reached 90 % of GRPO's mean gain; all of them if it never did."""
    total = run.points[-1].rollouts
    reached = None if comparison.target is None else rollouts_to(run.points, comparison.target)
    return 1.0 if reached is None else reached / total


def _pass_at_k(run: RunResult, _: Comparison) -> float | None:
    return run.points[-1].pass_at_k


def _difference(pair: Paired | None) -> str:
    """In points (hundredths), bold where p is small; it is corrected for the rows of the table (Benjamini and Hochberg)."""
    if pair is None:
        return NONE
    text = points(pair.difference)
    return f"**{text}**" if pair.p_corrected is not None and pair.p_corrected < SIGNIFICANT else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anew", action="store_true", help="run all studies, or go on with them, in runs/")
    anew = parser.parse_args().anew
    try:
        write(pairs_of_methods(make if anew else read))
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command goes on.")
    except (LampoError, OSError) as error:
        sys.exit(str(error))


def write(results: list[RunResult]) -> None:
    """Write the page and print the tables."""
    (RESULTS / "overview").mkdir(exist_ok=True)
    page = write_comparison(
        RESULTS / "overview",
        results,
        baseline="grpo",
        command="python benchmarks/overview.py",
        versions={"versions": "on the page of each study"},
        study="\n".join(f"{row.label}: {row.lampo} and {row.grpo} of docs/results/{row.study}" for row in ROWS),
    )
    comparisons = compare_methods(results, "grpo")
    print(accuracies(comparisons), speed_and_steadiness(comparisons), f"page: {page}", sep="\n\n")


if __name__ == "__main__":
    main()
