"""Write `comparison.html` and `comparison.md`: a study as one self-contained page, and as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ..store.files import write_file
from ..view.charts import BLUE, GREEN, GREY, PURPLE, VERMILLION, Figure, Trace, figure, render, scatter
from .comparison import Axis, Comparison, Curve, MethodSummary, learning_curve
from .measures import MEASURES
from .numbers import p_value, percent, points, rate
from .results import RunResult
from .statistics import Paired
from .table import how_to_read, in_words, markdown, tables, unequal_seeds

CURVE_HEIGHT, ROW_HEIGHT = 430, 27
AXES: dict[Axis, str] = {
    "rollouts": "rollouts",
    "tokens": "sampled tokens",
    "updates": "optimiser steps",
    "seconds": "seconds of training",
}
MARKED = ("better", "worse")
CURVES = "On the test problems: means over seeds, with 95 % intervals where they are switched on."


@dataclass(frozen=True, slots=True)
class Look:
    """How a method is drawn, the same in all charts: no two methods share colour and dash."""

    colour: str
    dash: str
    width: float

    @property
    def stroke(self) -> str:
        """The dash for SVG."""
        return {"solid": "none", "dash": "7 4", "dot": "2 3", "dashdot": "8 3 2 3"}[self.dash]

    def transparent(self, opacity: float) -> str:
        """The colour as rgba."""
        red, green, blue = (int(self.colour[at : at + 2], 16) for at in (1, 3, 5))
        return f"rgba({red}, {green}, {blue}, {opacity})"


def write_comparison(
    folder: Path,
    comparisons: Sequence[Comparison],
    results: Sequence[RunResult],
    *,
    baseline: str,
    command: str,
    versions: dict[str, str],
    study: str,
) -> Path:
    """Write `comparison.md` and `comparison.html` into the folder and return the page's path.

    Like the report of a run, the page holds its own copy of plotly.js and loads nothing. Both files are written aside and
    renamed.

    Args:
        folder: that of the study; its name is the page's title.
        comparisons: of all tasks.
        results: what they are made of: all runs, of all phases and tasks; more may still be missing.
        baseline: the method the others are compared with.
        command: that makes the study.
        versions: of the programs that took part, or where the results are from.
        study: text of the study file.
    """
    looks = _looks([result.method for result in results], baseline)
    page = render(
        "compare/page.html.j2",
        name=folder.resolve().name,
        baseline=baseline,
        facts=_facts(results),
        looks=looks,
        axes=AXES,
        measure=MEASURES[comparisons[0].judged_by] if comparisons else "",
        forest=_forest(comparisons, looks),
        forest_seeds=_seeds_a_row([method for comparison in comparisons for method in _compared(comparison)]),
        tasks=[_task(comparison, looks) for comparison in comparisons],
        how_to_read=how_to_read(comparisons),
        command=command,
        versions=versions,
        study=study,
    )
    write_file(folder / "comparison.md", markdown(comparisons).encode())
    path = folder / "comparison.html"
    write_file(path, page.encode())
    return path


def _facts(results: Sequence[RunResult]) -> list[tuple[str, str]]:
    """The size of the study in a few numbers."""
    tested = [result for result in results if result.phase == "test"]
    crashed = sum(result.status == "crashed" for result in results)
    counts = {
        "tasks": len({result.task for result in results}),
        "methods": len({result.method for result in results}),
        "seeds": len({result.seed for result in tested}),
        "test runs": len(tested),
        "tuning runs": len(results) - len(tested),
        "crashed": crashed,
    }
    return [(label, f"{count:,}") for label, count in counts.items() if count]


def _looks(names: Iterable[str], baseline: str) -> dict[str, Look]:
    """The baseline in a strong grey. Four colours in four dashes for up to sixteen others."""
    others = [name for name in dict.fromkeys(names) if name != baseline]
    kinds = [(colour, dash) for dash in ("solid", "dash", "dot", "dashdot") for colour in _COLOURS]
    looks = {name: Look(*kinds[number % len(kinds)], 2) for number, name in enumerate(others)}
    return {baseline: Look(GREY, "solid", 3.5)} | looks


_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE)


def _task(comparison: Comparison, looks: dict[str, Look]) -> dict[str, Any]:
    """What the template needs of one task."""
    charts = []
    if _compared(comparison):
        charts.append(_seed_by_seed(comparison, looks))
    if any(len(tuned.trials) > 1 for tuned in comparison.tuning):
        charts.append(_tuning(comparison, looks))
    trained = any(method.trained for method in comparison.methods)
    curves = {axis: _curves(comparison, axis, looks) for axis in get_args(Axis)} if trained else None
    return {
        "name": comparison.task,
        "words": in_words(comparison),
        "tables": tables(comparison),
        "curves": curves,
        "curves_caption": f"{CURVES} {unequal_seeds(comparison)}".strip(),
        "curves_in_words": "; ".join(
            f"{m.method} from {m.start.value:.1%} to {m.final.value:.1%}" for m in comparison.methods
        ),
        "charts": charts,
    }


# Charts --------------------------------------------------------------------------------------------------------------


def _curves(comparison: Comparison, axis: Axis, looks: dict[str, Look]) -> Figure:
    """Learning curves at equal cost: bands of intervals, lines, and each name at the end of its line."""
    curves = {method.method: learning_curve(method.runs, axis) for method in comparison.methods}
    ends = [value for curve in curves.values() for value in (*curve.mean, *(curve.low or ()), *(curve.high or ()))]
    low, high = min(ends), max(ends)
    low, high = low - 0.04 * (high - low or 0.1), high + 0.04 * (high - low or 0.1)
    traces = [
        *(_band(name, curve, looks[name]) for name, curve in curves.items()),
        *(_mean_line(name, curve, looks[name], axis) for name, curve in curves.items()),
        *(_label(name, curve, looks[name]) for name, curve in curves.items()),
    ]
    return figure(
        [trace for trace in traces if trace],
        CURVE_HEIGHT,
        showlegend=False,
        hovermode="closest",
        margin={"r": 16 + 7.4 * max(len(name) for name in curves)},
        xaxis={"title": {"text": AXES[axis], "standoff": 6}, "tickformat": ",d" if axis == "seconds" else "~s"},
        yaxis={"range": [low, high], "tickformat": "~%"},
    )


def _band(name: str, curve: Curve, look: Look) -> Trace | None:
    if not curve.low or not curve.high:
        return None
    x, y = curve.x + curve.x[::-1], curve.high + curve.low[::-1]
    band = scatter(x, y, "none", fill="toself", fillcolor=look.transparent(0.13), hoverinfo="skip", showlegend=False)
    return band | _part(name, "interval")


def _mean_line(name: str, curve: Curve, look: Look, axis: Axis) -> Trace:
    bounds = zip(curve.low or [None] * len(curve.x), curve.high or [None] * len(curve.x), strict=True)
    intervals = ["" if low is None or high is None else f"[{low:.1%}, {high:.1%}]" for low, high in bounds]
    line = scatter(curve.x, curve.mean, "lines+markers", name=name, customdata=intervals, line=_line(look))
    line["marker"] = {"size": 5, "color": look.colour}
    line["hovertemplate"] = f"%{{x:,.0f}} {AXES[axis]}<br>%{{y:.1%}} %{{customdata}}<extra>%{{fullData.name}}</extra>"
    return line | _part(name, "line")


def _label(name: str, curve: Curve, look: Look) -> Trace:
    """The method's name at the end of its line. The page moves the names to the right edge, and apart."""
    label = scatter([curve.x[-1]] * 2, [curve.mean[-1]] * 2, "lines+text", cliponaxis=False, hoverinfo="skip")
    label |= {"text": ["", f"<b>{_escaped(name)}</b>"], "textposition": "middle right"}
    label |= {"textfont": {"color": look.colour}}
    label |= {"line": {"color": look.transparent(0.45), "width": 1, "dash": "dot"}}
    return label | _part(name, "label")


