"""Rows from the Hugging Face hub or from a local file, whichever a recipe names."""

from __future__ import annotations

import os
import socket
import sys
import threading
import urllib.request
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from ..types import LampoError
from .files import Row, iterate_rows

SECONDS_AN_ADDRESS, SECONDS = 5.0, 10.0
"""Most that a connection to the hub may take: to one of its addresses, and with its name's look-up and all addresses."""


@cache
def hub_failure() -> str | None:
    """Why the hub cannot be reached, or None. Where it cannot, its clients look into their cache alone from now on.

    They would ask again and again for half a minute, for each file. Whether a connection can be made is asked once a process.
    Behind a proxy it is not asked: the proxy may be of a kind that only they know.
    """
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT)
    if (
        constants.is_offline_mode()
        or host.hostname is None
        or {"all", host.scheme} & urllib.request.getproxies().keys()
    ):
        return None
    address = host.hostname, host.port or (80 if host.scheme == "http" else 443)
    answers: list[str | None] = []

    def ask() -> None:
        try:
            socket.create_connection(address, timeout=SECONDS_AN_ADDRESS).close()
            answers.append(None)
        except OSError as error:
            answers.append(error.strerror or str(error))

    thread = threading.Thread(target=ask, daemon=True)  # looking its name up has no time limit of its own
    thread.start()
    thread.join(SECONDS)
    failure = answers[0] if answers else f"no answer in {SECONDS:g} s"
    if failure is not None:
        os.environ["HF_HUB_OFFLINE"] = "1"  # for what is imported from now on
        constants.HF_HUB_OFFLINE = True
        if "datasets" in sys.modules:
            sys.modules["datasets"].config.HF_HUB_OFFLINE = True
    return failure


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
    failure = hub_failure()
    import datasets

    try:
        rows: Any = datasets.load_dataset(path, config, split=split, streaming=stream)
        yield from enumerate(rows, start=1)
    except Exception as error:  # the hub's client raises errors of many kinds
        where = ", ".join(filter(None, [config, split]))
        reason = f"it cannot be reached ({failure})" if failure else str(error).rstrip(". ")
        raise LampoError(f"Cannot load {path} ({where}) from the Hugging Face hub: {reason}.\n{advice}") from None
