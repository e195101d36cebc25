"""The rollouts that a run kept: one compressed shard a step, and an index of them all.

rollouts/
  000012.jsonl.gz    the groups of training step 12, one JSON object a line
  index.jsonl        a line a step, appended after its shard: all that the viewer lists, sorts and filters by

The shards are the truth. A line of the index counts only while it names the size and the checksum of its shard (the end of
a gzip file holds one), so that neither a resume, which deletes shards, nor a kill in mid-line can make it lie. What it
lacks, in runs older than it for example, is read from the shards once and appended.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..types import LampoError

Record = dict[str, Any]

HALF_ESCAPED = "backslashreplace"
"""How half a surrogate pair, from a verifier of the user's own for example, is written: as JSON writes it."""
NO_GROUP = (LookupError, TypeError, AttributeError, OverflowError)
"""What is raised where an object of a shard is no group: a missing part, another type, a number of hundreds of digits."""
LETTERS = {"right": "r", "wrong": "w", "unknown": "u", "none": "n"}
PROMPT_HEAD = 1_000
"""Characters of a prompt that the index keeps, and a search looks at."""


def shard_path(run: Path, step: int) -> Path:
    """Where the rollouts of a step are."""
    return run / "rollouts" / f"{step:06d}.jsonl.gz"


def rollout_steps(run: Path) -> list[int]:
    """The steps whose rollouts were kept, in ascending order. Empty if none were."""
    names = (path.name.removesuffix(".jsonl.gz") for path in (run / "rollouts").glob("*.jsonl.gz"))
    return sorted(int(name) for name in names if name.isdigit())


def write_shard(run: Path, step: int, groups: Sequence[Record]) -> Path:
    """Write the groups of a step, whole or not at all, and then their line of the index."""
    path = shard_path(run, step)
    lines = "".join(json.dumps(group, ensure_ascii=False) + "\n" for group in groups)
    partial = path.with_suffix(".partial")
    partial.write_bytes(gzip.compress(lines.encode(errors=HALF_ESCAPED), compresslevel=3, mtime=0))
    partial.replace(path)
    _append(path.parent, [_IndexLine(step, _signature(path), [entry(group) for group in groups])])
    return path


def read_groups(run: Path, step: int) -> list[Record]:
    """The groups of one step: each problem with its rollouts, verdicts, rewards and advantages.

    Raises:
        LampoError: the rollouts of this step were not kept, or their file is damaged.
    """
    with _opened(run, step) as lines:
        return [json.loads(line) for line in lines]


def read_group(run: Path, step: int, number: int) -> Record:
    """One group of a step, counted from 0. The others are not parsed.

    Raises:
        LampoError: as `read_groups`, or the step has no such group.
    """
    with _opened(run, step) as lines:
        for line in islice(lines, number, None):
            return json.loads(line)
    raise LampoError(f"Step {step} of {run} has no group {number}.")


def find_shard_damage(run: Path, step: int) -> str | None:
    """What is wrong with the file of a step's rollouts, or None: whether it can be unpacked to its end."""
    try:
        with gzip.open(shard_path(run, step), "rb") as stream:
            while stream.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error) as error:
        return getattr(error, "strerror", None) or str(error)
    return None