def _forest(comparisons: Sequence[Comparison], looks: dict[str, Look]) -> Figure | None:
    """The mean paired difference of each method and task in the measure that judges. Filled where the verdict is clear."""
    rows: list[tuple[str, str, Paired | None]] = []
    for comparison in comparisons:
        task = f"<b>{_escaped(comparison.task)}</b>"
        found = [(method.method, method.differences[comparison.judged_by]) for method in _compared(comparison)]
        pairs = [(name, pair) for name, pair in found if pair]
        if len(pairs) == 1 and len(comparisons) > 1:
            rows.append((task, *pairs[0]))
        elif pairs:
            rows += [(task, "", None)] if len(comparisons) > 1 else []
            rows += [(_escaped(name), name, pair) for name, pair in pairs]
    if not rows:
        return None
    traces = [_difference(row, name, pair, looks[name]) for row, (_, name, pair) in enumerate(rows) if pair]
    return _rows_figure(traces, [label for label, *_ in rows])


def _difference(row: int, name: str, pair: Paired, look: Look) -> Trace:
    mean = pair.difference
    dot = scatter([_points(mean.value)], [row], "markers", name=name)
    dot["marker"] = _marker(look, "circle" if pair.verdict in MARKED else "circle-open", 10)
    dot["hovertemplate"] = (
        f"{points(mean)} points over {len(pair.seeds)} seeds<br>p {p_value(pair.p)}: {pair.verdict}"
        "<extra>%{fullData.name}</extra>"
    )
    if mean.low is not None and mean.high is not None:
        plus, minus = [_points(mean.high - mean.value)], [_points(mean.value - mean.low)]
        bar = {"type": "data", "symmetric": False, "array": plus, "arrayminus": minus}
        dot["error_x"] = bar | {"color": look.colour, "thickness": 2, "width": 5}
    return dot | _part(name, "row")


