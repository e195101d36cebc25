"""Write `report.html`: a run as one self-contained page that needs no network, in light and dark.

It opens with what a practitioner reads first: the method, the model, accuracy before and after, and five cards. The rest is folded.
"""

from __future__ import annotations

import json
import logging
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

from ...store.files import write_file
from ...store.metrics import nothing_trained, read_metrics, summary
from ...store.rollouts import NO_GROUP, Record, read_groups, rollout_steps
from ...types import LampoError
from ..charts import GREEN, GREY, PURPLE, VERMILLION, Figure, Trace, figure, render, scatter
from ..settings import read_settings
from .chart_list import CARDS, MORE_CHARTS, Chart, Curve

logger = logging.getLogger("lampo")

POINTS_A_CURVE = 400  # a longer run is thinned to about this many
ROWS_A_TABLE = 12
GROUPS_A_STEP = 3
TEXT_HEAD, TEXT_TAIL = 8_000, 4_000  # characters kept of a longer text: its beginning, and its end with the answer
OLD_PARTS = ("correctness", "likelihood", "rouge_l", "overlong")  # of a reward, in shards that do not name them
FLAT = 1e-6  # a range this small beside the value is no movement that anyone could see

Points = list[tuple[int, float]]


def write_report(run: Path) -> Path:
    """Write `report.html` into the run directory and return its path.

    The page holds its own copy of plotly.js and loads nothing. It is written aside and renamed, so that a reader
    never meets half a page. Whatever the run has not recorded is left out.

    Raises:
        LampoError: the run has no readable `metrics.jsonl`, or a file of rollouts is damaged.
    """
    metrics = read_metrics(run)
    rows = summary(metrics)
    manifest = _manifest(run)
    config = run / "config.yaml"
    settings = config.read_text(encoding="utf-8") if config.is_file() else ""
    cards, more = ([_drawn(chart, metrics) for chart in charts] for charts in (CARDS, MORE_CHARTS))
    page = render(
        "view/report/page.html.j2",
        name=run.resolve().name,
        facts=[*_identity(read_settings(settings)), *_size(metrics)],
        nothing_trained=nothing_trained(metrics),
        accuracy=next((row for row in rows if row.measure == "held-out accuracy"), None),
        rows=rows,
        command=manifest.pop("command", ""),
        manifest=manifest,
        config=settings,
        cards=[chart.card for chart in cards if chart.card],
        more=[chart.card for chart in more if chart.card],
        undrawn=_in_groups([entry for chart in (*cards, *more) for entry in chart.undrawn]),
        steps=_sampled_rollouts(run),
    )
    path = run / "report.html"
    write_file(path, page.encode())
    return path


