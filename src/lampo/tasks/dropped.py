"""Counting what a task leaves out, and why."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeVar

from ..types import Problem
from .columns import prompt_key

Item = TypeVar("Item")

logger = logging.getLogger("lampo")


class Dropped:
    """Rows that were left out, by reason."""

    def __init__(self, source: str) -> None:
        self._source = source
        self.reasons: Counter[str] = Counter()
        self.num_rows = 0

    def watch(self, rows: Iterable[Item]) -> Iterator[Item]:
        """The same rows, counted as they are read."""
        for row in rows:
            self.num_rows += 1
            yield row

    def add(self, reason: str) -> None:
        """One row is left out."""
        self.reasons[reason] += 1

    def once(self, problems: Iterable[Problem]) -> Iterator[tuple[str, Problem]]:
        """Every problem under the key of its prompt. One that was asked before is left out."""
        taken: set[str] = set()
        for problem in problems:
            key = prompt_key(problem.prompt)
            if key in taken:
                self.add("asked before")
                continue
            taken.add(key)
            yield key, problem

    def report(self) -> None:
        """Say how many of the rows that were read were left out, by reason, if any were."""
        if self.reasons:
            why = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.most_common())
            num_dropped, num_rows = f"{self.reasons.total():,}", f"{self.num_rows:,}"
            logger.warning("%s: left out %s of %s rows: %s", self._source, num_dropped, num_rows, why)
