"""Sets of real numbers as pieces in order, and what becomes of them under union, intersection and complement."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

from .tree import Node


@dataclass(frozen=True, slots=True)
class End:
    """An end of a piece."""

    node: Node | None  # None: infinite
    order: Any  # a number of mpmath, or a float infinity
    closed: bool


Piece = tuple[End, End]


def _order(piece: Piece) -> tuple[Any, bool]:
    return piece[0].order, not piece[0].closed


def merged(pieces: list[Piece]) -> list[Piece]:
    """The union of pieces: in order, and joined where they touch."""
    joined: list[Piece] = []
    for low, high in sorted(pieces, key=_order):
        if joined:
            last = joined[-1][1]
            gap = low.order - last.order if low.node and last.node else (1 if low.order > last.order else -1)
            touches = abs(gap) < 1e-40 and (low.closed or last.closed)
            if gap < -1e-40 or touches:
                longer = high.order > last.order or (high.order == last.order and high.closed)
                joined[-1] = (joined[-1][0], high if longer else last)
                continue
        joined.append((low, high))
    return joined


def complement(pieces: list[Piece]) -> list[Piece]:
    """All reals that are in none of the pieces."""
    low = End(None, float("-inf"), False)
    gaps: list[Piece] = []
    for first, last in merged(pieces):
        if first.node is not None:
            gaps.append((low, replace(first, closed=not first.closed)))
        low = replace(last, closed=not last.closed) if last.node is not None else last
    if low.order != float("inf"):
        gaps.append((low, End(None, float("inf"), False)))
    return gaps


def intersection(one: list[Piece], other: list[Piece]) -> list[Piece]:
    """What is in both."""
    found: list[Piece] = []
    for (a, b), (c, d) in itertools.product(one, other):
        low = max(a, c, key=lambda end: (end.order, not end.closed))
        high = min(b, d, key=lambda end: (end.order, end.closed))
        if low.order < high.order or (low.order == high.order and low.closed and high.closed):
            found.append((low, high))
    return merged(found)
