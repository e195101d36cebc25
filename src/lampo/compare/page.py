"""Write `comparison.html` and `comparison.md`: a study as one self-contained page, and as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import plotly.graph_objects as go

from ..store.files import write_file
from ..view.charts import BLUE, GREEN, GREY, PURPLE, VERMILLION, render, style
from .comparison import Axis, Comparison, MethodSummary, compare_methods, learning_curve
from .results import RunResult
from .table import HOW_TO_READ, in_words, markdown, p_value, percent, points, rate, tables

CURVE_HEIGHT, ROW_HEIGHT = 430, 27
AXES: dict[Axis, str] = {
    "rollouts": "rollouts",
    "tokens": "sampled tokens",
    "updates": "optimiser steps",
    "seconds": "seconds of training",
}
MARKED = ("better", "worse")


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
    results: list[RunResult],
    *,
    baseline: str,
    command: str,
    versions: dict[str, str],
    study: str,
    target: float | None = None,
) -> Path:
    """Write `comparison.md` and `comparison.html` into the folder and return the page's path.

    Like the report of a run, the page holds its own copy of plotly.js and loads nothing. Both files are written aside and
    renamed.

    Args:
        folder: that of the study; its name is the page's title.
        results: all runs, of all phases and tasks; more may still be missing.
        baseline: the method the others are compared with.
        command: that makes the study.
        versions: of the programs that took part.
        study: text of the study file.
        target: accuracy for the rollouts-to-target measure, instead of 90 % of the baseline's gain.
    """
    comparisons = compare_methods(results, baseline, target=target)
    looks = _looks([result.method for result in results], baseline)
    page = render(
        "compare/page.html.j2",
        name=folder.resolve().name,
        baseline=baseline,
        facts=_facts(results),
        looks=looks,
        axes=AXES,
        forest=_forest(comparisons, looks),
        tasks=[_task(comparison, looks) for comparison in comparisons],
        how_to_read=HOW_TO_READ,
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
    """The baseline in a strong grey; four colours in four dashes for up to sixteen others."""
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
    curves = {axis: _curves(comparison, axis, looks) for axis in get_args(Axis)} if comparison.methods else None
    return {
        "name": comparison.task,
        "words": in_words(comparison),
        "tables": tables(comparison),
        "curves": curves,
        "curves_in_words": "; ".join(
            f"{m.method} from {m.start.value:.1%} to {m.final.value:.1%}" for m in comparison.methods
        ),
        "charts": charts,
    }


# Charts --------------------------------------------------------------------------------------------------------------


def _curves(comparison: Comparison, axis: Axis, looks: dict[str, Look]) -> dict[str, Any]:
    """Learning curves at equal cost: bands of intervals, lines, and each name at the end of its line."""
    curves = {method.method: learning_curve(method.runs, axis) for method in comparison.methods}
    figure = go.Figure()
    for name, curve in curves.items():
        if curve.low and curve.high:
            band = go.Scatter(
                x=curve.x + curve.x[::-1], y=_short(curve.high + curve.low[::-1]), fill="toself", mode="none"
            )
            band.update(fillcolor=looks[name].transparent(0.13), hoverinfo="skip", showlegend=False)
            figure.add_trace(band.update(meta={"method": name, "part": "interval"}))
    for name, curve in curves.items():
        bounds = zip(curve.low or [None] * len(curve.x), curve.high or [None] * len(curve.x), strict=True)
        intervals = ["" if low is None or high is None else f"[{low:.1%}, {high:.1%}]" for low, high in bounds]
        line = go.Scatter(x=curve.x, y=_short(curve.mean), mode="lines+markers", name=name, customdata=intervals)
        line.update(line=_line(looks[name]), marker={"size": 5, "color": looks[name].colour})
        line.update(
            hovertemplate=f"%{{x:,.0f}} {AXES[axis]}<br>%{{y:.1%}} %{{customdata}}<extra>%{{fullData.name}}</extra>"
        )
        figure.add_trace(line.update(meta={"method": name, "part": "line"}))

    ends = [value for curve in curves.values() for value in (*curve.mean, *(curve.low or ()), *(curve.high or ()))]
    low, high = min(ends), max(ends)
    low, high = low - 0.04 * (high - low or 0.1), high + 0.04 * (high - low or 0.1)
    for name, curve in curves.items():  # the page moves the names to the right edge, and apart
        label = go.Scatter(x=[curve.x[-1]] * 2, y=_short([curve.mean[-1]] * 2), mode="lines+text", cliponaxis=False)
        label.update(text=["", f"<b>{_escaped(name)}</b>"], textposition="middle right", hoverinfo="skip")
        label.update(textfont={"color": looks[name].colour})
        label.update(line={"color": looks[name].transparent(0.45), "width": 1, "dash": "dot"})
        figure.add_trace(label.update(meta={"method": name, "part": "label"}))
    style(figure, CURVE_HEIGHT)
    figure.update_layout(
        showlegend=False,
        hovermode="closest",
        margin={"r": 16 + 7.4 * max(len(name) for name in curves)},
        xaxis={"title": {"text": AXES[axis], "standoff": 6}, "tickformat": "~s"},
        yaxis={"range": [low, high], "tickformat": "~%"},
    )
    if axis == "seconds":
        figure.update_xaxes(tickformat=",d")
    return figure.to_plotly_json()


def _forest(comparisons: Sequence[Comparison], looks: dict[str, Look]) -> dict[str, Any] | None:
    """The mean paired difference of each method and task, with its interval; filled where the verdict is clear."""
    rows: list[tuple[str, MethodSummary | None]] = []
    for comparison in comparisons:
        compared, task = _compared(comparison), f"<b>{_escaped(comparison.task)}</b>"
        if len(compared) == 1 and len(comparisons) > 1:
            rows.append((task, compared[0]))
        elif compared:
            rows += [(task, None)] if len(comparisons) > 1 else []
            rows += [(_escaped(method.method), method) for method in compared]
    if not rows:
        return None
    figure = go.Figure()
    for row, (_, method) in enumerate(rows):
        pair = method and method.final_difference
        if not method or not pair:
            continue
        mean, look = pair.difference, looks[method.method]
        texts = [
            f"{points(mean)} points over {len(pair.seeds)} seeds<br>",
            f"corrected p {p_value(pair.p_corrected)}: ",
        ]
        dot = go.Scatter(x=[_points(mean.value)], y=[row], mode="markers", name=method.method)
        dot.update(hovertemplate=f"{''.join(texts)}{pair.verdict}<extra>%{{fullData.name}}</extra>")
        dot.update(marker=_marker(look, "circle" if pair.verdict in MARKED else "circle-open", 10))
        if mean.low is not None and mean.high is not None:
            plus, minus = [_points(mean.high - mean.value)], [_points(mean.value - mean.low)]
            bar = {"type": "data", "symmetric": False, "array": plus, "arrayminus": minus}
            dot.update(error_x=bar | {"color": look.colour, "thickness": 2, "width": 5})
        figure.add_trace(dot.update(meta={"method": method.method, "part": "row"}))
    _rows_style(figure, [label for label, _ in rows])
    return figure.to_plotly_json()


def _compared(comparison: Comparison) -> list[MethodSummary]:
    """Who stands beside the baseline in the charts of differences: without the untrained, whose distance would crowd out all others'."""
    return [method for method in comparison.methods if method.final_difference and method.updates != 0]


