"""A few groups as one file that can be mailed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...store.files import write_file
from ...types import LampoError
from .server import group_pairs
from .source import Source
from .viewer_page import page


def export(source: Source, file: Path, *, step: int | None = None, groups: int = 32) -> int:
    """Write the most telling groups, of all steps or of one, into one file with all that the page shows of them.

    Telling are those with the largest advantage, and among equals those with the largest spread of rewards.

    Returns:
        how many groups there are in it.

    Raises:
        LampoError: there is no such step, or no group at all.
    """
    index = source.index() if step is None else source.index(str(step), 0)
    eligible = [line for line in index["groups"] if step is None or line["place"] == str(step)]
    if not eligible:
        where = "" if step is None else f" of step {step}"
        raise LampoError(f"{source.path} has no groups{where}. {' '.join(index['complaints'])}".strip())
    telling = sorted(eligible, key=_weight, reverse=True)[:groups]
    order = {(line["place"], line["number"]) for line in telling}
    kept = [line for line in eligible if (line["place"], line["number"]) in order]
    shown = {
        f"{line['place']}/{line['number']}": {
            "group": source.group(line["place"], line["number"]),
            "pairs": group_pairs(source, line["place"], line["number"]),
        }
        for line in kept
    }
    places = [place for place in index["places"] if any(line["place"] == place for line in kept)]
    excerpt = {"shown": len(kept), "of": len(index["groups"])}
    write_file(
        file.absolute(),
        page({"index": index | {"groups": kept, "places": places, "excerpt": excerpt}, "groups": shown}).encode(
            errors="replace"
        ),
    )
    return len(kept)


def _weight(line: dict[str, Any]) -> tuple[float, float]:
    return line["advantage"] or 0.0, line["spread"] or 0.0
