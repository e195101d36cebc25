"""Output that fails: a closed pipe, a full disk or a terminal that is gone never stops what is running."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class Unfailing:
    """A text stream whose writes never raise: what it cannot pass on is dropped, and the first failure is kept.

    Each write is tried again, so that a log goes on once its disk has room.
    """

    def __init__(self, stream: TextIO, tell: TextIO | None = None) -> None:
        self._stream = stream
        self._tell = tell
        self.failure: Exception | None = None
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")  # a terminal without the character

    def write(self, text: str) -> int:
        """Pass a text on if that is possible."""
        try:
            self._stream.write(text)
        except (OSError, ValueError) as error:  # ValueError: it was closed
            self._failed(error)
        return len(text)

    def flush(self) -> None:
        """Pass on what is held back if that is possible."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if self.failure is not None:
            return
        self.failure = error
        if self._tell is not None:
            why = getattr(error, "strerror", None) or error
            with suppress(OSError, ValueError):
                print(
                    f"The output cannot be written ({why}). The work goes on without it.", file=self._tell, flush=True
                )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def unfailing_output() -> Iterator[None]:
    """What is printed inside never raises. The first failure of standard output is told on standard error."""
    _open_closed()
    before = sys.stdout, sys.stderr
    errors = Unfailing(sys.stderr or _nowhere())
    output = Unfailing(sys.stdout or _nowhere(), tell=cast("TextIO", errors))
    sys.stdout, sys.stderr = cast("TextIO", output), cast("TextIO", errors)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in (output, errors):
            stream.flush()
            if stream.failure is not None:  # or the interpreter would fail at it once more, at its end
                _point_nowhere(stream)


def say(text: str) -> None:
    """Print a last word on standard output, or where that is lost, this time or before, on standard error."""
    if not _output_failed():
        print(text, flush=True)
    if _output_failed():
        print(text, file=sys.stderr, flush=True)


def _output_failed() -> bool:
    """Whether something that was printed under `unfailing_output` has been lost."""
    return isinstance(sys.stdout, Unfailing) and sys.stdout.failure is not None


def _open_closed() -> None:
    """A file opened later must not get the number of a standard stream that was closed: libraries would print into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            taken = os.open(os.devnull, os.O_RDWR)
            os.dup2(taken, number, inheritable=True)
            if taken != number:
                os.close(taken)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def _point_nowhere(stream: Unfailing) -> None:
    with suppress(OSError, ValueError), _nowhere() as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