def _seed_by_seed(comparison: Comparison, looks: dict[str, Look]) -> dict[str, Any]:
    """Every seed's difference to the baseline as a dot, and the mean as a bar."""
    (baseline,) = (method for method in comparison.methods if method.method == comparison.baseline)
    compared = _compared(comparison)
    crashed = {
        (run.method, run.seed) for method in comparison.methods for run in method.runs if run.status == "crashed"
    }
    figure = go.Figure()
    for row, method in enumerate(compared):
        pair, look = method.final_difference, looks[method.method]
        assert pair
        ours, theirs = (dict(zip(m.seeds, m.finals, strict=True)) for m in (method, baseline))
        texts = []
        for seed in pair.seeds:
            lost = [name for name in (method.method, comparison.baseline) if (name, seed) in crashed]
            note = f"<br>crashed: {_escaped(', '.join(lost))}" if lost else ""
            texts.append(f"seed {seed}: {ours[seed]:.1%} against {theirs[seed]:.1%}{note}")
        symbols = ["x" if (method.method, seed) in crashed else "circle" for seed in pair.seeds]
        offsets = [row + 0.28 * (2 * (at % 3) / 2 - 1) for at in range(len(pair.seeds))]  # three lanes
        dots = go.Scatter(x=[_points(d) for d in pair.differences], y=offsets, mode="markers", customdata=texts)
        dots.update(marker=_marker(look, symbols, 8) | {"opacity": 0.75}, name=method.method)
        dots.update(hovertemplate="%{x:+.1f} points<br>%{customdata}<extra>%{fullData.name}</extra>")
        mean = go.Scatter(x=[_points(pair.difference.value)], y=[row], mode="markers", hoverinfo="skip")
        mean.update(marker={"symbol": "line-ns", "size": 22, "line": {"width": 3, "color": look.colour}})
        figure.add_traces([trace.update(meta={"method": method.method, "part": "row"}) for trace in (mean, dots)])
    _rows_style(figure, [_escaped(method.method) for method in compared])
    figure.update_layout(height=_beside(len(compared)))
    better = [f"{m.method} ahead in {m.final_difference.improvement.value:.0%}" for m in compared if m.final_difference]
    return {
        "title": "Seed by seed",
        "meaning": f"Final accuracy minus {comparison.baseline}'s, in points: a dot a seed, a bar the mean. A cross is a "
        "seed that crashed.",
        "in_words": f"Share of seeds: {'; '.join(better)}",
        "figure": figure.to_plotly_json(),
    }


