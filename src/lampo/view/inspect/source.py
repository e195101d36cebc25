"""Where the viewer's groups come from: the rollouts of a run, or the records of an evaluation, in one shape."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from ...evaluation.records import RECORDS
from ...store.files import dated
from ...store.rollouts import NO_GROUP, Entry, Record, entry, read_group, read_index, rollout_steps
from ...store.trainers import LOOKS_LIKE, find_dump
from ...types import LampoError
from ..settings import read_settings
from .trainer_source import TrainerSource

NO_RECORD = (*NO_GROUP, ValueError, RecursionError)
"""What is raised where a line is no record of an evaluation."""

Tell = Callable[[str], None]


class Source(Protocol):
    """Groups in places: the steps of a run, the benchmarks of an evaluation. Safe to ask from several threads."""

    path: Path

    def index(self, first: str | None = None, within_s: float = math.inf) -> dict[str, Any]:
        """What is there now: title, kind, estimator, clip range of token ratios, places in order, complaints, an entry for every group.

        Args:
            first: the place that is read before all others, where places have to be read.
            within_s: when to stop reading. What is left is read when asked again, and `unread` counts it.
        """
        ...

    def stamp(self) -> object:
        """Equal to an earlier one while `index` would say the same: how the files are dated, without opening them."""
        ...

    def group(self, place: str, number: int) -> Record:
        """One group, whole.

        Raises:
            LampoError: there is no such group, or its file is damaged.
        """
        ...

    @property
    def advantage(self) -> dict[str, Any] | None:
        """The settings of the estimator; None where there are no advantages."""
        ...


def open_source(path: Path, tell: Tell = lambda _: None) -> Source:
    """A run directory, the folder of an evaluation or of one of its benchmarks, or what another trainer wrote.

    Raises:
        LampoError: it is none of these.
    """
    if not path.exists():
        raise LampoError(f"There is no {path}.")
    if rollout_steps(path):
        return RunSource(path, tell)
    dump = find_dump(path)
    if dump is not None:
        return TrainerSource(dump)
    if (path / "rollouts").is_dir():  # a run that has just begun
        return RunSource(path, tell)
    benchmarks = [path] if (path / RECORDS).is_file() else sorted(file.parent for file in path.glob(f"*/{RECORDS}"))
    if benchmarks:
        return EvaluationSource(path, benchmarks)
    raise LampoError(
        f"{path} is neither a run directory (it has no rollouts/) nor a folder that lampo eval wrote (no {RECORDS}). "
        f"It holds no rollouts of another trainer either. {LOOKS_LIKE}"
    )


class RunSource:
    """The rollouts that training kept."""

    def __init__(self, path: Path, tell: Tell) -> None:
        self.path = path
        self._tell = tell
        self._lock = threading.Lock()
        self._known: dict[int, tuple[str, list[Entry]]] = {}
        self._config: tuple[object, dict[str, Any]] | None = None
        self._read = lru_cache(maxsize=64)(lambda step, number, _signature: read_group(path, step, number))

    def index(self, first: str | None = None, within_s: float = math.inf) -> dict[str, Any]:
        """See `Source.index`. All is read at once."""
        with self._lock:
            self._known, complaints = read_index(
                self.path, self._known, lambda count: self._tell(f"reading {count:,} shards once, for the index")
            )
            known = self._known
        groups = [
            each.line(str(step), number) for step, (_, entries) in known.items() for number, each in enumerate(entries)
        ]
        return {
            "title": self.path.resolve().name,
            "kind": "run",
            "advantage": self.advantage,
            "clip": self._clip(),
            "places": [str(step) for step in known],
            "complaints": complaints,
            "groups": groups,
        }

    def stamp(self) -> object:
        """See `Source.stamp`."""
        try:
            with os.scandir(self.path / "rollouts") as entries:
                shards = {each.name: dated(each) for each in entries if each.name.endswith(".gz")}
        except OSError:
            shards = {}
        return shards, dated(self.path / "config.yaml")

    def group(self, place: str, number: int) -> Record:
        """See `Source.group`."""
        if not self._known:
            self.index()
        known = self._known.get(int(place)) if place.isdecimal() else None
        if known is None or not 0 <= number < len(known[1]):
            raise LampoError(f"There is no group {number} in step {place}.")
        group = self._read(int(place), number, known[0])
        return group | {"place": place, "number": number, "rollouts": [_with_pieces(r) for r in group["rollouts"]]}

    @property
    def advantage(self) -> dict[str, Any] | None:
        """See `Source.advantage`."""
        return self._settings("advantage")

    def _clip(self) -> list[float] | None:
        """The ratios below and above which a token may have no gradient; None where it is not tokens that are clipped."""
        loss = self._settings("loss")
        try:
            return [1 - loss["clip_low"], 1 + loss["clip_high"]] if loss["surrogate"] == "token" else None
        except (KeyError, TypeError):
            return None

    def _settings(self, section: str) -> dict[str, Any]:
        """A section of the run's config.yaml. Empty where it cannot be read."""
        file = self.path / "config.yaml"
        now = dated(file)
        if self._config is None or self._config[0] != now:
            try:
                text = file.read_text(encoding="utf-8", errors="replace")
            except OSError:
                text = ""
            self._config = now, read_settings(text)
        found = self._config[1].get(section)
        return found if isinstance(found, dict) else {}


