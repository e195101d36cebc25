"""What the dumps of all trainers have in common: files by step, and rows that make groups."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..rollouts import Entry, Record

MOST_COMPLAINTS = 3
"""Rows of a file that are named one by one."""
TOTAL = "score"
"""verl's name of the total reward, which is shown as such already."""
VERDICTS = ({0.0, 1.0}, {-1.0, 1.0})
"""Values of a column that says right or wrong."""


@dataclass(slots=True, eq=False)
class StepRead:
    """One step, without the texts of its responses.

    Attributes:
        entries: what the index says of each group.
        rows: the rows of each group: numbers of rows in a table, or where lines begin in a file.
        complaints: what could not be read.
    """

    entries: list[Entry] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


class Dump(Protocol):
    """The rollouts of a run of another trainer."""

    trainer: str
    path: Path

    def verdict(self) -> str | None:
        """The column that says which responses are right; None where none does."""
        ...

    def files(self) -> dict[int, Path]:
        """The file of each step, in ascending order."""
        ...

    def read(self, step: int, file: Path) -> StepRead:
        """All groups of a step. What is damaged is a complaint."""
        ...

    def group(self, step: int, file: Path, read: StepRead, number: int) -> Record:
        """One group, whole.

        Raises:
            LampoError: its file has changed and cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """One response, as its trainer wrote it down."""

    prompt: str
    text: str
    answer: str | None
    numbers: Mapping[str, float | None]
    total: float | None
    advantage: float | None = None
    extracted: str | None = None
    detail: str = ""
    logprobs: Sequence[float] | None = None
    group: object = None


def record(identity: str, rows: Sequence[Row], verdict: str | None, notes: Iterable[str] = ()) -> Record:
    """Rows of one group in the shape of a group of our own."""
    rollouts = []
    for row in rows:
        rollout: Record = {
            "text": row.text,
            "status": status(row, verdict),
            "extracted": row.extracted,
            "detail": row.detail,
            "rewards": {name: value for name, value in row.numbers.items() if value is not None and name != TOTAL},
            "total": row.total,
            "score": None,
            "advantage": row.advantage,
            "length": None,
        }
        if row.logprobs:
            count = len(row.logprobs)
            rollout |= {"logprobs": list(row.logprobs), "score": sum(row.logprobs) / count, "length": count}
        rollouts.append(rollout)
    problem = {"id": identity, "prompt": rows[0].prompt, "answer": rows[0].answer, "reference": None}
    return {"problem": problem, "rollouts": rollouts, "notes": list(notes)}


def status(row: Row, verdict: str | None) -> str:
    """Right, wrong or unknown by the column that tells; `none` where no column does."""
    if verdict is None:
        return "unknown" if row.total is None else "none"
    value = row.numbers.get(verdict)
    if value is None or row.total is None:
        return "unknown"
    return "right" if value == 1 else "wrong"


def verdict_column(columns: Mapping[str, Sequence[float | None]]) -> str | None:
    """The column of rewards that says right or wrong: it has two values only. One that is named so comes first.

    >>> verdict_column({"length": [0.3, 1.0], "format": [1.0, 1.0], "accuracy_reward": [0.0, None]})
    'accuracy_reward'
    >>> verdict_column({"length": [0.3, 1.0]}) is None
    True
    """
    found = []
    for name, column in columns.items():
        values = {value for value in column if value is not None}
        if values and any(values <= allowed for allowed in VERDICTS):
            found.append(name)
    named = [name for name in found if "acc" in name.lower() or "correct" in name.lower()]
    return next(iter(named + found), None)


def prompt_identity(prompt: str) -> str:
    """A short name of a prompt, the same in every step.

    >>> prompt_identity("1+1=")
    'prompt 477d6445'
    """
    return f"prompt {hashlib.sha256(prompt.encode(errors='replace')).hexdigest()[:8]}"


def finite(value: Any) -> float | None:
    """A number, or None for what is none."""
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    return None


def named_rows(file: Path, what: str, wrong: Sequence[tuple[int, str]]) -> list[str]:
    """A complaint for each of the first rows that cannot be read, and one for all others."""
    complaints = [f"{file}, {what} {number}: {why}" for number, why in wrong[:MOST_COMPLAINTS]]
    if len(wrong) > MOST_COMPLAINTS:
        complaints.append(f"{file}: {len(wrong) - MOST_COMPLAINTS:,} more {what}s cannot be read")
    return complaints


def shown(value: Any) -> str:
    """A value of a column that nobody knows, in a line."""
    text = str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def spoken(value: Any) -> str:
    """A prompt or a response as text: it may be a list of messages, and a message a list of parts.

    >>> spoken([{"role": "user", "content": "1+1="}])
    '1+1='
    >>> print(spoken([{"role": "system", "content": "Add."}, {"role": "user", "content": [{"type": "text", "text": "1+1="}]}]))
    [system]
    Add.
    <BLANKLINE>
    [user]
    1+1=
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, Sequence):
        raise TypeError(f"a text or messages are expected, and this is {type(value).__name__}")
    messages = [(message["role"], _content(message)) for message in value]
    if len(messages) == 1:
        return messages[0][1]
    return "\n\n".join(f"[{role}]\n{content}" for role, content in messages)


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = "".join(part.get("text") or f"[{part.get('type')}]" for part in content)
    calls = [f"[calls {shown(call.get('function', call))}]" for call in message.get("tool_calls") or ()]
    return "\n".join([*([str(content)] if content is not None else []), *calls])
