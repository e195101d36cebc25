"""A comparison as tables of text: the rows of the page and of `comparison.md` alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from ..messages import printable
from .comparison import Comparison, MethodSummary
from .measures import MEASURES
from .numbers import NONE, p_value, percent, points, rate, share
from .results import MeasureName
from .statistics import POWER, SIGNIFICANT, Paired, seeds_needed, smallest_shown

Column = Callable[[MethodSummary], str | None]

OVER_SEEDS = (
    "Accuracies are means over seeds, each at its last evaluation. Brackets are 95 % intervals over seeds, Student's t: what other "
    "seeds would have brought on the same problems. Other problems are another question."
)
OVER_PROBLEMS = (
    "Accuracies are means over seeds, each at its last evaluation. Brackets are 95 % intervals over seeds and problems, Student's t: what "
    "other seeds and other problems of this kind would have brought. Those of pass@k and of accuracies at equal rollouts are over seeds "
    "alone, and so is every p."
)
HOW_TO_READ = (
    "Differences are in percentage points and paired. A seed fixes the initial weights and the order of the problems, so a "
    "method is compared with the baseline seed by seed.",
    "Probability of improvement is the share of seeds where the method is ahead of the baseline, ties counting half.",
    f"Power is the smallest true difference that would be shown in {POWER * 100:.0f} % of cases, if differences spread as they do here. "
    "It is a range over the methods. A smaller one may be there and not be seen.",
    "A row of a table is one claim and has one p, that of the paired permutation test. It is corrected once (Benjamini and "
    "Hochberg), for the rows of its table. Another table that repeats the claim repeats its p.",
    f"The verdict goes by p, not by the interval: below {SIGNIFICANT:g} it is better or worse. “No difference shown” is not “equal”. "
    "“Too few seeds” means that even with all seeds on one side nothing could have been shown.",
    "A crashed seed counts with the last accuracy it reached, not as missing.",
)
NOTHING_TRAINED = "nothing trained"


@dataclass(frozen=True, slots=True)
class Table:
    """Text in rows and columns.

    Attributes:
        title: its heading.
        note: what one has to know to read it; may be empty.
        head: names of the columns; the first one names the rows.
        rows: cells of each row, as many as `head`.
        text_columns: indices of columns that hold words, not numbers.
    """

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: tuple[int, ...] = (0,)


def markdown(comparisons: Sequence[Comparison]) -> str:
    """The whole study as Markdown, its columns aligned so that it can be read in a terminal too."""
    parts = [f"# Comparison with {comparisons[0].baseline}" if comparisons else "# Comparison", ""]
    for comparison in comparisons:
        parts += [f"## {comparison.task}", "", *(f"- {line}" for line in in_words(comparison)), ""]
        for table in tables(comparison):
            parts += [f"### {table.title}", "", *([table.note, ""] if table.note else []), *rows_of(table), ""]
    return "\n".join([*parts, "## How to read this", "", *(f"- {line}" for line in how_to_read(comparisons)), ""])


def how_to_read(comparisons: Sequence[Comparison]) -> list[str]:
    """What the numbers mean. Intervals are over problems too where the results of each problem are there."""
    finals = [method.final for comparison in comparisons for method in comparison.methods]
    return [OVER_PROBLEMS if finals and all(final.num_problems for final in finals) else OVER_SEEDS, *HOW_TO_READ]


def in_words(comparison: Comparison) -> list[str]:
    """What came out, in a few sentences: the clear differences first."""
    others = [method for method in comparison.methods if method.method != comparison.baseline and method.trained]
    untrained = [method.method for method in comparison.methods if not method.trained and not method.all_crashed]
    lines = [
        f"{name}: {count} of {count} crashed before the first evaluation: {printable(error)}."
        for name, count, error in comparison.lost
    ]
    if not comparison.methods:
        return lines or ["There are no test runs yet."]
    crashed = _crashes(comparison)
    if not any(method.trained for method in comparison.methods):
        unseen = any(method.all_crashed for method in comparison.methods)
        why = "No run that learned was evaluated" if unseen else "Nothing was trained: no run made an optimiser step"
        return [*lines, f"{why}, so there is nothing to compare.", *crashed]
    if comparison.primary:
        lines.append(f"The primary measure is {MEASURES[comparison.primary]}.")
    if all(method.method != comparison.baseline for method in comparison.methods):
        lines.append(f"The baseline {comparison.baseline} has no test runs here, so there is nothing to compare with.")
    for verdict in ("better", "worse"):
        for method in others:
            pair = method.differences[comparison.judged_by]
            if pair and pair.verdict == verdict:
                lines.append(
                    f"{method.method} is {verdict} than {comparison.baseline}: {points(pair.difference)} points over "
                    f"{len(pair.seeds)} seeds, p {p_value(pair.p)}."
                )
    same, few = (
        ", ".join(
            f"{method.method} ({points(pair.difference)})"
            for method in others
            if (pair := method.differences[comparison.judged_by]) and pair.verdict == verdict
        )
        for verdict in ("no difference shown", "too few seeds")
    )
    if same:
        lines.append(f"No difference to {comparison.baseline} shown: {same}.")
    if few:
        lines.append(
            f"Too few seeds to show any difference to {comparison.baseline}: {few}. {seeds_needed(len(comparison.methods) - 1)} "
            "seeds show a method that is ahead in all of them."
        )
    if comparison.primary:
        lines += [line for measure in MEASURES if measure != comparison.primary and (line := _also(others, measure))]
    if untrained:
        lines.append(f"Nothing was trained with {', '.join(untrained)}: no optimiser step was made.")
    lines += crashed
    edges = [tuned.method for tuned in comparison.tuning if tuned.edge]
    if edges:
        lines.append(
            f"The best learning rate lies at the edge of the grid, and a better one may lie beyond: {', '.join(edges)}."
        )
    return lines


def _crashes(comparison: Comparison) -> list[str]:
    """A sentence for each method of which seeds crashed."""
    lines = []
    for method in comparison.methods:
        if method.num_crashed:
            missing = f", {method.num_uncounted} without a single evaluation left out" if method.num_uncounted else ""
            lines.append(f"{method.method}: {_of(method.num_crashed, method)} crashed{missing}.")
    return lines


def _also(methods: Sequence[MethodSummary], measure: MeasureName) -> str:
    """Which methods differ in a measure that is not the primary one. Empty where none does."""
    shown = [
        f"{method.method} is {pair.verdict} ({points(pair.difference)})"
        for method in methods
        if (pair := method.differences[measure]) and pair.verdict in ("better", "worse")
    ]
    return f"Not the primary measure: in {MEASURES[measure]}, {', '.join(shown)}." if shown else ""


def tables(comparison: Comparison) -> list[Table]:
    """All tables of a task, that of the primary measure first, as far as there are runs for them."""
    passes = any(method.pass_at_k for method in comparison.methods)
    greedy = any(method.greedy for method in comparison.methods)
    wanted = [_diversity] * passes + [_most_likely] * greedy
    makers = [_headline, _efficiency, _stability, *wanted, _cost] if comparison.methods else []
    first = {"most_likely_response": _most_likely, "samples": _headline, "over_training": _efficiency}
    makers.sort(key=lambda make: make is not first[comparison.judged_by])
    return [make(comparison) for make in [*makers, *([_tuned] if comparison.tuning else [])]]


def unequal_seeds(comparison: Comparison) -> str:
    """Which methods have which seeds, where they differ. Empty where all have the same."""
    methods_of: dict[tuple[int, ...], list[str]] = {}
    for method in comparison.methods:
        methods_of.setdefault(method.seeds, []).append(method.method)
    if len(methods_of) < 2:
        return ""
    told = "; ".join(f"{', '.join(names)}: {_seeds_in_words(seeds)}" for seeds, names in methods_of.items())
    return f"Not all methods have the same seeds, so compare the differences and not the accuracies ({told})."


def _seeds_in_words(seeds: tuple[int, ...]) -> str:
    """Seeds, and how many.

    >>> _seeds_in_words((0, 1, 2)), _seeds_in_words((0, 2)), _seeds_in_words((4,))
    ('3 seeds, 0 to 2', '2 seeds, 0, 2', '1 seed, 4')
    """
    first, last = min(seeds), max(seeds)
    gapless = len(seeds) > 2 and seeds == tuple(range(first, last + 1))
    listed = f"{first} to {last}" if gapless else ", ".join(map(str, seeds))
    return f"{len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}, {listed}"


def power(comparison: Comparison, measure: MeasureName) -> str:
    """The smallest differences that are shown, over the methods with as many seeds. Empty where nothing was compared."""
    pairs = [pair for method in comparison.methods if (pair := method.differences[measure])]
    told = []
    for count in sorted({len(pair.seeds) for pair in pairs}, reverse=True):
        sizes = [smallest_shown(pair.differences, len(pairs)) for pair in pairs if len(pair.seeds) == count]
        known = sorted(size for size in sizes if size is not None)
        ends = dict.fromkeys(f"{size * 100:.1f}" for size in (*known[:1], *known[-1:]))
        shown = (
            f"show a difference of {' to '.join(ends)} points in {POWER * 100:.0f} % of cases"
            if known
            else "can show no difference"
        )
        told.append(f"{count} {'seed' if count == 1 else 'seeds'} {shown}")
    return f"Power: {', '.join(told)}." if told else ""


def _headline(comparison: Comparison) -> Table:
    """Final accuracy of every method, and beside the baseline."""
    samples = f"{comparison.samples} {'sample' if comparison.samples == 1 else 'samples'}"
    return _per_method(
        comparison,
        "Final accuracy",
        _note(
            f"On {comparison.problems:,} test problems, {samples} each.",
            unequal_seeds(comparison),
            power(comparison, "samples"),
        ),
        {
            "learning rate": lambda m: rate(m.learning_rate),
            "seeds": _seeds,
            "accuracy": lambda m: percent(m.final),
            **_beside_baseline(
                comparison, "samples", {"prob. of improvement": lambda pair: percent(pair.improvement, 0)}
            ),
        },
    )


def _efficiency(comparison: Comparison) -> Table:
    if comparison.target is None:
        target = f"No target accuracy: {comparison.baseline} gained nothing."
    else:
        target = (
            f"The target is {share(comparison.target)}. The median is over the seeds that reach it, so read it "
            "together with their share."
        )
    return _per_method(
        comparison,
        "Sample efficiency",
        _note(
            f"Mean accuracy over the first {comparison.budget:,} rollouts, the most that all finished runs have in common.",
            "It is the area under the curve, with straight lines between evaluations.",
            "Rollouts that dynamic sampling threw away count.",
            target,
            power(comparison, "over_training"),
        ),
        {
            "over training": lambda m: percent(m.area),
            **_beside_baseline(comparison, "over_training"),
            f"at {comparison.budget:,} rollouts": lambda m: percent(m.at_budget),
            "reach target": lambda m: None if m.reached is None else share(m.reached, 0),
            "rollouts to target": lambda m: _count(m.rollouts_to_target),
        },
    )


def _stability(comparison: Comparison) -> Table:
    return _per_method(
        comparison,
        "Stability",
        "Drops are the largest fall below a run's own best, in points, and hold the noise of the evaluations too. Collapsed: "
        "ended below where it began, or below half of its best. Gradient spikes: steps with a norm over five times the "
        "run's median. Entropy: over the last tenth of the steps, in nats a token. Middle half: interquartile mean of the "
        "final accuracies.",
        {
            "crashed": lambda m: _of(m.num_crashed, m),
            "collapsed": lambda m: _of(m.num_collapsed, m),
            "mean drop": lambda m: f"{m.mean_drop * 100:.1f}",
            "worst drop": lambda m: f"{m.worst_drop * 100:.1f}",
            "gradient spikes": lambda m: _share(m.gradient_spikes),
            "entropy": lambda m: None if m.entropy_end is None else f"{m.entropy_end:.3f}",
            "middle half": lambda m: share(m.final_iqm),
        },
    )


def _diversity(comparison: Comparison) -> Table:
    k = comparison.samples

    def gain(method: MethodSummary) -> str | None:
        if method.pass_at_k is None or method.pass_at_k_start is None:
            return None
        return f"{(method.pass_at_k.value - method.pass_at_k_start) * 100:+.1f}"

    def after(method: MethodSummary) -> str | None:
        passes = method.pass_at_k
        fewer = passes and passes.num_seeds < len(method.seeds)
        return passes and percent(passes) + (f" ({passes.num_seeds} seeds)" if fewer else "")

    return _per_method(
        comparison,
        "Diversity",
        f"Pass@{k}: whether any of {k} samples is right. Where it falls while the accuracy rises, the policy has grown "
        "narrower, not better.",
        {
            f"pass@{k} before": lambda m: _share(m.pass_at_k_start),
            f"pass@{k} after": after,
            "change": gain,
        },
    )


def _most_likely(comparison: Comparison) -> Table:
    return _per_method(
        comparison,
        "The most likely response",
        _note(
            "Accuracy of greedy decoding. Where the sampled accuracy rises and this one does not, the policy sharpened and "
            "learned nothing new.",
            f"Over training: the mean over the first {comparison.budget:,} rollouts.",
            power(comparison, "most_likely_response"),
        ),
        {
            "before": lambda m: _share(m.greedy_start),
            "over training": lambda m: _share(m.greedy_area),
            "after": lambda m: m.greedy and percent(m.greedy),
            **_beside_baseline(comparison, "most_likely_response"),
        },
    )


def _cost(comparison: Comparison) -> Table:
    return _per_method(
        comparison,
        "Cost",
        "Of a seed that finished, on average. Time is training without evaluations. Length is that of a response at the last "
        "evaluation.",
        {
            "rollouts": lambda m: _count(m.rollouts),
            "tokens": lambda m: _count(m.tokens),
            "updates": lambda m: _count(m.updates),
            "time": lambda m: None if m.seconds is None else str(timedelta(seconds=round(m.seconds))),
            "length": lambda m: f"{m.length:.0f} tokens",
        },
    )


def _tuned(comparison: Comparison) -> Table:
    """Accuracy for each learning rate, the one that won, and what the method was tested with if that is another."""
    rates = sorted({trial.learning_rate for tuned in comparison.tuning for trial in tuned.trials})
    tested = {method.method: method.learning_rate for method in comparison.methods}
    rows = []
    for tuned in comparison.tuning:
        of = {trial.learning_rate: trial for trial in tuned.trials}
        counts = sorted({trial.accuracy.num_seeds for trial in tuned.trials})
        crashed = sum(trial.num_crashed for trial in tuned.trials)
        notes = [f"at the {tuned.edge} end of the grid"] if tuned.edge else []
        notes += [f"{crashed} crashed"] if crashed else []
        other = tested.get(tuned.method, tuned.learning_rate)
        notes += [f"tested with {rate(other)}"] if other != tuned.learning_rate else []
        cells = [share(of[lr].accuracy.value) if lr in of else NONE for lr in rates]
        seeds = "-".join(str(count) for count in (counts if len(counts) == 1 else (counts[0], counts[-1])))
        rows.append((tuned.method, *cells, seeds, rate(tuned.learning_rate), ", ".join(notes)))
    head = ("method", *(rate(lr) for lr in rates), "seeds each", "won", "note")
    note = "Mean accuracy on the validation problems at the end of training, for each learning rate."
    return Table("Tuned learning rates", note, head, tuple(rows), (0, len(head) - 1))


def _share(value: float | None) -> str | None:
    return None if value is None else share(value)


def _seeds(method: MethodSummary) -> str:
    pair = method.differences["samples"]
    remarks = [f"{method.num_crashed} crashed"] if method.num_crashed else []
    remarks += [f"{len(pair.seeds)} paired"] if pair and pair.seeds != method.seeds else []
    return f"{len(method.seeds)} ({', '.join(remarks)})" if remarks else str(len(method.seeds))


def _of(count: int, method: MethodSummary) -> str:
    return f"{count} of {len(method.seeds) + method.num_uncounted}"


def _count(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f}"


def _note(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _beside_baseline(
    comparison: Comparison, measure: MeasureName, others: Mapping[str, Callable[[Paired], str]] | None = None
) -> dict[str, Column]:
    """The columns of one measure: the difference, others that go with it, p and the verdict."""

    def column(told: Callable[[Paired], str]) -> Column:
        return lambda method: (pair := method.differences[measure]) and told(pair)

    def verdict(method: MethodSummary) -> str | None:
        if not method.trained:
            return "crashed" if method.all_crashed else NOTHING_TRAINED
        return "baseline" if method.method == comparison.baseline else column(lambda pair: pair.verdict)(method)

    told = {
        f"minus {comparison.baseline}": lambda pair: points(pair.difference),
        **(others or {}),
        "p": lambda pair: p_value(pair.p),
    }
    return {name: column(tell) for name, tell in told.items()} | {"verdict": verdict}


def _per_method(comparison: Comparison, title: str, note: str, columns: dict[str, Column]) -> Table:
    rows = tuple((m.method, *(of(m) or NONE for of in columns.values())) for m in comparison.methods)
    head = ("method", *columns)
    return Table(title, note, head, rows, tuple(i for i, name in enumerate(head) if name in ("method", "verdict")))


def rows_of(table: Table) -> Iterable[str]:
    """The lines of a Markdown table: words to the left, numbers to the right."""
    cells = [[cell.replace("|", r"\|").replace("\n", " ") for cell in row] for row in (table.head, *table.rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(table.head))]
    for number, row in enumerate(cells):
        aligned = (
            cell.ljust(width) if column in table.text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield f"| {' | '.join(aligned)} |"
        if number == 0:
            rules = ("-" * w if c in table.text_columns else "-" * (w - 1) + ":" for c, w in enumerate(widths))
            yield f"| {' | '.join(rules)} |"