class EvaluationSource:
    """What a model answered to benchmarks: verdicts and texts, and neither scores nor advantages."""

    advantage = None

    def __init__(self, path: Path, benchmarks: Iterable[Path]) -> None:
        self.path = path
        self._files = {folder.resolve().name: folder / RECORDS for folder in benchmarks}
        self._lock = threading.Lock()
        self._read: dict[str, _Read] = {}

    def index(self, first: str | None = None, within_s: float = math.inf) -> dict[str, Any]:
        """See `Source.index`. All is read at once."""
        complaints: list[str] = []
        with self._lock:
            for name, file in self._files.items():
                if name not in self._read or self._read[name].dated != dated(file):
                    self._read[name] = _read_entries(file)
                complaints += self._read[name].complaints
            groups = [
                each.line(name, number) for name, read in self._read.items() for number, each in enumerate(read.entries)
            ]
        return {
            "title": self.path.resolve().name,
            "kind": "evaluation",
            "advantage": None,
            "clip": None,
            "places": list(self._files),
            "complaints": complaints,
            "groups": groups,
        }

    def stamp(self) -> object:
        """See `Source.stamp`."""
        return [dated(file) for file in self._files.values()]

    def group(self, place: str, number: int) -> Record:
        """See `Source.group`."""
        if not self._read:
            self.index()
        offsets = self._read[place].offsets if place in self._read else []
        if not 0 <= number < len(offsets):
            raise LampoError(f"There is no problem {number} in {place}.")
        try:
            with self._files[place].open("rb") as stream:
                stream.seek(offsets[number])
                return _group(json.loads(stream.readline())) | {"place": place, "number": number}
        except (OSError, *NO_RECORD) as error:
            raise LampoError(
                f"{self._files[place]} was changed and cannot be read ({error}). Press r to read it anew."
            ) from None


@dataclass(frozen=True, slots=True)
class _Read:
    """The records of one benchmark: how their file was dated, where each line begins, and what the index says of it."""

    dated: object
    offsets: list[int]
    entries: list[Entry]
    complaints: list[str]


def _read_entries(file: Path) -> _Read:
    """All records. A last line that is still being written is left out."""
    read, offset = _Read(dated(file), [], [], []), 0
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    if line.endswith(b"\n"):
                        read.entries.append(entry(_group(json.loads(line))))
                        read.offsets.append(offset)
                except NO_RECORD as error:
                    read.complaints.append(f"{file}, line {number}: not a record ({error})")
                offset += len(line)
    except OSError as error:
        read.complaints.append(f"{file} cannot be read: {error.strerror or error}")
    return read


def _group(record: Record) -> Record:
    """A record of an evaluation in the shape of a group of rollouts."""
    rollouts = []
    for response in record["responses"]:
        known = {"right": 1.0, "wrong": 0.0}.get(response["status"])
        rollouts.append(
            {
                "text": response["text"],
                "status": response["status"],
                "extracted": response["extracted"],
                "detail": response["detail"],
                "total": known,
                "share right": response["score"],
                "length": response["num_tokens"],
                "finished": response["finished"],
            }
        )
    problem = {key: record.get(key) for key in ("id", "prompt", "answer", "reference")}
    return {"problem": problem, "rollouts": rollouts}


def _with_pieces(rollout: Record) -> Record:
    """The rollout with its text cut into the pieces that its tokens are, where these were kept."""
    lengths, text = rollout.get("pieces"), rollout["text"]
    if lengths is None or sum(lengths) != len(text) or len(lengths) != len(rollout.get("logprobs") or ()):
        return rollout | {"pieces": None}
    pieces, position = [], 0
    for length in lengths:
        pieces.append(text[position : position + length])
        position += length
    return rollout | {"pieces": pieces}
