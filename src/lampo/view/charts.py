"""What the pages of a run and of a comparison share: their frame, their colours, and the one way to make a chart.

A chart is what plotly.js reads: a dict of traces and a layout. The page draws it, so nothing here runs plotly's Python.
"""

from __future__ import annotations

import gzip
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2

# Okabe and Ito's colour-blind-safe colours, those with a contrast of 3:1 or better on both backgrounds.
BLUE, VERMILLION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7F7F7F"

Trace = dict[str, Any]
Figure = dict[str, Any]


def render(template: str, **values: object) -> str:
    """A page as text: a template of the package, with its own copy of plotly.js (packed: 2 MB, not 5)."""
    loader = jinja2.FunctionLoader(lambda name: files("lampo").joinpath(name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(plotly=_packed_plotly(), **values)


@cache
def _packed_plotly() -> str:
    from plotly.offline import get_plotlyjs

    return b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def scatter(x: Sequence[float], y: Sequence[float], mode: str, **properties: Any) -> Trace:
    """A trace of points or lines. Its values have five digits, which no screen can tell from more."""
    return {"type": "scatter", "x": [*x], "y": [float(f"{value:.5g}") for value in y], "mode": mode, **properties}


def figure(traces: Sequence[Trace], height: int = 250, **layout: Any) -> Figure:
    """A chart in the look that all share. The colours of text and grid are set in the page, where the scheme is known."""
    axis = {"automargin": True, "zeroline": False, "showline": False, "fixedrange": False}
    shared = {
        "height": height,
        "margin": {"l": 44, "r": 10, "t": 8, "b": 36},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 12},
        "xaxis": axis | {"showgrid": False, "nticks": 6},
        "yaxis": axis | {"nticks": 5, "exponentformat": "power"},
    }
    return {"data": [*traces], "layout": _merged(shared, layout)}


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both, key by key. Where both have a value, that of `above`, and of two dicts again both."""
    merged = below | above
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _merged(below[key], above[key])
    return merged