def _manifest(run: Path) -> dict[str, str]:
    """The manifest as flat text: nested keys joined by a dot, the command as it would be typed."""
    path = run / "manifest.json"
    if not path.is_file():
        return {}

    def flatten(value: Any, name: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from flatten(inner, f"{name}.{key}" if name and name != "versions" else key)
        elif isinstance(value, list):
            yield name, shlex.join(str(item) for item in value)
        elif value is not None:
            yield name, str(value)

    return dict(flatten(json.loads(path.read_text(encoding="utf-8")), ""))


def _identity(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """What was trained with what: the method, the model and the task."""
    model, task = settings.get("model") or {}, settings.get("task") or {}
    advantage = settings.get("advantage") or {}
    scratch = (model.get("config") or {}).get("model_type")
    kind = model.get("path") or (f"{scratch} from scratch" if scratch else "")
    facts = {
        "method": settings.get("method") or advantage.get("name"),
        "model": f"{kind}, LoRA" if kind and model.get("lora") else kind,
        "task": task.get("name"),
    }
    return [(label, str(value)) for label, value in facts.items() if value]


def _size(metrics: Sequence[Record]) -> list[tuple[str, str]]:
    """The size of the run in a few numbers."""
    train = [record for record in metrics if record["stage"] == "train"]
    seconds = sum(record.get("time/total", 0.0) for record in metrics)
    tokens = sum(record.get("rollouts/tokens", 0) for record in train)
    facts = [("steps", f"{train[-1]['step']:,}" if train else "0"), ("time", str(timedelta(seconds=round(seconds))))]
    return facts + ([("tokens sampled", f"{tokens:,.0f}")] if tokens else [])


# Curves --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drawn:
    """What became of a chart.

    Attributes:
        card: for the template: the figure, and the same numbers as a table and in words. None without a curve to draw.
        undrawn: why a curve is not drawn, and which.
    """

    card: dict[str, Any] | None
    undrawn: tuple[tuple[str, str], ...] = ()


def _drawn(chart: Chart, metrics: Sequence[Record]) -> Drawn:
    """The chart with those of its curves that have data and move."""
    records = [record for record in metrics if record["stage"] == chart.stage]
    found = {curve: points for curve in _curves(chart, records) if (points := _points(records, curve.key))}
    flat = {curve: reason for curve, points in found.items() if (reason := _why_flat(points, chart))}
    curves = {curve: points for curve, points in found.items() if curve not in flat}
    undrawn = tuple(
        (reason, _full_name(chart, curve) + (f" {found[curve][0][1]:{chart.unit}}" if reason == "Constant" else ""))
        for curve, reason in flat.items()
    )
    if not curves:
        return Drawn(None, undrawn)
    smooth = chart.kind == "lines" and chart.title != "Learning rate"
    averages = {curve: _moving_average(points) if smooth else points for curve, points in curves.items()}
    if chart.kind == "interval":
        traces = _interval_traces(records, list(curves))
    elif chart.kind == "stacked":
        traces = _stacked_traces(records, list(curves))
    else:
        traces = _line_traces(curves, averages)
    changes = [
        f"{curve.label} from {points[0][1]:{chart.unit}} to {points[-1][1]:{chart.unit}}"
        for curve, points in averages.items()
    ]
    card = {
        "title": chart.title,
        "meaning": chart.meaning + _also(chart, records),
        "good": chart.good,
        "in_words": f"{chart.title}: {'; '.join(changes)}",
        "figure": _figure(traces, chart, num_curves=len(curves)),
        "labels": [curve.label for curve in curves],
        "table": _table(list(averages.values()), chart.unit),
    }
    return Drawn(card, undrawn)


def _also(chart: Chart, records: Sequence[Record]) -> str:
    points = _points(records, chart.also.key) if chart.also else []
    return f" {chart.also.label}: {_moving_average(points)[-1][1]:.1%} at the end." if chart.also and points else ""


def _curves(chart: Chart, records: Sequence[Record]) -> list[Curve]:
    """Those that are named, and those found by `every`. A part of the reward that is all of it is left out."""
    named = {curve.key: curve for curve in chart.curves}
    if not chart.every:
        return list(named.values())
    colours = cycle((VERMILLION, GREEN, PURPLE, GREY))
    keys = dict.fromkeys(key for record in records for key in record if key.startswith(chart.every))
    whole = [_points(records, key) for key in named]
    found = [key for key in keys if key not in named and _points(records, key) not in whole]
    labels = (key.removeprefix(chart.every) for key in found)
    return [*named.values(), *(Curve(*curve) for curve in zip(found, labels, colours, strict=False))]


def _why_flat(points: Points, chart: Chart) -> str | None:
    """Why a curve shows nothing: it is zero, rounding noise, or one value."""
    values = [value for _, value in points]
    largest = max(abs(value) for value in values)
    if largest == 0:
        return "Zero throughout"
    if largest <= chart.noise:
        return "Rounding noise, which is zero"
    # an accuracy that does not move is a finding, and has an interval
    if len(values) > 1 and chart.kind == "lines" and max(values) - min(values) <= FLAT * largest:
        return "Constant"
    return None


def _full_name(chart: Chart, curve: Curve) -> str:
    title = chart.title[0].lower() + chart.title[1:] if not chart.title.startswith("KL") else chart.title
    return title if len(chart.curves) == 1 and not chart.every else f"{title} ({curve.label})"


def _in_groups(undrawn: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The curves that are not drawn, by reason."""
    reasons = dict.fromkeys(reason for reason, _ in undrawn)
    return [(reason, ", ".join(name for why, name in undrawn if why == reason)) for reason in reasons]


def _points(records: Sequence[Record], key: str) -> Points:
    """The (step, value) pairs of a metric where it was recorded and finite."""
    values = ((record["step"], record.get(key)) for record in records)
    return [(step, value) for step, value in values if value is not None and math.isfinite(value)]


def _moving_average(points: Points) -> Points:
    """The mean over a centred window of about a twentieth of the run. A run under 20 steps is left as it is."""
    reach = math.ceil(len(points) / 40) if len(points) >= 20 else 0
    if reach == 0:
        return points
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    averages = []
    for index, (step, _) in enumerate(points):
        first, last = max(0, index - reach), min(len(points), index + reach + 1)
        averages.append((step, (sums[last] - sums[first]) / (last - first)))
    return averages


def _thinned(points: Points, limit: int) -> Points:
    """At most about `limit` points, evenly spread, the first and the last among them."""
    if len(points) <= limit:
        return points
    return [points[round(index * (len(points) - 1) / (limit - 1))] for index in range(limit)]


def _extremes(points: Points) -> Points:
    """The lowest and the highest point of each stretch, so that a thinned curve keeps its spikes."""
    if len(points) <= POINTS_A_CURVE:
        return points
    size = math.ceil(2 * len(points) / POINTS_A_CURVE)
    kept = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        kept += sorted({min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])})
    return kept


def _line_traces(curves: dict[Curve, Points], averages: dict[Curve, Points]) -> list[Trace]:
    """Each metric as a thin line of what was measured under a stronger one of its moving average."""
    traces = []
    for curve, points in curves.items():
        if averages[curve] != points:
            raw = _trace(_extremes(points), "lines", curve, width=1, opacity=0.28)
            traces.append(raw | {"hoverinfo": "skip", "showlegend": False})
    for curve, points in averages.items():
        mode = "lines" if len(points) > 1 else "markers"
        traces.append(_trace(_thinned(points, POINTS_A_CURVE), mode, curve, width=2))
    return traces


def _trace(points: Points, mode: str, curve: Curve, width: float, **properties: Any) -> Trace:
    line = {"color": curve.colour, "width": width}
    steps, values = [step for step, _ in points], [value for _, value in points]
    return scatter(steps, values, mode, line=line, name=curve.label, legendgroup=curve.label, **properties)


def _interval_traces(records: Sequence[Record], curves: Sequence[Curve]) -> list[Trace]:
    """Estimates, each with the band of its 95 % interval."""
    traces = []
    for curve in curves:
        measure = curve.key.rpartition("/")[0]
        bounded = _thinned(_points(records, curve.key), POINTS_A_CURVE)
        low, high = (dict(_points(records, f"{measure}/{bound}")) for bound in ("low", "high"))
        band = [step for step, _ in bounded if step in low and step in high]
        if band:
            outline = [(step, high[step]) for step in band] + [(step, low[step]) for step in reversed(band)]
            filled = _trace(outline, "lines", curve, width=0, fill="toself", fillcolor=curve.colour, opacity=0.18)
            traces.append(filled | {"hoverinfo": "skip", "showlegend": False})
        intervals = [f"[{low[step]:.1%}, {high[step]:.1%}]" if step in band else "" for step, _ in bounded]
        markers = {"size": 6 if len(bounded) <= 50 else 3, "color": curve.colour}
        estimate = _trace(bounded, "lines+markers", curve, width=2, marker=markers, customdata=intervals)
        traces.append(estimate | {"hovertemplate": "%{fullData.name}: %{y} %{customdata}<extra></extra>"})
    return traces


def _stacked_traces(records: Sequence[Record], curves: Sequence[Curve]) -> list[Trace]:
    """The means of stretches of steps, one on another. A step that did not do something spent no time on it."""
    size = math.ceil(len(records) / (POINTS_A_CURVE // 4))
    stretches = [records[start : start + size] for start in range(0, len(records), size)]
    traces = []
    for curve in curves:
        means = [
            (stretch[len(stretch) // 2]["step"], sum(record.get(curve.key) or 0.0 for record in stretch) / len(stretch))
            for stretch in stretches
        ]
        traces.append(_trace(means, "lines", curve, width=0.5, stackgroup="time"))
    return traces


def _figure(traces: Sequence[Trace], chart: Chart, num_curves: int) -> Figure:
    share = chart.unit.endswith("%")
    legend = {"orientation": "h", "traceorder": "normal", "xref": "container", "yref": "container"}
    yaxis = {"hoverformat": chart.unit, "tickformat": "~%" if share else ""}
    if chart.kind != "interval" and chart.title not in ("Warm-start loss", "Reward"):
        yaxis["rangemode"] = "tozero"
    return figure(
        traces,
        hovermode="x unified",
        showlegend=num_curves > 1,
        legend=legend | {"x": 0, "y": 1, "yanchor": "top"},
        xaxis={"title": {"text": "step", "standoff": 6}, "hoverformat": ",d"},
        yaxis=yaxis,
    )


def _table(curves: Sequence[Points], unit: str) -> list[tuple[int, list[str]]]:
    """A dozen steps of the curves in numbers, for those who cannot see or hover over them."""
    values = [dict(points) for points in curves]
    steps = _thinned([(step, 0.0) for step in sorted(set().union(*values))], ROWS_A_TABLE)
    return [(step, [f"{value[step]:{unit}}" if step in value else "" for value in values]) for step, _ in steps]


# Rollouts ------------------------------------------------------------------------------------------------------------


def _sampled_rollouts(run: Path) -> list[dict[str, Any]]:
    """The first, the middle and the last step that was kept, with those groups whose rewards differ most."""
    steps = rollout_steps(run)
    chosen = sorted({steps[0], steps[len(steps) // 2], steps[-1]}) if steps else []
    sampled = []
    for step in chosen:
        try:
            groups = sorted(read_groups(run, step), key=_spread, reverse=True)
            shown = [_group(group) for group in groups[:GROUPS_A_STEP]]
        except (LampoError, ValueError, *NO_GROUP) as error:  # the rest of the report is none the worse
            logger.warning("The report leaves out the rollouts of step %d: %s", step, error)
            continue
        sampled.append({"step": step, "num_groups": len(groups), "groups": shown})
    return sampled


def _valid(rollout: Record) -> bool:
    return rollout.get("total") is not None


def _spread(group: Record) -> float:
    totals = [rollout["total"] for rollout in group["rollouts"] if _valid(rollout)]
    return max(totals) - min(totals) if totals else -1.0


def _group(group: Record) -> dict[str, Any]:
    """A group with its best and worst rollout first. Those of unknown verdict come last."""

    def rank(rollout: Record) -> tuple[bool, float, float]:
        return _valid(rollout), rollout.get("total") or 0.0, rollout.get("advantage") or 0.0

    ordered = [_rollout(rollout) for rollout in sorted(group["rollouts"], key=rank, reverse=True)]
    num_valid = sum(_valid(rollout) for rollout in group["rollouts"])
    ends = {"Best": 0, "Worst": num_valid - 1} if num_valid > 1 else {"Best": 0} if num_valid else {}
    return {
        "problem": {key: value and _shortened(str(value)) for key, value in group["problem"].items()},
        "num_right": sum(rollout["status"] == "right" for rollout in group["rollouts"]),
        "ends": [(label, ordered[index]) for label, index in ends.items()],
        "rest": [rollout for index, rollout in enumerate(ordered) if index not in ends.values()],
        "num_rollouts": len(ordered),
    }


def _rollout(rollout: Record) -> dict[str, Any]:
    """One rollout as text: its verdict, the parts of its reward, and what the method made of it."""
    parts = rollout.get("rewards") or {name: rollout.get(name) for name in OLD_PARTS}
    numbers = (
        ("reward", rollout.get("total"), ".3f"),
        *((name, value, ".3g") for name, value in parts.items()),
        ("score", rollout.get("score"), ".3f"),
        ("advantage", rollout.get("advantage"), "+.3f"),
        ("tokens", rollout.get("length"), ","),
    )
    return {
        "status": rollout["status"],
        "extracted": rollout.get("extracted"),
        "detail": rollout.get("detail") or "",
        "numbers": [(label, f"{value:{form}}") for label, value, form in numbers if value is not None],
        "finished": rollout.get("finished", True),
        "text": _shortened(rollout["text"]),
    }


def _shortened(text: str) -> str:
    left_out = len(text) - TEXT_HEAD - TEXT_TAIL
    if left_out <= 0:
        return text
    return f"{text[:TEXT_HEAD]}\n\n[… {left_out:,} characters left out …]\n\n{text[-TEXT_TAIL:]}"