@dataclass(frozen=True, slots=True)
class Entry:
    """One group in the index.

    Attributes:
        id: of the problem.
        prompt: its beginning.
        verdicts: a letter a rollout, in order: r(ight), w(rong), u(nknown), or n(one) where nobody judged it.
        cut: how many were cut at the length limit.
        reward: mean total reward of the valid rollouts; None if there is none.
        spread: their largest minus their smallest; None with fewer than two.
        advantage: the largest absolute advantage; None where there are no advantages (an evaluation).
        length: mean number of tokens; None where it was not told.
    """

    id: str
    prompt: str
    verdicts: str
    cut: int
    reward: float | None
    spread: float | None
    advantage: float | None
    length: float | None

    def fields(self) -> Record:
        """As plain data; `dataclasses.asdict` copies deeply and is many times slower."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def line(self, place: str, number: int) -> Record:
        """As the index of a page lists it."""
        return {"place": place, "number": number, **self.fields(), "marks": self.marks}

    @property
    def marks(self) -> list[str]:
        """What one may want to filter by: wrong and right (every known verdict is), unknown, cut, flat (no spread)."""
        known = set(self.verdicts) - {"u", "n"}
        marks = {
            "wrong": known == {"w"},
            "right": known == {"r"},
            "mixed": known == {"r", "w"},
            "unknown": "u" in self.verdicts,
            "cut": self.cut > 0,
            "flat": self.spread == 0,
        }
        return [name for name, holds in marks.items() if holds]


def entry(group: Record) -> Entry:
    """What the index keeps of a group.

    >>> right = {"status": "right", "total": 1.0, "advantage": 0.5, "length": 3, "finished": True}
    >>> wrong = {"status": "wrong", "total": 0.0, "advantage": -0.7, "length": 5, "finished": False}
    >>> entry({"problem": {"id": "7", "prompt": "2+2?"}, "rollouts": [right, wrong]})
    Entry(id='7', prompt='2+2?', verdicts='rw', cut=1, reward=0.5, spread=1.0, advantage=0.7, length=4.0)
    """
    rollouts, problem = group["rollouts"], group["problem"]

    def numbers(key: str) -> list[float]:
        return [value for rollout in rollouts if (value := rollout.get(key)) is not None and math.isfinite(value)]

    totals, lengths = numbers("total"), numbers("length")
    return Entry(
        id=str(problem["id"]),
        prompt=str(problem["prompt"])[:PROMPT_HEAD],
        verdicts="".join(LETTERS[rollout["status"]] for rollout in rollouts),
        cut=sum(not rollout.get("finished", True) for rollout in rollouts),
        reward=_mean(totals),
        spread=_rounded(max(totals) - min(totals)) if len(totals) > 1 else None,
        advantage=max((_rounded(abs(value)) for value in numbers("advantage")), default=None),
        length=_mean(lengths),
    )


def read_index(
    run: Path, known: Mapping[int, tuple[str, list[Entry]]] | None = None, tell: Callable[[int], None] | None = None
) -> tuple[dict[int, tuple[str, list[Entry]]], list[str]]:
    """All groups that the run kept, by step.

    Args:
        run: the run directory.
        known: an earlier answer, whose steps are taken over where their shards are still the same.
        tell: called with the number of shards that the index lacks, before they are read, if there are any.

    Returns:
        for every step the signature of its shard and its groups in order; and a complaint for every shard that cannot be
        read.
    """
    folder = run / "rollouts"
    signatures: dict[int, str] = {}
    complaints: list[str] = []
    for step in rollout_steps(run):
        try:
            signatures[step] = _signature(shard_path(run, step))
        except OSError as error:
            complaints.append(f"{shard_path(run, step)} cannot be read: {_what_it_is(shard_path(run, step), error)}")
    found = {step: value for step, value in (known or {}).items() if signatures.get(step) == value[0]}
    if len(found) < len(signatures):
        for line in _index_lines(folder):
            if line.step not in found and signatures.get(line.step) == line.signature:
                found[line.step] = line.signature, line.groups
    lacking = [step for step in signatures if step not in found]
    read: list[_IndexLine] = []
    if lacking and tell is not None:
        tell(len(lacking))
    for step in lacking:
        try:
            read.append(_IndexLine(step, signatures[step], [entry(group) for group in read_groups(run, step)]))
        except LampoError as error:
            complaints.append(str(error))
        except NO_GROUP as error:
            why = f" ({error})" if isinstance(error, OverflowError) else ""
            complaints.append(f"{shard_path(run, step)} does not hold the groups of a training step{why}")
    found |= {line.step: (line.signature, line.groups) for line in read}
    with suppress(OSError):  # a run that may only be read is read again each time
        _append(folder, read)
    return dict(sorted(found.items())), complaints


@dataclass(frozen=True, slots=True)
class _IndexLine:
    step: int
    signature: str
    groups: list[Entry]


def _append(folder: Path, lines: Sequence[_IndexLine]) -> None:
    """In one write, and on a line of its own whatever a kill left behind."""
    if not lines:
        return
    plain = [
        {"step": line.step, "signature": line.signature, "groups": [each.fields() for each in line.groups]}
        for line in lines
    ]
    with (folder / "index.jsonl").open("ab") as stream:
        stream.write("".join("\n" + json.dumps(line, ensure_ascii=False) for line in plain).encode(errors=HALF_ESCAPED))


def _index_lines(folder: Path) -> Iterator[_IndexLine]:
    """The lines that are whole and of this version."""
    try:
        text = (folder / "index.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    names = list(Entry.__dataclass_fields__)
    for line in text.split("\n"):
        try:
            values = json.loads(line)
            groups = [Entry(*(group[name] for name in names)) for group in values["groups"]]
            yield _IndexLine(values["step"], values["signature"], groups)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue


def _signature(shard: Path) -> str:
    """Size and checksum of a shard, without reading it.

    Raises:
        OSError: it is not there, or no file.
    """
    with open(shard, "rb", opener=_open_file) as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 8))
        return f"{size}:{stream.read(8).hex()}"


@contextmanager
def _opened(run: Path, step: int) -> Iterator[Iterator[str]]:
    """The lines of a shard. What goes wrong while they are read and parsed is told as damage."""
    path = shard_path(run, step)
    try:
        with open(path, "rb", opener=_open_file) as file, gzip.open(file, "rt", encoding="utf-8") as lines:
            yield iter(lines)
    except RecursionError as error:
        raise LampoError(f"{path} cannot be read: it is nested too deeply") from error
    except (gzip.BadGzipFile, EOFError, ValueError, zlib.error) as error:
        raise LampoError(f"{path} cannot be read ({error}): it was probably cut short; delete it") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not path.is_symlink():
            raise LampoError(f"{path} does not exist: the rollouts of step {step} were not kept") from error
        raise LampoError(f"{path} cannot be read: {_what_it_is(path, error)}") from error


def _open_file(path: str, flags: int) -> int:
    """Open what is a file: a pipe would be waited for."""
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError("it is no file")
    return handle


def _what_it_is(path: Path, error: OSError) -> str:
    """Why a shard cannot be opened."""
    if path.is_dir():
        return "it is a folder"
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return f"it is a link to {os.readlink(path)}, which is not there"
    return error.strerror or str(error)


def _mean(values: Sequence[float]) -> float | None:
    return _rounded(sum(values) / len(values)) if values else None


def _rounded(value: float) -> float:
    return round(value, 6)
