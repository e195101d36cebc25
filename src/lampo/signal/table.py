"""An answer as tables of text: the rows of the page and of `signal.md` alike."""

from __future__ import annotations

from collections.abc import Collection

from ..compare.table import Table
from .answer import Answer, in_words
from .statistics import LEVEL, Versus

NONE = "–"
HOW_TO_READ = (
    "The signal of an estimator is the accuracy that one step is expected to gain, over the length of that step. Noise makes steps "
    "longer and not better. Twenty percent more signal is what about 44 % more rollouts would bring while noise prevails.",
    "Numbers are differences to the baseline's signal in percent, with 95 % intervals over groups. An interval says what other problems "
    "and rollouts would have brought, for this policy.",
    "Better and worse: the interval leaves out 0. Level: it lies within "
    f"{LEVEL:.0%} on both sides. Same: the two differ by a factor at most, which a learning rate can make up for.",
    "Each row is judged alone. Of twenty estimators that are no better, one looks better or worse by chance.",
    "“More groups” is about how many further ones would settle the row, if its difference stays: its interval would then leave out 0, or "
    "be level.",
    "It is the first step of this policy that is measured. What is best later in training may be another: measure a run too.",
)


def markdown(answer: Answer) -> str:
    """The whole answer as Markdown, its columns aligned so that it can be read in a terminal too."""
    lines = [f"# Signal of each estimator: {answer.name}", "", *(f"{line}." for line in facts(answer)), ""]
    lines += [f"- {line}" for line in in_words(answer)]
    for table in tables(answer):
        lines += ["", f"## {table.title}", "", *([table.note, ""] if table.note else []), *_rows(table)]
    return "\n".join([*lines, "", "## How to read this", "", *(f"- {line}" for line in HOW_TO_READ), ""])


def facts(answer: Answer) -> list[str]:
    """What was measured."""
    return [
        f"Policy: {answer.policy}, {answer.accuracy:.1%} right, {answer.mixed:.0%} of the groups with right and wrong responses",
        f"Measured on {answer.groups:,} groups of {answer.rollouts} rollouts, for steps of {answer.groups_per_step} groups",
    ]


def tables(answer: Answer) -> list[Table]:
    """Clean verdicts, made-up errors, group sizes: as far as they were measured, and the latter two as far as anything is known."""
    clean, *errors = answer.verdicts
    found = [_first(answer)]
    if _known(answer, errors, answer.group_sizes[:1]):
        found.append(_errors(answer))
    if len(answer.group_sizes) > 1 and _known(answer, [clean], answer.group_sizes):
        found.append(_sizes(answer))
    return found


def _known(answer: Answer, verdicts: Collection[str], sizes: Collection[int]) -> bool:
    """Whether any difference to the baseline is more than noise there: else a table would be one of dashes."""
    there = (each for each in answer.signals if each.verdicts in verdicts and each.group_size in sizes)
    return any(
        each.versus.difference is not None and each.versus.verdict != "baseline"
        for each in there
        if each.scaling == "adam"
    )


def _first(answer: Answer) -> Table:
    verdicts, size = answer.verdicts[0], answer.group_sizes[0]
    rows = []
    for name in _ordered(answer, verdicts):
        scaled, plain = (answer.find(verdicts, size, scaling, name) for scaling in ("adam", "plain"))
        more = f"{scaled.more_groups:,}" if scaled.more_groups else NONE
        rows.append((name, cell(scaled), scaled.verdict, more, cell(plain), plain.verdict))
    return Table(
        f"With {verdicts}",
        f"Signal against {answer.baseline}, in percent: with Adam-like scaling, which counts, and without.",
        ("estimator", "Adam-like", "verdict", "more groups", "plain", "verdict"),
        tuple(rows),
        (0, 2, 5),
    )


def _errors(answer: Answer) -> Table:
    verdicts, size = answer.verdicts[1:], answer.group_sizes[0]
    rows = [
        (name, *(marked(answer.find(each, size, "adam", name)) for each in verdicts))
        for name in _ordered(answer, verdicts[-1] if len(verdicts) == 1 else verdicts[min(1, len(verdicts) - 1)])
    ]
    return Table(
        "With made-up errors of the verifier",
        f"Signal against {answer.baseline} under the same errors, in percent, with Adam-like scaling. "
        "The accuracy is by the true verdicts. A star: better or worse.",
        ("estimator", *verdicts),
        tuple(rows),
    )


def _sizes(answer: Answer) -> Table:
    verdicts, sizes = answer.verdicts[0], answer.group_sizes
    rows = [
        (name, *(marked(answer.find(verdicts, size, "adam", name)) for size in reversed(sizes)))
        for name in _ordered(answer, verdicts)
        if name in answer.by_size
    ]
    rollouts = answer.groups_per_step * answer.rollouts
    return Table(
        f"Group sizes, {rollouts:,} rollouts a step",
        f"Signal against {answer.baseline} in groups of {sizes[0]}, in percent, with Adam-like scaling and {verdicts}. "
        "A star: better or worse.",
        ("estimator", *(f"groups of {size}" for size in reversed(sizes))),
        tuple(rows),
    )


def _ordered(answer: Answer, verdicts: str) -> list[str]:
    """The baseline, then all others with the most signal first."""
    of = {name: answer.find(verdicts, answer.group_sizes[0], "adam", name) for name in answer.estimators}
    return sorted(of, key=lambda name: (name != answer.baseline, -of[name].signal))


def cell(versus: Versus) -> str:
    """A difference with its interval."""
    if versus.verdict == "baseline" or versus.difference is None or versus.low is None or versus.high is None:
        return NONE
    if versus.verdict == "same":
        return "0"
    return f"{_percent(versus.difference)} [{_percent(versus.low)}, {_percent(versus.high)}]"


def _percent(share: float) -> str:
    text = f"{100 * share:+.0f}"
    return "0" if text in ("+0", "-0") else text


def marked(versus: Versus) -> str:
    """The same with a star where the verdict is clear."""
    return f"{cell(versus)} *" if versus.verdict in ("better", "worse") else cell(versus)


def _rows(table: Table) -> list[str]:
    cells = [table.head, *table.rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.head))]

    def line(row: tuple[str, ...]) -> str:
        padded = [
            text.ljust(width) if column in table.text_columns else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * width if column in table.text_columns else "-" * (width - 1) + ":" for column, width in enumerate(widths)
    ]
    return [line(table.head), f"| {' | '.join(rule)} |", *map(line, table.rows)]
