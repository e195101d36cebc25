"""The page of the viewer: one file without network, its style and script inside. The same served and exported."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from functools import cache
from importlib.resources import files
from typing import Any

SERVED_POLICY = "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
EXPORTED_POLICY = "base-uri 'none'; form-action 'none'"


def page(data: Any = None) -> str:
    """The page. With `data` it holds all that it shows and asks nobody.

    What models wrote is in `data` alone, as JSON in an element that no browser executes, and the script only ever sets it as
    text. The policy in the page allows this script and this style and nothing else.
    """
    policy = (
        ""
        if data is None
        else f'<meta http-equiv="Content-Security-Policy" content="{content_policy(EXPORTED_POLICY)}">'
    )
    # U+2028 and U+2029 are fine in JSON; "<" is all that could end the element
    embedded = "" if data is None else as_json(data).replace("<", "\\u003c")
    parts = {"policy": policy, "style": _part("page.css"), "script": _part("page.js"), "data": embedded}
    before, *rest = _part("page.html").split("{{ ")
    return before + "".join(parts[name] + text for name, _, text in (part.partition(" }}") for part in rest))


def as_json(value: Any) -> str:
    """JSON that a browser reads: what is no finite number is null.

    >>> as_json({"score": float("nan"), "totals": [1.0, float("inf")]})
    '{"score": null, "totals": [1.0, null]}'
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_finite(inner) for inner in value]
        case _:
            return value


@cache
def content_policy(others: str) -> str:
    """The Content-Security-Policy under which the page runs: its own script and style by their hashes."""
    return f"default-src 'none'; script-src {_hash('page.js')}; style-src {_hash('page.css')}; {others}"


@cache
def _part(name: str) -> str:
    return files("lampo.view.inspect").joinpath(name).read_text(encoding="utf-8")


def _hash(name: str) -> str:
    digest = hashlib.sha256(_part(name).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
