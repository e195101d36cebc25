"""A guess at what was meant by a name that nobody knows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that ends a sentence before it, or nothing where no name is near.

    >>> did_you_mean("quickstar", ["quickstart", "qwen3-4b-mot"])
    ' Did you mean quickstart?'
    >>> did_you_mean("x", ["quickstart"])
    ''
    """
    lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    return f" Did you mean {lower[near[0]]}?" if near else ""
