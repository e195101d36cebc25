"""Write `report.html`: a run as one self-contained page that needs no network, in light and dark."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import plotly.graph_objects as go

from ...store.files import write_file
from ...store.metrics import read_metrics, summary
from ...store.rollouts import Record, read_groups, rollout_steps
from ..charts import BLUE, GREEN, GREY, PURPLE, VERMILLION, render, style

POINTS_A_CURVE = 400  # a longer run is thinned to about this many
ROWS_A_TABLE = 12
GROUPS_A_STEP = 3
TEXT_HEAD, TEXT_TAIL = 8_000, 4_000  # characters kept of a longer text: its beginning, and its end with the answer

Points = list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric on a chart."""

    key: str
    label: str
    colour: str = BLUE


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart of the page; `unit` is a d3 and Python format alike."""

    title: str
    meaning: str
    curves: tuple[Curve, ...]
    unit: str = ".3g"
    kind: Literal["lines", "stacked", "interval"] = "lines"
    stage: str = "train"


CHARTS = (
    Chart(
        "Held-out accuracy",
        "On problems that are never trained on, with its 95\N{NO-BREAK SPACE}% interval. Step 0 is before training.",
        (
            Curve("evaluation/accuracy", "sampled responses", BLUE),
            Curve("evaluation/greedy/accuracy", "most likely response", VERMILLION),
        ),
        unit=".1%",
        kind="interval",
        stage="evaluation",
    ),
    Chart(
        "Reward",
        "Mean over the rollouts of a step, and its components.",
        (
            Curve("reward/total", "total", BLUE),
            Curve("reward/correctness", "correctness", VERMILLION),
            Curve("reward/likelihood", "likelihood", PURPLE),
            Curve("reward/rouge_l", "ROUGE-L", GREEN),
            Curve("reward/overlong", "overlong", GREY),
        ),
    ),
    Chart(
        "Entropy",
        "Nats a token. A fall towards 0 means that the policy has stopped exploring.",
        (Curve("loss/entropy", "entropy"),),
    ),
    Chart(
        "Completion length",
        "Tokens a rollout.",
        (Curve("rollouts/length_mean", "mean", BLUE), Curve("rollouts/length_max", "longest", VERMILLION)),
        unit=".4g",
    ),
    Chart(
        "Unfinished and unknown",
        "Share of rollouts cut at the length limit, and of those the verifier could not judge.",
        (Curve("rollouts/truncated", "cut", BLUE), Curve("rollouts/unknown", "unknown", VERMILLION)),
        unit=".1%",
    ),
    Chart(
        "Without a gradient",
        "Share of groups whose rewards are all equal, and of rows with an advantage of 0.",
        (
            Curve("advantage/groups_without_spread", "groups", BLUE),
            Curve("advantage/rows_without_gradient", "rows", VERMILLION),
        ),
        unit=".1%",
    ),
    Chart(
        "Is the better one likelier?",
        "How often it is, of two responses of a group with different rewards. At 50 % confidence says nothing of what is right. "
        "LamPO's weight pushes groups up as a whole where it is above that, and down where it is below.",
        (Curve("advantage/concordance", "concordance"),),
        unit=".1%",
    ),
    Chart(
        "Saturation of the pair weights",
        "Share of pairs whose scores differ by over five temperatures: their weights no longer change.",
        (Curve("advantage/saturation", "saturated pairs"),),
        unit=".1%",
    ),
    Chart(
        "Clipped tokens",
        "Share of tokens whose probability ratio left the clip range below or above.",
        (Curve("loss/clip_fraction_low", "below", BLUE), Curve("loss/clip_fraction_high", "above", VERMILLION)),
        unit=".2%",
    ),
    Chart(
        "Distance from other policies",
        "KL divergence, in nats a token, from the policy that sampled and from the reference.",
        (Curve("loss/kl_old", "sampling policy", BLUE), Curve("loss/kl_ref", "reference", VERMILLION)),
    ),
    Chart("Gradient norm", "Before clipping.", (Curve("optimizer/gradient_norm", "norm"),)),
    Chart("Learning rate", "As scheduled.", (Curve("optimizer/learning_rate", "learning rate"),)),
    Chart(
        "Time a step",
        "Seconds, by what they were spent on.",
        (
            Curve("time/sample", "sample", BLUE),
            Curve("time/verify", "verify", GREY),
            Curve("time/score", "score", VERMILLION),
            Curve("time/update", "update", GREEN),
            Curve("time/evaluate", "evaluate", PURPLE),
        ),
        kind="stacked",
    ),
    Chart(
        "Tokens per second", "Sampled tokens over the time of a step.", (Curve("time/tokens_per_s", "tokens/s"),), ".4g"
    ),
    Chart(
        "Memory",
        "Peak of the accelerator, or of the process where there is none, in GiB.",
        (Curve("memory/peak_gib", "peak"),),
    ),
    Chart("Warm-start loss", "Before the first rollout.", (Curve("loss/value", "loss"),), stage="warmstart"),
)


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
    page = render(
        "view/report/page.html.j2",
        name=run.resolve().name,
        facts=_facts(metrics),
        accuracy=next((row for row in rows if row.measure == "held-out accuracy"), None),
        rows=rows,
        command=manifest.pop("command", ""),
        manifest=manifest,
        config=config.read_text(encoding="utf-8") if config.is_file() else "",
        charts=list(_charts(metrics)),
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


def _facts(metrics: Sequence[Record]) -> list[tuple[str, str]]:
    """The size of the run in a few numbers."""
    train = [record for record in metrics if record["stage"] == "train"]
    seconds = sum(record.get("time/total", 0.0) for record in metrics)
    tokens = sum(record.get("rollouts/tokens", 0) for record in train)
    facts = [("steps", f"{train[-1]['step']:,}" if train else "0"), ("time", str(timedelta(seconds=round(seconds))))]
    return facts + ([("tokens sampled", f"{tokens:,.0f}")] if tokens else [])


# Curves --------------------------------------------------------------------------------------------------------------


def _charts(metrics: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """What the template needs of each chart that has data: its figure, and the same numbers as a table and in words."""
    for chart in CHARTS:
        records = [record for record in metrics if record["stage"] == chart.stage]
        curves = {curve: points for curve in chart.curves if (points := _points(records, curve.key))}
        if not curves:
            continue
        smooth = chart.kind == "lines" and chart.title != "Learning rate"
        averages = {curve: _moving_average(points) if smooth else points for curve, points in curves.items()}
        if chart.kind == "interval":
            figure = _interval_figure(records, list(curves))
        elif chart.kind == "stacked":
            figure = _stacked_figure(records, list(curves))
        else:
            figure = _lines_figure(curves, averages)
        _style(figure, chart, num_curves=len(curves))
        changes = [
            f"{curve.label} from {points[0][1]:{chart.unit}} to {points[-1][1]:{chart.unit}}"
            for curve, points in averages.items()
        ]
        yield {
            "title": chart.title,
            "meaning": chart.meaning,
            "in_words": f"{chart.title}: {'; '.join(changes)}",
            "figure": figure.to_plotly_json(),
            "labels": [curve.label for curve in curves],
            "table": _table(list(averages.values()), chart.unit),
        }


def _points(records: Sequence[Record], key: str) -> Points:
    """The (step, value) pairs of a metric where it was recorded and finite."""
    values = ((record["step"], record.get(key)) for record in records)
    return [(step, value) for step, value in values if value is not None and math.isfinite(value)]


def _moving_average(points: Points) -> Points:
    """The mean over a centred window of about a twentieth of the run; a run under 20 steps is left as it is."""
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


def _coordinates(points: Points) -> dict[str, list[float]]:
    return {"x": [step for step, _ in points], "y": [float(f"{value:.5g}") for _, value in points]}


def _lines_figure(curves: dict[Curve, Points], averages: dict[Curve, Points]) -> go.Figure:
    """Each metric as a thin line of what was measured under a stronger one of its moving average."""
    figure = go.Figure()
    for curve, points in curves.items():
        if averages[curve] != points:
            line = {"color": curve.colour, "width": 1}
            raw = go.Scatter(_coordinates(_extremes(points)), mode="lines", line=line, opacity=0.28)
            figure.add_trace(raw.update(hoverinfo="skip", showlegend=False, legendgroup=curve.label))
    for curve, points in averages.items():
        average = go.Scatter(
            _coordinates(_thinned(points, POINTS_A_CURVE)), mode="lines" if len(points) > 1 else "markers"
        )
        line = {"color": curve.colour, "width": 2}
        figure.add_trace(average.update(line=line, name=curve.label, legendgroup=curve.label))
    return figure


def _interval_figure(records: Sequence[Record], curves: Sequence[Curve]) -> go.Figure:
    """Estimates, each with the band of its 95 % interval."""
    figure = go.Figure()
    for curve in curves:
        measure = curve.key.rpartition("/")[0]
        bounded = _thinned(_points(records, curve.key), POINTS_A_CURVE)
        low, high = (dict(_points(records, f"{measure}/{bound}")) for bound in ("low", "high"))
        band = [step for step, _ in bounded if step in low and step in high]
        if band:
            outline = go.Scatter(
                x=band + band[::-1],
                y=[high[step] for step in band] + [low[step] for step in reversed(band)],
                mode="lines",
                fill="toself",
                fillcolor=curve.colour,
                opacity=0.18,
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=curve.label,
            )
            figure.add_trace(outline)
        intervals = [f"[{low[step]:.1%}, {high[step]:.1%}]" if step in band else "" for step, _ in bounded]
        markers = {"size": 6 if len(bounded) <= 50 else 3, "color": curve.colour}
        line = {"color": curve.colour, "width": 2}
        estimate = go.Scatter(_coordinates(bounded), mode="lines+markers", line=line, marker=markers, name=curve.label)
        estimate.update(customdata=intervals, hovertemplate="%{fullData.name}: %{y} %{customdata}<extra></extra>")
        figure.add_trace(estimate.update(legendgroup=curve.label))
    return figure


def _stacked_figure(records: Sequence[Record], curves: Sequence[Curve]) -> go.Figure:
    """The means of stretches of steps, one on another; a step that did not do something spent no time on it."""
    size = math.ceil(len(records) / (POINTS_A_CURVE // 4))
    stretches = [records[start : start + size] for start in range(0, len(records), size)]
    figure = go.Figure()
    for curve in curves:
        means = [
            (stretch[len(stretch) // 2]["step"], sum(record.get(curve.key) or 0.0 for record in stretch) / len(stretch))
            for stretch in stretches
        ]
        area = go.Scatter(
            _coordinates(means), mode="lines", stackgroup="time", line={"color": curve.colour, "width": 0.5}
        )
        figure.add_trace(area.update(name=curve.label))
    return figure


def _style(figure: go.Figure, chart: Chart, num_curves: int) -> None:
    share = chart.unit.endswith("%")
    legend = {"orientation": "h", "traceorder": "normal", "xref": "container", "yref": "container"}
    style(figure)
    figure.update_layout(
        hovermode="x unified",
        showlegend=num_curves > 1,
        legend=legend | {"x": 0, "y": 1, "yanchor": "top"},
        xaxis={"title": {"text": "step", "standoff": 6}, "hoverformat": ",d"},
        yaxis={"hoverformat": chart.unit, "tickformat": "~%" if share else ""},
    )
    if chart.kind != "interval" and chart.title not in ("Warm-start loss", "Reward"):
        figure.update_yaxes(rangemode="tozero")


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
        groups = sorted(read_groups(run, step), key=_spread, reverse=True)
        shown = [_group(group) for group in groups[:GROUPS_A_STEP]]
        sampled.append({"step": step, "num_groups": len(groups), "groups": shown})
    return sampled


def _valid(rollout: Record) -> bool:
    return rollout.get("total") is not None


def _spread(group: Record) -> float:
    totals = [rollout["total"] for rollout in group["rollouts"] if _valid(rollout)]
    return max(totals) - min(totals) if totals else -1.0


def _group(group: Record) -> dict[str, Any]:
    """A group with its best and worst rollout first; those of unknown verdict come last."""

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
    numbers = (
        ("reward", "total", ".3f"),
        ("correctness", "correctness", ".3g"),
        ("likelihood", "likelihood", ".3f"),
        ("ROUGE-L", "rouge_l", ".3f"),
        ("overlong", "overlong", ".3f"),
        ("score", "score", ".3f"),
        ("advantage", "advantage", "+.3f"),
        ("tokens", "length", ","),
    )
    return {
        "status": rollout["status"],
        "extracted": rollout.get("extracted"),
        "detail": rollout.get("detail") or "",
        "numbers": [(label, f"{rollout[key]:{form}}") for label, key, form in numbers if rollout.get(key) is not None],
        "finished": rollout.get("finished", True),
        "text": _shortened(rollout["text"]),
    }


def _shortened(text: str) -> str:
    left_out = len(text) - TEXT_HEAD - TEXT_TAIL
    if left_out <= 0:
        return text
    return f"{text[:TEXT_HEAD]}\n\n[… {left_out:,} characters left out …]\n\n{text[-TEXT_TAIL:]}"
