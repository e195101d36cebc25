"""The rollouts of another trainer in the viewer: its files are read one by one, and the page need not wait for all."""

from __future__ import annotations

import math
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...store.files import dated
from ...store.rollouts import Record
from ...store.trainers.dump import Dump, StepRead
from ...types import LampoError


class TrainerSource:
    """Nothing is written beside the files of another trainer, so each is read once by every viewer that is started.

    It has no lock: a group is shown while other files are read, and at worst a file is read twice.
    """

    def __init__(self, dump: Dump) -> None:
        self._dump, self.path = dump, dump.path
        self._read: dict[int, tuple[object, StepRead]] = {}
        self._group = lru_cache(maxsize=64)(dump.group)

    def index(self, first: str | None = None, within_s: float = math.inf) -> dict[str, Any]:
        """See `Source.index`. At least one file more is read."""
        places, end, num_read = self._dump.files(), time.monotonic() + within_s, 0
        self._read = {step: read for step, read in list(self._read.items()) if step in places}
        for step in sorted(places, key=lambda step: str(step) != first):
            if step not in self._read:
                if num_read and time.monotonic() > end:
                    continue
                num_read += 1
            self._step(step, places[step])
        known = {step: read[1] for step in places if (read := self._read.get(step)) is not None}
        return {
            "title": self.path.resolve().name,
            "kind": "run",
            "trainer": self._dump.trainer,
            "verdict": self._dump.verdict(),
            "advantage": self.advantage,
            "clip": None,
            "places": [str(step) for step in places],
            "unread": len(places) - len(known),
            "complaints": [complaint for read in known.values() for complaint in read.complaints],
            "groups": [
                each.line(str(step), number) for step, read in known.items() for number, each in enumerate(read.entries)
            ],
        }

    def stamp(self) -> object:
        """See `Source.stamp`. It changes too while files are read."""
        return [(step, dated(file)) for step, file in self._dump.files().items()], len(self._read)

    def group(self, place: str, number: int) -> Record:
        """See `Source.group`."""
        step = int(place) if place.isdecimal() else -1
        file = self._dump.files().get(step)
        read = StepRead() if file is None else self._step(step, file)
        if file is None or not 0 <= number < len(read.rows):
            raise LampoError(f"There is no group {number} in step {place}.")
        return self._group(step, file, read, number) | {"place": place, "number": number}

    @property
    def advantage(self) -> dict[str, Any]:
        """See `Source.advantage`. No dump says with which settings its trainer computed advantages."""
        return {"trainer": self._dump.trainer}

    def _step(self, step: int, file: Path) -> StepRead:
        """What is in the file of a step, read again where the file is another."""
        when = dated(file)
        if step not in self._read or self._read[step][0] != when:
            self._read[step] = when, self._dump.read(step, file)
        return self._read[step][1]
