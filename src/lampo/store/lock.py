"""One writer at a time: a lock on a run, an evaluation or a study, which the system lets go when its process ends."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ..types import LampoError

logger = logging.getLogger("lampo")

LOCK = ".lock"
"""The file in a folder that whoever writes into the folder holds."""


class Lock:
    """A lock that is held until `release`, the end of the process, or a `with`."""

    def __init__(self, handle: int) -> None:
        self._close = weakref.finalize(self, os.close, handle)

    def release(self) -> None:
        """Let others in. A second time does nothing."""
        self._close()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lock(file: Path, what: str, *, wait: Callable[[], None] | None = None) -> Lock:
    """Take the lock of a file, which is made where it is missing and says who holds it.

    What a process that is gone left behind is no obstacle: the system has let go of it.

    Args:
        file: the file.
        what: it stands for, as the message begins.
        wait: where given, called once if another process holds the lock, which is then waited for.

    Raises:
        LampoError: another process holds it; names the process and its host.
        OSError: the file cannot be written.
    """
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    held = Lock(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if wait is None:
            holder = _holder(handle)
            held.release()
            raise LampoError(f"{what} is under way in {holder}. Wait until it ends, or stop it first.") from None
        wait()
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            held.release()
            raise
        logger.warning("%s: this file system has no locks (%s). See that no other process writes there.", what, error)
    mine = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(mine).encode(), 0)
    return held


def _holder(handle: int) -> str:
    try:
        told = json.loads(os.pread(handle, 10_000, 0))
        return f"process {told['process']} on {told['host']} since {told['since']}"
    except (ValueError, KeyError, TypeError, RecursionError):  # it has just begun
        return "another process"
