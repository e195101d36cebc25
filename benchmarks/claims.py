"""Every table of the documentation from the committed results, and every interval of its prose beside them.

    python -m benchmarks.claims             # writes the tables that differ, and names them
    python -m benchmarks.claims --check     # writes nothing, and fails where something differs

The tables are comparison.md of every study, those of docs/results/README.md and of docs/suite.md, and what docs/results/signal counts.
An interval that people wrote, in the README of a study or on another page, must be one that the committed results give: of a method,
between two methods of one study, or a pooled one. A line that links to the log is the log's, and is left alone. So are accuracies
outside of the studies: they are of single runs.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import cache
from itertools import permutations
from pathlib import Path

from benchmarks import overview, pooled, signal_predicts
from benchmarks.overview import RESULTS, ROOT, baseline_of, read, with_table
from lampo.compare.comparison import Comparison, MethodSummary, compare_methods
from lampo.compare.measures import MEASURES, accuracy_at, by_seed, greedy_area, value_of
from lampo.compare.numbers import percent, points
from lampo.compare.results import RunResult
from lampo.compare.statistics import Measured, mean_difference
from lampo.compare.suite import PACKAGED, OpenSuite, find_suite, open_suite
from lampo.compare.suite_table import HOW_TO_READ, suite_text
from lampo.store.files import write_file
from lampo.types import LampoError

SUMMARY, SUITE, FRONT = RESULTS / "README.md", ROOT / "docs" / "suite.md", ROOT / "README.md"
SIGNAL = RESULTS / "signal" / "README.md"
END = r"[+-]?\d+\.\d"
INTERVAL = re.compile(rf"(?:(\d+\.\d)(?: %| points)? )?(\[{END}, {END}\])")

BESIDE = {"rouge_l": "groups"}
"""Studies whose README compares them with another one, of the same starts and problems."""

Measure = Callable[[RunResult], Measured | None]


def tables() -> dict[Path, str]:
    """The text of every page with tables, as the committed results make it."""
    texts = overview.tables(read)
    texts[SUMMARY] = with_table(texts[SUMMARY], pooled.table())
    for family in signal_predicts.measured_families():
        texts[SIGNAL] = with_table(
            texts.get(SIGNAL) or SIGNAL.read_text(encoding="utf-8"), signal_predicts.table(family)
        )
    texts[SUITE] = with_parts(SUITE.read_text(encoding="utf-8"), suite_tables())
    return texts


def suite_tables(entered: str | None = None) -> str:
    """What `lampo compare suite` prints, with a method beside each if one is named."""
    suite = the_suite()
    return suite_text(suite.suite, suite.rows, suite.studies, entered)


@cache
def the_suite() -> OpenSuite:
    file = find_suite(Path(PACKAGED))
    assert file
    return open_suite(file)


def with_parts(text: str, made: str) -> str:
    """The page of the suite with the tables that `lampo compare suite` prints, each under its heading, and how to read them."""
    notes = "\n".join(f"- {line}" for line in HOW_TO_READ)
    *parts, last = made.split("### ")[1:]
    for part in (*parts, last.replace(notes, "")):
        heading, _, table = part.partition("\n\n")
        before, found, after = text.partition(f"### {heading}\n\n")
        if not found:
            raise LampoError(f"docs/suite.md has no heading: ### {heading}")
        text = before + found + table.strip() + "\n\n" + after.partition("\n\n")[2]
    before, found, after = text.partition(f"- {HOW_TO_READ[0].split('. ')[0]}.")
    if not found:
        raise LampoError(f"docs/suite.md has no line that begins with: - {HOW_TO_READ[0]}")
    return before + notes + "\n\n" + after.partition("\n\n")[2]


def prose() -> Iterator[str]:
    """Where an interval stands that nothing gives, and what stands there."""
    of_pairs = set(found_in((RESULTS / "overview" / "comparison.md").read_text(encoding="utf-8")))
    given = {RESULTS / study / "README.md": intervals_of(study) for study in overview.studies()}
    pooled_ones = [pooled.table(), *(suite_tables(row.name) for row in the_suite().rows)]
    everywhere = of_pairs.union(*given.values(), *map(found_in, pooled_ones))
    others = {FRONT, *ROOT.glob("docs/*.md"), *RESULTS.glob("**/README.md")} - {ROOT / "docs" / "log.md"}
    for page in [*given, *sorted(others - given.keys())]:
        known = given[page] | of_pairs if page in given else everywhere
        for line, told, ends in unfounded(page, known, accuracies=page in given):
            hint = f"; with this number there are {', '.join(ends)}" if ends and page in given else ""
            yield f"{page.relative_to(ROOT)}, line {line}: no committed result gives {told}{hint}"


def unfounded(
    page: Path, known: Collection[tuple[str, str]], *, accuracies: bool = True
) -> Iterator[tuple[int, str, list[str]]]:
    """Intervals of a page that are not known: the line, what it says, and the known ends for that number.

    Of an interval without a number before it the ends must be known. Without `accuracies` only those with a sign are looked at, which are
    differences.
    """
    ends = {end for _, end in known}
    for line, text in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        for number, end in found_in(text) if "log.md)" not in text else ():
            looked_at = accuracies or "+" in end or "-" in end
            if looked_at and (number, end) not in known and (number or end not in ends):
                yield line, f"{number} {end}".strip(), sorted(other for each, other in known if each == number)


def found_in(text: str) -> list[tuple[str, str]]:
    """The intervals of a text, each as the number before it, without a sign, and its ends."""
    return [(number, ends) for number, ends in INTERVAL.findall(text)]


def intervals_of(study: str) -> set[tuple[str, str]]:
    """All that a study gives: of each method, and of each method minus another one, in every measure."""
    comparisons = [*compare_methods(read(study), baseline_of(study)), *compare_methods(beside_each_other(study), "")]
    return set(found_in("; ".join(text for comparison in comparisons for text in told(comparison))))


def beside_each_other(study: str) -> list[RunResult]:
    """The test runs of a study and of the one that its README sets it beside, as methods of one task."""
    if study not in BESIDE:
        return []
    studies = (study, BESIDE[study])
    runs = [(name, run) for name in studies for run in read(name) if run.phase == "test"]
    return [replace(run, task="all", method=f"{name} {run.task} {run.method}") for name, run in runs]


def told(comparison: Comparison) -> Iterator[str]:
    """Of each method, after minus before too, and of each method minus another one."""
    at: list[tuple[Measure, Measure]] = [
        (lambda run, name=name: getattr(run.points[-1], name), lambda run, name=name: getattr(run.points[0], name))
        for name in ("accuracy", "pass_at_k", "greedy")
    ]
    for method in comparison.methods:
        means = (method.start, method.final, method.area, method.at_budget, method.pass_at_k, method.greedy)
        yield from (percent(mean) for mean in means if mean)
        yield from (difference(method, after, method, before) for after, before in at)
    measures: list[Measure] = [
        *(lambda run, name=name: value_of(run, name, comparison.budget) for name in MEASURES),
        lambda run: run.points[-1].pass_at_k,
        lambda run: greedy_area(run, comparison.budget),
        lambda run: accuracy_at(run, comparison.budget),
    ]
    for ours, theirs in permutations(comparison.methods, 2):
        yield from (difference(ours, measure, theirs, measure) for measure in measures)


def difference(ours: MethodSummary, measure: Measure, theirs: MethodSummary, beside: Measure) -> str:
    """Of two measures, or of two methods, over the seeds that have both. Empty where there are none."""
    a, b = by_seed(ours.runs, measure), by_seed(theirs.runs, beside)
    return points(mean_difference(a, b)) if a.keys() & b.keys() else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail where something differs")
    check = parser.parse_args().check
    try:
        made = tables()
        there = {path: path.read_text(encoding="utf-8") for path in made if path.is_file()}
        differing = {path: text for path, text in made.items() if there.get(path) != text}
        for path, text in differing.items():
            print(f"{path.relative_to(ROOT)}: {'its tables are not those of the results' if check else 'written'}")
            if not check:
                write_file(path, text.encode())
        wrong = list(prose())
    except (LampoError, OSError) as error:
        sys.exit(str(error))
    print(*wrong, sep="\n", end="\n" if wrong else "")
    if not differing and not wrong:
        print("Every table and every interval is that of the committed results.")
    sys.exit(1 if wrong or (check and differing) else 0)


if __name__ == "__main__":
    main()
