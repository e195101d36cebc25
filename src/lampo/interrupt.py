"""Ctrl-C that loses nothing."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupt:
    """Whether the user asked to stop; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def watch(self) -> Iterator[Interrupt]:
        """Take Ctrl-C and SIGTERM as a wish to stop after the current step."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return

        def ask(number: int, _frame: object) -> None:
            if self.requested:
                raise KeyboardInterrupt
            self.requested = True

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def when_parent_ends(number: signal.Signals) -> None:
    """On Linux, this process gets a signal when the process that forked it is gone, even if that was killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG
