"""Does LamPO beat GRPO? The tables of docs/results, from the evaluations of all studies that asked.

    python benchmarks/overview.py             # from the results that are committed under docs/results
    python benchmarks/overview.py --anew      # run every study first, or go on with it: twelve hours on two CPU cores, and gsm8k and
                                              # word_arithmetic on a GPU

Writes comparison.md of every study, docs/results/overview/comparison.md with all pairs of LamPO and GRPO, and the two tables of these pairs
in docs/results/README.md. The page with their curves goes to runs/overview.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from rich.console import Console

from lampo.compare.command import compare
from lampo.compare.comparison import Comparison, compare_methods
from lampo.compare.comparison_page import write_comparison
from lampo.compare.measures import by_seed, largest_drop, rollouts_to
from lampo.compare.numbers import NONE, p_value, points, share
from lampo.compare.results import RunResult, read_results
from lampo.compare.statistics import SIGNIFICANT, Paired, corrected, paired
from lampo.compare.study import load_study
from lampo.compare.table import markdown
from lampo.store.files import write_file
from lampo.types import LampoError

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"


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
    Row("addition, dropped carries at the start", "dropped_carries_add"),
    Row("multiplication, dropped carries at the start", "dropped_carries_mul", task="forgotten-carries"),
    Row("words spelled backward", "reasoning_gym"),
    Row("the same at a third of the learning rate", "reasoning_gym", "lampo-third", "grpo-third"),
    Row("sums of complex numbers", "complex_arithmetic"),
    Row("one-step arithmetic, SmolLM2-135M", "smollm2"),
    Row("arithmetic in words, SmolLM2-135M", "word_arithmetic"),
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


def studies() -> list[str]:
    """The committed studies by name. One that is only declared, ahead of its results, has nothing to tell yet."""
    folders = [file.parent for file in sorted(RESULTS.glob("*/study.yaml"))]
    return [folder.name for folder in folders if any(file.name != "study.yaml" for file in folder.iterdir())]


def read(study: str) -> list[RunResult]:
    """The results of a study that are committed."""
    return read_results(RESULTS / study / "results.parquet")


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


def compare_pairs(results_of: Callable[[str], list[RunResult]]) -> list[Comparison]:
    """The rows as comparisons of two methods; where a study's own table makes a row's claim, with the p that stands there.

    The other rows are pairs that stand in no table of their study, and are tested alone.
    """
    of_study = cache(lambda study: compare_methods(results_of(study), baseline_of(study)))
    comparisons = []
    for row, comparison in zip(ROWS, compare_methods(pairs_of_methods(results_of), "grpo"), strict=True):
        if row.grpo == baseline_of(row.study):
            (told,) = (one for one in of_study(row.study) if row.task in (None, one.task))
            (claimed,) = (method for method in told.methods if method.method == row.lampo)
            grpo, lampo = comparison.methods
            lampo = replace(lampo, differences=claimed.differences)
            comparison = replace(comparison, methods=(grpo, lampo))
        comparisons.append(comparison)
    return comparisons


@cache
def baseline_of(study: str) -> str:
    return load_study(RESULTS / study / "study.yaml").study.baseline


def accuracies(comparisons: Sequence[Comparison], root: str = "..") -> str:
    """LamPO minus GRPO in accuracy, as a Markdown table; `root` leads to the folders of the studies."""
    lines = [
        "| study | seeds | GRPO ends at | LamPO minus GRPO, at the end | ahead in | p | on average over training | p |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, comparison in zip(ROWS, comparisons, strict=True):
        grpo, lampo = comparison.methods
        final, area = lampo.differences["samples"], lampo.differences["over_training"]
        assert final
        cells = (
            f"[{row.label}]({root}/{row.study}/README.md)",
            f"{len(final.seeds)}",
            share(grpo.final.value),
            *(_difference(final), f"{sum(difference > 0 for difference in final.differences)}", p_value(final.p)),
            *(_difference(area), p_value(area and area.p)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def speed_and_steadiness(comparisons: Sequence[Comparison]) -> str:
    """LamPO minus GRPO in other measures of a run, as a Markdown table; no study's own table makes these claims."""

    def pairs(measure: Callable[[RunResult, Comparison], float | None]) -> list[Paired | None]:
        found = []
        for comparison in comparisons:
            grpo, lampo = (
                by_seed(method.runs, lambda run, comparison=comparison: measure(run, comparison))
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
        cells = [part for pair in differences for part in (_difference(pair), p_value(pair and pair.p))]
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
    """In points (hundredths), bold where p is small."""
    if pair is None:
        return NONE
    text = points(pair.difference)
    return f"**{text}**" if pair.p is not None and pair.p < SIGNIFICANT else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anew", action="store_true", help="run all studies, or go on with them, in runs/")
    anew = parser.parse_args().anew
    try:
        write(make if anew else read)
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command goes on.")
    except (LampoError, OSError) as error:
        sys.exit(str(error))


def write(results_of: Callable[[str], list[RunResult]]) -> None:
    """Write the tables of every study and of all together, and the page of all together."""
    results_of = cache(results_of)
    for path, text in tables(results_of).items():
        write_file(path, text.encode())
    print(overview(compare_pairs(results_of)), f"page: {write_page(results_of)}", sep="\n")


def tables(results_of: Callable[[str], list[RunResult]]) -> dict[Path, str]:
    """comparison.md of every study and of all together, and docs/results/README.md with the tables of all together."""
    texts = {}
    for study in studies():
        declared = load_study(RESULTS / study / "study.yaml").study
        text = markdown(compare_methods(results_of(study), declared.baseline, declared.primary))
        texts[RESULTS / study / "comparison.md"] = text
    comparisons = compare_pairs(results_of)
    texts[RESULTS / "overview" / "comparison.md"] = overview(comparisons)
    summary = (RESULTS / "README.md").read_text(encoding="utf-8")
    for table in (accuracies(comparisons, "."), speed_and_steadiness(comparisons)):
        summary = with_table(summary, table)
    return texts | {RESULTS / "README.md": summary}


def with_table(text: str, table: str) -> str:
    """The text with this table in the place of the one with the same header."""
    header = table.splitlines()[0]
    before, found, after = text.partition(header)
    if not found:
        raise LampoError(f"no page has a table that begins with {header}")
    return before + table + "".join(after.partition("\n\n")[1:])


def write_page(results_of: Callable[[str], list[RunResult]]) -> Path:
    """The page of all pairs, in runs/overview, and where it is."""
    folder = ROOT / "runs" / "overview"
    folder.mkdir(parents=True, exist_ok=True)
    return write_comparison(
        folder,
        compare_pairs(results_of),
        pairs_of_methods(results_of),
        baseline="grpo",
        command="python benchmarks/overview.py",
        versions={"results": "docs/results/*/results.parquet"},
        study="\n".join(f"{row.label}: {row.lampo} and {row.grpo} of docs/results/{row.study}" for row in ROWS),
    )


def overview(comparisons: Sequence[Comparison]) -> str:
    """docs/results/overview/comparison.md."""
    return "\n\n".join(
        (
            "# LamPO minus GRPO in all studies",
            "Each row is two methods that differ in the advantage alone. Differences are in points, paired by seed, with 95 % intervals "
            "over seeds. Bold: p below 0.05.",
            "## Accuracy",
            "A row repeats the claim of its study's own table, with the p that stands there: corrected for the methods of that table "
            "(Benjamini and Hochberg). " + _tested_alone(),
            accuracies(comparisons),
            "## Speed, steadiness, diversity",
            "No study's own table makes these claims. p is corrected for the rows of this table.",
            speed_and_steadiness(comparisons) + "\n",
        )
    )


def _tested_alone() -> str:
    alone = [f"“{row.label}”" for row in ROWS if row.grpo != baseline_of(row.study)]
    return f"No study's table makes the claims of {', '.join(alone)}: these pairs are tested alone."


if __name__ == "__main__":
    main()