def _compared(comparison: Comparison) -> list[MethodSummary]:
    """Who stands beside the baseline in the charts of differences: without the untrained, whose distance would crowd out all others'."""
    return [method for method in comparison.methods if method.differences["samples"] and method.trained]


def _seeds_a_row(compared: Sequence[MethodSummary]) -> str:
    """How many seeds the rows of a chart of differences have, where that differs."""
    counts = sorted({len(pair.seeds) for method in compared if (pair := method.differences["samples"])})
    return f"A row is over the seeds that both methods have, {counts[0]} to {counts[-1]}." if len(counts) > 1 else ""


def _seed_by_seed(comparison: Comparison, looks: dict[str, Look]) -> dict[str, Any]:
    """Every seed's difference to the baseline as a dot, and the mean as a bar."""
    (baseline,) = (method for method in comparison.methods if method.method == comparison.baseline)
    compared = _compared(comparison)
    traces = [
        trace for row, method in enumerate(compared) for trace in _seeds_of(row, method, baseline, looks[method.method])
    ]
    chart = _rows_figure(traces, [_escaped(method.method) for method in compared])
    chart["layout"]["height"] = _beside(len(compared))
    better = [
        f"{method.method} ahead in {pair.improvement.value:.0%}"
        for method in compared
        if (pair := method.differences["samples"])
    ]
    meaning = (
        f"Final accuracy minus {comparison.baseline}'s, in points: a dot a seed, a bar the mean. A cross is a seed that "
        f"crashed. {_seeds_a_row(compared)}"
    )
    return {
        "title": "Seed by seed",
        "meaning": meaning.strip(),
        "in_words": f"Share of seeds: {'; '.join(better)}",
        "figure": chart,
    }


def _seeds_of(row: int, method: MethodSummary, baseline: MethodSummary, look: Look) -> tuple[Trace, Trace]:
    """The bar and the dots of one row."""
    pair = method.differences["samples"]
    assert pair
    ours, theirs = (dict(zip(m.seeds, m.finals, strict=True)) for m in (method, baseline))
    crashed = {(run.method, run.seed) for run in (*method.runs, *baseline.runs) if run.status == "crashed"}
    texts = []
    for seed in pair.seeds:
        lost = [name for name in (method.method, baseline.method) if (name, seed) in crashed]
        note = f"<br>crashed: {_escaped(', '.join(lost))}" if lost else ""
        texts.append(f"seed {seed}: {ours[seed]:.1%} against {theirs[seed]:.1%}{note}")
    symbols = ["x" if (method.method, seed) in crashed else "circle" for seed in pair.seeds]
    offsets = [row + 0.28 * (2 * (at % 3) / 2 - 1) for at in range(len(pair.seeds))]  # three lanes
    dots = scatter([_points(d) for d in pair.differences], offsets, "markers", customdata=texts, name=method.method)
    dots["marker"] = _marker(look, symbols, 8) | {"opacity": 0.75}
    dots["hovertemplate"] = "%{x:+.1f} points<br>%{customdata}<extra>%{fullData.name}</extra>"
    mean = scatter([_points(pair.difference.value)], [row], "markers", hoverinfo="skip")
    mean["marker"] = {"symbol": "line-ns", "size": 22, "line": {"width": 3, "color": look.colour}}
    return mean | _part(method.method, "row"), dots | _part(method.method, "row")


