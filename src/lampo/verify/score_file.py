"""Score a file of responses: verdicts, their summary, and a table of what could not be verified."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..store.files import write_file
from ..types import LampoError, Verdict
from . import VerifierPool
from .verifier_options import VerifierOptions

Row = tuple[int, dict[str, Any]]
COMPLETION_COLUMNS = ("completion", "response", "output", "text", "generation")
ANSWER_COLUMNS = ("answer", "gold", "target", "solution")


@dataclass(frozen=True, slots=True)
class Unknown:
    """Verdicts that are unknown for one reason."""

    reason: str
    count: int
    rows: tuple[int, ...]


def score_rows(
    rows: Sequence[Row], verifier: VerifierOptions, *, completion: str | None, answer: str | None, workers: int | None
) -> list[Verdict]:
    """Verdicts of all rows, in their order, with a progress bar.

    Args:
        rows: numbered rows, as `lampo.tasks.files.read_rows` gives them.
        verifier: who decides.
        completion, answer: the columns; None: the first usual name that is there.
        workers: as in `VerifierPool`.

    Raises:
        LampoError: there are no rows, a column is missing or holds no text, or what the verifier needs is missing.
    """
    if not rows:
        raise LampoError("The file is empty: there is nothing to verify.")
    names = (
        _column(rows, completion, COMPLETION_COLUMNS, "completion"),
        _column(rows, answer, ANSWER_COLUMNS, "answer"),
    )
    texts = [[_text(row.get(name), number, name) for name in names] for number, row in rows]
    verifier.prepare()
    with VerifierPool(workers) as pool:
        return pool.verify(verifier, [text[0] for text in texts], [text[1] for text in texts], progress=True)


def unknowns(rows: Sequence[Row], verdicts: Sequence[Verdict]) -> list[Unknown]:
    """The unknown verdicts by their reason, the most frequent first, with the numbers of their first rows."""
    counts = Counter(verdict.detail for verdict in verdicts if verdict.status == "unknown")
    return [
        Unknown(
            reason,
            count,
            tuple(
                number
                for (number, _), verdict in zip(rows, verdicts, strict=True)
                if verdict.status == "unknown" and verdict.detail == reason
            )[:5],
        )
        for reason, count in counts.most_common()
    ]


def write_verdicts(path: Path, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> None:
    """The rows with a column `verdict`, as JSONL. The file is whole or absent."""
    lines = [
        json.dumps(row | {"verdict": asdict(verdict)}, ensure_ascii=False)
        for (_, row), verdict in zip(rows, verdicts, strict=True)
    ]
    write_file(
        path, ("\n".join(lines) + "\n").encode(errors="backslashreplace")
    )  # half a surrogate pair, as JSON writes it


def _column(rows: Sequence[Row], name: str | None, usual: Sequence[str], what: str) -> str:
    present = list(dict.fromkeys(column for _, row in rows for column in row))
    found = next((column for column in ([name] if name else usual) if column in present), None)
    if found is None:
        wanted = f"no column {name!r}" if name else f"none of the usual columns ({', '.join(usual)})"
        raise LampoError(f"The file has {wanted} for the {what}. It has: {', '.join(present)}. Give --{what} COLUMN.")
    return found


def _text(value: Any, number: int, column: str) -> str:
    if isinstance(value, list) and value and isinstance(value[-1], dict):  # a chat: its last message
        value = value[-1].get("content")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise LampoError(f"Row {number}, column {column!r}: holds {type(value).__name__}, but text is needed.")
    return str(value)
