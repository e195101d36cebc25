"""Problems from files: JSONL, Parquet and CSV rows, the columns that the recipe names, and errors that say where to look.

JSONL is read with the standard library and not through `datasets`, whose reader infers a type for each column and so
changes answers: "2024-01-02" becomes a date, "07" beside 5 becomes 7, a long integer becomes a float. Nor does it know
the number of a malformed line.
"""

from __future__ import annotations

import csv
import difflib
import json
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..options import Options
from ..types import LampoError, Problem

logger = logging.getLogger("lampo")

Row = tuple[int, dict[str, Any]]
"""A line or row number, from 1, and the row's columns."""


class Columns(Options):
    """Which columns of a file hold what."""

    prompt: str = "prompt"
    """Column of the question, in plain text."""
    answer: str = "answer"
    """Column of the answer that the verifier compares with; text or a number."""
    reference: str | None = None
    """Column of a worked solution, for the ROUGE-L reward and the warm start. Unset: none."""


def read_rows(path: str) -> list[Row]:
    """Every row of a JSONL, Parquet or CSV file; see `iterate_rows`."""
    return list(iterate_rows(path))


def iterate_rows(path: str) -> Iterator[Row]:
    """The rows of a JSONL, Parquet or CSV file, told apart by the name's ending; read as far as they are asked for.

    Raises:
        LampoError: the file is missing, cannot be read, has another ending, or a line of it is not a JSON object.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        what = "is a folder, not a file" if file.is_dir() else "does not exist"
        raise LampoError(f"The file {file.absolute()} {what}. Check its path.")
    match file.suffix.lower():
        case ".jsonl" | ".ndjson" | ".json":
            yield from _read_lines(file)
        case ".parquet":
            yield from enumerate(_read_parquet(file), start=1)
        case ".csv":
            yield from enumerate(_read_csv(file), start=1)
        case suffix:
            raise LampoError(
                f"{file.absolute()}: the ending {suffix!r} is none of .jsonl, .parquet and .csv; convert the file."
            )


def _read_lines(file: Path) -> Iterator[Row]:
    try:
        with file.open(encoding="utf-8-sig", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _read_line(line, f"{file.absolute()}, line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise LampoError(f"{file.absolute()}: not readable as UTF-8 text ({error}).") from None


def _read_line(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LampoError(f"{place}: not valid JSON ({error}). Mend or delete the line.") from None
    if not isinstance(row, dict):
        raise LampoError(
            f"{place}: holds a {type(row).__name__}, not an object. "
            'JSONL has one object a line, such as {"prompt": "2+3=", "answer": "5"}.'
        )
    return row


def _read_parquet(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=1000):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise LampoError(f"{file.absolute()}: not a readable Parquet file ({error}).") from None


def _read_csv(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            yield from csv.DictReader(stream, strict=True)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LampoError(f"{file.absolute()}: not a readable CSV file ({error}).") from None


def to_problems(rows: Sequence[Row], columns: Columns, *, source: str, id_prefix: str) -> list[Problem]:
    """Rows with the named columns as problems; rows without a prompt or an answer are dropped, counted and reported.

    Args:
        rows: the rows with their numbers.
        columns: names of the columns.
        source: what to call the file in messages.
        id_prefix: the problem's id is this, a slash and the row's number.

    Raises:
        LampoError: no rows, a column that no row has (lists those there, with the nearest name), a value of a type that
            cannot be a prompt or an answer, or no row left.
    """
    if not rows:
        raise LampoError(f"{source} is empty. It needs at least one row with a prompt and an answer.")
    for role, name in columns.model_dump().items():
        if name is not None:
            require_columns(rows, [name], source, f"Set task.columns.{role} in the recipe.")
    problems: list[Problem] = []
    for number, row in rows:
        prompt, answer, reference = (
            _text(row.get(name) if name else None, f"{source}, row {number}, column {name!r}")
            for name in (columns.prompt, columns.answer, columns.reference)
        )
        if prompt and answer:
            problems.append(Problem(f"{id_prefix}/{number}", prompt, answer, reference or None))
    if not problems:
        raise LampoError(f"{source}: none of its {len(rows)} rows has both a prompt and an answer.")
    if num_dropped := len(rows) - len(problems):
        logger.warning("%s: left out %d of %d rows, without prompt or answer", source, num_dropped, len(rows))
    return problems


def drop_overlap(train: Sequence[Problem], heldout: Sequence[Problem], source: str) -> list[Problem]:
    """The training problems whose prompts are not held out as well; how many were left out is reported, if any are left."""
    measured = {prompt_key(problem.prompt) for problem in heldout}
    kept = [problem for problem in train if prompt_key(problem.prompt) not in measured]
    if (num_dropped := len(train) - len(kept)) and kept:  # the same file on both sides is a benchmark
        logger.warning("%s: left out %d training problems that are held out as well", source, num_dropped)
    return kept


def prompt_key(prompt: str) -> str:
    """The prompt with every run of white space as one space: what makes two problems the same."""
    return " ".join(prompt.split())


def require_columns(rows: Sequence[Row], names: Sequence[str], source: str, advice: str = "") -> None:
    """Refuse rows that have no such column.

    Raises:
        LampoError: names the column, those there, and the nearest of them.
    """
    present = list(dict.fromkeys(name for _, row in rows for name in row))
    for name in names:
        if name not in present:
            near = difflib.get_close_matches(name, present, n=1)
            guess = f" Did you mean {near[0]!r}?" if near else ""
            raise LampoError(f"{source} has no column {name!r}; it has: {', '.join(present)}.{guess} {advice}".rstrip())


def _text(value: Any, place: str) -> str:
    """A column's value as text; empty for null, NaN and white space."""
    match value:
        case None:
            return ""
        case str():
            return value if value.strip() else ""
        case bool():
            pass
        case int():
            return str(value)
        case float() if math.isnan(value):
            return ""
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
        case _:
            pass
    raise LampoError(f"{place}: holds a {type(value).__name__}, but text or a number is needed.")