def _tuning(comparison: Comparison, looks: dict[str, Look]) -> dict[str, Any]:
    """Validation accuracy over the learning rate, the winner ringed."""
    traces = []
    for tuned in comparison.tuning:
        look, part = looks[tuned.method], _part(tuned.method, "line")
        values = [trial.accuracy.value for trial in tuned.trials]
        texts = [f"learning rate {rate(t.learning_rate)}<br>{percent(t.accuracy)}" for t in tuned.trials]
        rates = [trial.learning_rate for trial in tuned.trials]
        curve = scatter(rates, values, "lines+markers", name=tuned.method, customdata=texts)
        curve |= {"line": _line(look) | {"width": 2}, "marker": {"size": 5, "color": look.colour}}
        curve["hovertemplate"] = "%{customdata}<extra>%{fullData.name}</extra>"
        best = scatter([tuned.learning_rate], [max(values)], "markers", hoverinfo="skip")
        best["marker"] = _marker(look, "circle-open", 13)
        traces += [curve | part, best | part]
    rates = sorted({trial.learning_rate for tuned in comparison.tuning for trial in tuned.trials})
    axis = {"type": "log", "tickmode": "array", "tickvals": rates, "ticktext": [rate(value) for value in rates]}
    chart = figure(
        traces,
        _beside(len(comparison.methods) - 1),
        showlegend=False,
        hovermode="closest",
        xaxis=axis | {"title": {"text": "learning rate", "standoff": 6}},
        yaxis={"tickformat": "~%"},
    )
    seeds = sorted({trial.accuracy.num_seeds for tuned in comparison.tuning for trial in tuned.trials})
    unequal = f" A point is over {seeds[0]} to {seeds[-1]} seeds." if len(seeds) > 1 else ""
    won = [f"{tuned.method} {rate(tuned.learning_rate)}" for tuned in comparison.tuning]
    return {
        "title": "Tuning",
        "meaning": f"Mean accuracy on the validation problems at the end of training. The ring is the one that won.{unequal}",
        "in_words": f"Best learning rates: {'; '.join(won)}",
        "figure": chart,
    }


def _rows_figure(traces: Sequence[Trace], labels: Sequence[str]) -> Figure:
    """A row for each label from the top down, and a line at no difference."""
    xaxis = {"zeroline": True, "zerolinewidth": 1.5, "showgrid": True, "tickformat": "~f", "rangemode": "tozero"}
    yaxis = {"tickmode": "array", "tickvals": list(range(len(labels))), "ticktext": list(labels), "showgrid": False}
    return figure(
        traces,
        _height(len(labels)),
        showlegend=False,
        hovermode="closest",
        xaxis=xaxis | {"title": {"text": "percentage points", "standoff": 6}},
        yaxis=yaxis | {"range": [len(labels) - 0.4, -0.6], "ticklabelstandoff": 8},
    )


def _height(num_rows: int) -> int:
    return max(120, 60 + ROW_HEIGHT * num_rows)


def _beside(num_rows: int) -> int:
    """The height of the two charts that stand side by side."""
    return max(250, _height(num_rows))


def _part(method: str, part: str) -> Trace:
    """What the page goes by when a method or a part of the chart is shown or hidden."""
    return {"meta": {"method": method, "part": part}}


def _line(look: Look) -> dict[str, Any]:
    return {"color": look.colour, "dash": look.dash, "width": look.width}


def _marker(look: Look, symbol: str | list[str], size: int) -> dict[str, Any]:
    line = {"width": 2 if size > 8 else 0, "color": look.colour}
    return {"symbol": symbol, "size": size, "color": look.colour, "line": line}


def _points(share: float) -> float:
    return round(share * 100, 3)


def _escaped(name: str) -> str:
    """A name inside plotly's small HTML."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
