"""Ctrl-C that loses nothing."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any


class Interrupt:
    """Whether the user asked to stop. A second time stops at once."""

    def __init__(self, told: str = "Stopping after this step, with a checkpoint.") -> None:
        """`told` is what the user reads the first time."""
        self.requested = False
        self._told = f"{told} Press Ctrl-C again to stop at once.\n".encode()

    @contextmanager
    def watch(self) -> Iterator[Interrupt]:
        """Take Ctrl-C, SIGTERM and a closed terminal as a wish to stop after the current step."""

        def ask(_number: int, _frame: object) -> None:
            if self.requested:
                raise KeyboardInterrupt
            self.requested = True
            with suppress(OSError):  # not print, which may be what the signal interrupted
                os.write(2, self._told)

        with _handled_by(ask):
            yield self


@contextmanager
def stopped_at_once() -> Iterator[None]:
    """SIGTERM and a closed terminal are Ctrl-C too: what is under way can tidy up."""
    with _handled_by(signal.default_int_handler):
        yield


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup asks
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def when_parent_ends(number: signal.Signals) -> None:
    """On Linux, this process gets a signal when the process that forked it is gone, even if that was killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG
