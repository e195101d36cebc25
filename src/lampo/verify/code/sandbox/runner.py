"""What a sandbox offers, and the part that all backends share: start, feed, watch, stop, and say why it ended."""

from __future__ import annotations

import math
import os
import select
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Exit = Literal["ok", "time", "memory", "output", "crash"]
STDERR_KEPT = 2000
SHORTEST_WAIT_S = 0.01


class SandboxError(Exception):
    """The sandbox itself failed: nothing can be said of the program."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use.

    `cpu_s` binds all processes of a run together where a control group tells what they computed. Elsewhere it binds each
    process alone, in whole seconds.
    """

    wall_s: float = 10.0
    cpu_s: float = 10.0
    memory_mib: int = 512
    processes: int = 32
    open_files: int = 64
    output_kib: int = 1024
    tmp_mib: int = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run ended.

    Attributes:
        exit: ok (status 0), time, memory or output (a limit was reached), crash (another status, or a signal).
        stdout: what it wrote, at most `output_kib`.
        stderr: the end of what it wrote there.
        code: its exit status, or 128 + n for signal n.
        seconds: wall-clock time.
    """

    exit: Exit
    stdout: bytes
    stderr: str
    code: int
    seconds: float


class Sandbox(Protocol):
    """Runs a command on some files, and nothing else of this machine."""

    python: str
    """The interpreter inside."""
    import_from: list[str]
    """Folders inside from which programs import besides the standard library."""

    def run(self, files: Mapping[str, bytes], command: Sequence[str], stdin: bytes, limits: Limits) -> Outcome:
        """Run it to its end, or stop it. Nothing that it started is left.

        Args:
            files: contents by name, in its working directory.
            command: program and arguments.
            stdin: what it can read.
            limits: what it may use.

        Raises:
            SandboxError: the sandbox itself failed.
        """
        ...


def memory_file(content: bytes) -> int:
    """A file descriptor from which the content can be read, on no disk."""
    descriptor = os.memfd_create("lampo")
    with open(descriptor, "wb", closefd=False) as stream:
        stream.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def rlimits(limits: Limits) -> list[str]:
    """The command `prlimit` and its arguments: no `preexec_fn`, which is slow and unsafe beside threads."""
    mib, cpu_s = 2**20, math.ceil(limits.cpu_s)
    return [
        "prlimit",
        f"--as={limits.memory_mib * mib}",
        f"--cpu={cpu_s}:{cpu_s + 1}",
        f"--nofile={limits.open_files}",
        f"--fsize={limits.tmp_mib * mib}",
        f"--nproc={limits.processes}",
        "--core=0",
        "--",
    ]


class _Clock:
    """The limits of time of a run that begins now."""

    def __init__(self, limits: Limits, computed_s: Callable[[], float]) -> None:
        self.begin = time.monotonic()
        self._end = self.begin + limits.wall_s
        self._cpu_s, self._computed_s = limits.cpu_s, computed_s
        self._processors = min(os.cpu_count() or 1, limits.processes)
        self._next_look = self.begin + limits.cpu_s / self._processors

    def seconds_left(self) -> float:
        """Seconds in which neither limit can be reached. None or less once one is."""
        now = time.monotonic()
        if now >= self._next_look:
            left = self._cpu_s - self._computed_s()
            if left <= 0:
                return 0.0
            self._next_look = now + max(SHORTEST_WAIT_S, left / self._processors)
        return min(self._next_look, self._end) - now


def watch(
    process: subprocess.Popen[bytes],
    limits: Limits,
    stop: Callable[[], None],
    out_of_memory: Callable[[], bool],
    computed_s: Callable[[], float],
) -> Outcome:
    """Read what a process writes until it ends, or stop it at the first limit that it reaches.

    Args:
        process: has been started just now.
        limits: those of time and output are watched here.
        stop: ends it, and all that it started.
        out_of_memory: whether it was killed for its memory.
        computed_s: the CPU time of all that it started; 0 where nobody tells.
    """
    clock = _Clock(limits, computed_s)
    assert process.stdout is not None
    assert process.stderr is not None
    kept = {"out": bytearray(), "err": bytearray()}
    written = {"out": 0, "err": 0}
    reached: Exit | None = None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, "out")
        selector.register(process.stderr, selectors.EVENT_READ, "err")
        while selector.get_map():
            left = clock.seconds_left()
            if left <= 0:
                reached = "time"
                break
            for key, _ in selector.select(left):
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                    continue
                kept[key.data] += data
                written[key.data] += len(data)
                if key.data == "err":
                    del kept["err"][:-STDERR_KEPT]
            if max(written.values()) > limits.output_kib * 1024:
                reached = "output"
                break
    while reached is None and not _ends_within(process, max(SHORTEST_WAIT_S, clock.seconds_left())):
        if clock.seconds_left() <= 0:
            reached = "time"
    memory = out_of_memory()
    stop()
    process.stdout.close()
    process.stderr.close()
    status = process.wait()
    code = status if status >= 0 else 128 - status
    stderr = kept["err"].decode(errors="replace")
    if reached is None:
        if memory or (code == 1 and "MemoryError" in stderr):
            reached = "memory"
        elif code == 128 + signal.SIGXCPU or (code == 128 + signal.SIGKILL and not memory):
            reached = "time"
        else:
            reached = "ok" if code == 0 else "crash"
    stdout = bytes(kept["out"][: limits.output_kib * 1024])
    return Outcome(reached, stdout, stderr, code, time.monotonic() - clock.begin)


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether a process ends in time. `Popen.wait` looks for it in growing steps, which cost up to its whole run again."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # not Linux, or an old one
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(1000 * seconds))
    finally:
        os.close(descriptor)
