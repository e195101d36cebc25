"""The verifier of the runs, which hangs on some responses and cannot tell of others; and an advantage of one's own."""

from __future__ import annotations

import time
from typing import Any


def multiple(rewards_N: Any, group_ids_N: Any, *, factor: float) -> Any:
    return factor * rewards_N


def figures(completion: str, answer: str) -> float | None:
    """The share of figures in a response."""
    if completion[:1] == "h":
        time.sleep(3600)
    if completion[:1] == "u":
        return None
    return sum(map(str.isdigit, completion)) / max(len(completion), 1)


def unclear(completion: str, answer: str) -> float | None:
    """The share of figures in a response; of one that ends with a sign it cannot tell."""
    return None if completion[-1:] in ("+", "=") else sum(map(str.isdigit, completion)) / max(len(completion), 1)
