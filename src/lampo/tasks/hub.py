"""Rows from the Hugging Face hub or from a local file, whichever a recipe names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..types import LampoError
from .files import Row, iterate_rows


def rows_of(
    file: str | None, path: str, config: str | None, split: str, *, advice: str, stream: bool = False
) -> Iterable[Row]:
    """The rows of a local file if there is one, else of a data set on the hub.

    Args:
        file: a local file or dataset folder; of a folder, the same split as on the hub.
        path, config, split: the data set on the hub.
        advice: what to do where the hub does not give it.
        stream: read rows as they are asked for, instead of downloading and holding all of them first.

    Raises:
        LampoError: the file or the data set cannot be read.
    """
    rows = iterate_rows(file, (split,)) if file else _from_hub(path, config, split, advice, stream)
    return rows if stream else list(rows)


def _from_hub(path: str, config: str | None, split: str, advice: str, stream: bool) -> Iterator[Row]:
    import datasets

    try:
        rows: Any = datasets.load_dataset(path, config, split=split, streaming=stream)
        yield from enumerate(rows, start=1)
    except Exception as error:  # the hub's client raises errors of many kinds
        where = ", ".join(filter(None, [config, split]))
        reason = str(error).rstrip(". ")
        raise LampoError(f"Cannot load {path} ({where}) from the Hugging Face hub: {reason}.\n{advice}") from None
