"""What the pages of a run and of a comparison share: their frame, their colours and the look of their charts."""

from __future__ import annotations

import gzip
from base64 import b64encode
from functools import cache
from importlib.resources import files

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

# Okabe and Ito's colour-blind-safe colours, those with a contrast of 3:1 or better on both backgrounds.
BLUE, VERMILLION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7F7F7F"


def render(template: str, **values: object) -> str:
    """A page as text: a template of the package, with its own copy of plotly.js (packed: 2 MB, not 5)."""
    loader = jinja2.FunctionLoader(lambda name: files("lampo").joinpath(name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(plotly=_packed_plotly(), **values)


@cache
def _packed_plotly() -> str:
    return b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def style(figure: go.Figure, height: int = 250) -> None:
    """What all charts share. The colours of text and grid are set in the page, where the scheme is known."""
    axis = {"automargin": True, "zeroline": False, "showline": False, "fixedrange": False}
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 44, "r": 10, "t": 8, "b": 36},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 12},
        xaxis=axis | {"showgrid": False, "nticks": 6},
        yaxis=axis | {"nticks": 5, "exponentformat": "power"},
    )
