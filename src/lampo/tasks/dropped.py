"""Counting what a task leaves out, and why."""

from __future__ import annotations

import logging
from collections import Counter

logger = logging.getLogger("lampo")


class Dropped:
    """Rows that were left out, by reason."""

    def __init__(self, source: str) -> None:
        self._source = source
        self.reasons: Counter[str] = Counter()

    def add(self, reason: str) -> None:
        """One row is left out."""
        self.reasons[reason] += 1

    def report(self, num_rows: int) -> None:
        """Say how many of all rows were left out, by reason, if any were."""
        if self.reasons:
            why = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.most_common())
            logger.warning("%s: left out %d of %d rows: %s", self._source, self.reasons.total(), num_rows, why)