def _tuning(comparison: Comparison, looks: dict[str, Look]) -> dict[str, Any]:
    """Validation accuracy over the learning rate, the winner ringed."""
    figure = go.Figure()
    for tuned in comparison.tuning:
        look, name = looks[tuned.method], tuned.method
        rates = [trial.learning_rate for trial in tuned.trials]
        values = [trial.accuracy.value for trial in tuned.trials]
        texts = [f"learning rate {rate(t.learning_rate)}<br>{percent(t.accuracy)}" for t in tuned.trials]
        curve = go.Scatter(x=rates, y=_short(values), mode="lines+markers", name=name, customdata=texts)
        curve.update(line=_line(look) | {"width": 2}, marker={"size": 5, "color": look.colour})
        curve.update(hovertemplate="%{customdata}<extra>%{fullData.name}</extra>")
        best = go.Scatter(x=[tuned.learning_rate], y=_short([max(values)]), mode="markers", hoverinfo="skip")
        best.update(marker=_marker(look, "circle-open", 13))
        figure.add_traces([trace.update(meta={"method": name, "part": "line"}) for trace in (curve, best)])
    rates = sorted({trial.learning_rate for tuned in comparison.tuning for trial in tuned.trials})
    style(figure, _beside(len(comparison.methods) - 1))
    axis = {"type": "log", "tickmode": "array", "tickvals": rates, "ticktext": [rate(value) for value in rates]}
    figure.update_layout(
        showlegend=False,
        hovermode="closest",
        xaxis=axis | {"title": {"text": "learning rate", "standoff": 6}},
        yaxis={"tickformat": "~%"},
    )
    won = [f"{tuned.method} {rate(tuned.learning_rate)}" for tuned in comparison.tuning]
    return {
        "title": "Tuning",
        "meaning": "Mean accuracy on the validation problems at the end of training. The ring is the one that won.",
        "in_words": f"Best learning rates: {'; '.join(won)}",
        "figure": figure.to_plotly_json(),
    }


def _rows_style(figure: go.Figure, labels: Sequence[str]) -> None:
    """A row for each label from the top down, and a line at no difference."""
    style(figure, _height(len(labels)))
    figure.update_layout(
        showlegend=False,
        hovermode="closest",
        xaxis={"zeroline": True, "zerolinewidth": 1.5, "showgrid": True, "tickformat": "+~f", "rangemode": "tozero"},
        yaxis={"tickmode": "array", "tickvals": list(range(len(labels))), "ticktext": list(labels), "showgrid": False},
    )
    figure.update_xaxes(title={"text": "percentage points", "standoff": 6})
    figure.update_yaxes(range=[len(labels) - 0.4, -0.6], ticklabelstandoff=8)


def _height(num_rows: int) -> int:
    return max(120, 60 + ROW_HEIGHT * num_rows)


def _beside(num_rows: int) -> int:
    """The height of the two charts that stand side by side."""
    return max(250, _height(num_rows))


def _line(look: Look) -> dict[str, Any]:
    return {"color": look.colour, "dash": look.dash, "width": look.width}


def _marker(look: Look, symbol: str | list[str], size: int) -> dict[str, Any]:
    return {
        "symbol": symbol,
        "size": size,
        "color": look.colour,
        "line": {"width": 2 if size > 8 else 0, "color": look.colour},
    }


def _points(share: float) -> float:
    return round(share * 100, 3)


def _short(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _escaped(name: str) -> str:
    """A name inside plotly's small HTML."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
