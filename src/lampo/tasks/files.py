"""Rows from files: CSV, JSONL, Parquet, and the folder of a Hugging Face data set.

They are read without `datasets`, whose reader infers a type for each column of text and so changes answers: "2024-01-02"
becomes a date, "07" beside 5 becomes 7. Nor does it know the number of a malformed line.
"""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..store.text import writable
from ..types import LampoError
from .folders import ENDINGS, split_files

logger = logging.getLogger("lampo")

Row = tuple[int, dict[str, Any]]
"""A line or row number, from 1, and the row's columns."""


def read_rows(path: str, splits: Sequence[str] = ()) -> list[Row]:
    """Every row. See `iterate_rows`."""
    return list(iterate_rows(path, splits))


def iterate_rows(path: str, splits: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of a file or of the folder of a data set, read as far as they are asked for.

    Args:
        path: a file with one of the endings of `ENDINGS`, or a folder.
        splits: which split of a folder; the first of these that it has.

    Raises:
        LampoError: nothing is there, it cannot be read, the folder has no such split, or a line is not a JSON object.
    """
    location = Path(path).expanduser()
    if location.is_dir():
        rows = (row for file in split_files(location.absolute(), splits) for _, row in _rows_of_file(file))
        yield from enumerate(rows, start=1)
    elif location.is_file():
        yield from _rows_of_file(location.absolute())
    else:
        raise LampoError(f"The file {location.absolute()} does not exist. Check its path.")


def _rows_of_file(file: Path) -> Iterator[Row]:
    match file.suffix.lower():
        case ".jsonl" | ".ndjson" | ".json":
            yield from _read_lines(file)
        case ".parquet":
            yield from enumerate(_read_parquet(file), start=1)
        case ".arrow":
            yield from enumerate(_read_arrow(file), start=1)
        case ".csv" | ".tsv":
            yield from enumerate(_read_csv(file), start=1)
        case suffix:
            raise LampoError(f"{file}: the ending {suffix!r} is none of {', '.join(ENDINGS)}. Convert the file.")


def _read_lines(file: Path) -> Iterator[Row]:
    replaced: list[int] = []
    try:
        with file.open(encoding="utf-8-sig", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    read = _read_line(line, f"{file}, line {number}")
                    row = writable(read) if "\\u" in line else read  # half a character can only be an escape
                    if row is not read:
                        replaced.append(number)
                    yield number, row
    except (OSError, UnicodeDecodeError) as error:
        raise LampoError(f"{file}: not readable as UTF-8 text ({error}).") from None
    if replaced:
        logger.warning(
            "%s: %d rows hold half a character, which is replaced. The first is in line %d.",
            file,
            len(replaced),
            replaced[0],
        )


def _read_line(line: str, location: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LampoError(f"{location}: not valid JSON ({error}). Mend or delete the line.") from None
    if not isinstance(row, dict):
        raise LampoError(
            f"{location}: holds a {type(row).__name__}, not an object. "
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
        raise LampoError(f"{file}: not a readable Parquet file ({error}).") from None


def _read_arrow(file: Path) -> Iterator[dict[str, Any]]:
    """A file of a data set as `Dataset.save_to_disk` writes it."""
    import pyarrow

    try:
        with pyarrow.memory_map(str(file)) as source, pyarrow.ipc.open_stream(source) as batches:
            for batch in batches:
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise LampoError(f"{file}: not a readable Arrow file ({error}).") from None


def _read_csv(file: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(2**31 - 1)  # a reasoning model's trace is longer than the library's default
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            delimiter = _delimiter(stream.readline())
            stream.seek(0)
            rows = csv.DictReader(stream, delimiter=delimiter, strict=True)
            names = list(rows.fieldnames or ())
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise LampoError(f"{file}: two columns are named {twice!r}. Rename one of them.")
            for number, row in enumerate(rows, start=1):
                if surplus := row.pop(None, None):  # pyright: ignore[reportArgumentType, reportCallIssue]
                    raise LampoError(
                        f"{file}, row {number}: has {len(names) + len(surplus)} values for {len(names)} columns. "
                        f"Put a value that holds {delimiter!r} in double quotes."
                    )
                yield row
    except UnicodeDecodeError as error:
        raise LampoError(f"{file}: not UTF-8 text ({error}). Save it as CSV in UTF-8.") from None
    except (OSError, csv.Error) as error:
        raise LampoError(f"{file}: not a readable CSV file ({error}).") from None


def _delimiter(header: str) -> str:
    r"""What separates the columns: a comma, else a semicolon or a tab, as spreadsheets write where a comma stands in numbers.

    >>> _delimiter("prompt,answer"), _delimiter('"a, b";answer'), _delimiter("prompt\tanswer"), _delimiter("prompt")
    (',', ';', '\t', ',')
    """
    bare = re.sub('"[^"]*"', "", header)
    return next((mark for mark in ",;\t" if mark in bare), ",")
