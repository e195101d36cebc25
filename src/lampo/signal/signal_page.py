"""Write `signal.html`: an answer as one self-contained page."""

from __future__ import annotations

from typing import Any

from ..view.charts import BLUE, GREEN, GREY, PURPLE, VERMILLION, Figure, Trace, figure, render, scatter
from .answer import Answer, in_words
from .statistics import Versus
from .table import HOW_TO_READ, facts, tables

COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, GREY)
ROW_HEIGHT = 30


def signal_page(answer: Answer, *, command: str, versions: dict[str, str]) -> str:
    """The page as text. It holds its own copy of plotly.js and loads nothing."""
    return render(
        "signal/page.html.j2",
        name=answer.name,
        baseline=answer.baseline,
        facts=facts(answer),
        words=in_words(answer),
        charts=_charts(answer),
        tables=tables(answer),
        how_to_read=HOW_TO_READ,
        command=command,
        versions=versions,
    )


def _charts(answer: Answer) -> list[dict[str, Any]]:
    """The charts that have something to show: where even the baseline is noise there is no difference to draw."""
    verdicts, size = answer.verdicts, answer.group_sizes[0]
    names = sorted(answer.estimators, key=lambda name: -answer.find(verdicts[0], size, "adam", name).signal)
    by_verdicts = {each: {name: answer.find(each, size, "adam", name) for name in names} for each in verdicts}
    by_size = {
        f"groups of {each}": {name: answer.find(verdicts[0], each, "adam", name) for name in answer.by_size}
        for each in reversed(answer.group_sizes)
    }
    charts = [
        (
            f"Signal against {answer.baseline}",
            "In percent, with 95 % intervals over groups. Filled: better or worse.",
            "The same numbers are in the tables",
            names,
            by_verdicts,
        ),
        (
            "Group sizes",
            f"{verdicts[0].capitalize()}, against {answer.baseline} in groups of {size}, at the same number of rollouts a step.",
            "The same numbers are in the table of group sizes",
            [name for name in names if name in answer.by_size],
            by_size if len(by_size) > 1 else {},
        ),
    ]
    drawn = []
    for title, meaning, stead, rows, series in charts:
        told = {label: each for label, each in series.items() if _tells(each)}
        if told:
            drawn.append({"title": title, "meaning": meaning, "in_words": stead, "figure": _forest(rows, told)})
    return drawn


def _tells(rows: dict[str, Versus]) -> bool:
    return any(each.difference is not None and each.verdict != "baseline" for each in rows.values())


def _forest(names: list[str], series: dict[str, dict[str, Versus]]) -> Figure:
    """A row for each estimator, and in it a point with its interval for each series."""
    traces = [
        _points(label, number, len(series), names, rows, COLOURS[number % len(COLOURS)])
        for number, (label, rows) in enumerate(series.items())
    ]
    height = 90 + max(ROW_HEIGHT, 13 * len(series)) * len(names)
    yaxis = {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": names, "showgrid": False}
    return figure(
        traces,
        height,
        hovermode="closest",
        legend={"orientation": "h", "y": -60 / height, "traceorder": "normal"},
        margin={"b": 70},
        xaxis={
            "zeroline": True,
            "zerolinewidth": 1.5,
            "showgrid": True,
            "tickformat": "~f",
            "title": {"text": "percent", "standoff": 6},
        },
        yaxis=yaxis | {"range": [len(names) - 0.4, -0.6], "ticklabelstandoff": 8},
    )


def _points(label: str, number: int, of: int, names: list[str], rows: dict[str, Versus], colour: str) -> Trace:
    shown = [(row, rows[name]) for row, name in enumerate(names) if rows[name].difference is not None]
    offset = 0.5 * ((number + 0.5) / of - 0.5)
    values = [100 * (each.difference or 0) for _, each in shown]
    trace = scatter([round(value, 3) for value in values], [row + offset for row, _ in shown], "markers", name=label)
    trace["marker"] = {
        "symbol": ["circle" if each.verdict in ("better", "worse") else "circle-open" for _, each in shown],
        "size": 8,
        "color": colour,
    }
    trace["error_x"] = {
        "type": "data",
        "symmetric": False,
        "array": [round(100 * (each.high or 0) - value, 3) for (_, each), value in zip(shown, values, strict=True)],
        "arrayminus": [round(value - 100 * (each.low or 0), 3) for (_, each), value in zip(shown, values, strict=True)],
        "color": colour,
        "thickness": 1.5,
        "width": 3,
    }
    trace["customdata"] = [each.verdict for _, each in shown]
    trace["hovertemplate"] = "%{x:+.1f} %: %{customdata}<extra>%{fullData.name}</extra>"
    return trace
