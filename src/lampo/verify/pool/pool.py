"""Verdicts from killable workers: a verifier that hangs, crashes or eats memory costs one "unknown", and nobody else.

The parent of the workers is a process of its own (see `workers`), with one thread and without torch: to fork a worker
from it is cheap and safe, whatever threads, CUDA or asyncio loops the caller has, and needs no `if __name__ ==
"__main__"` in the caller's script.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection

from ...types import Verdict
from ..verifier_options import UnboundedVerifier, VerifierOptions

ENVIRONMENT = {
    "SYMPY_GROUND_TYPES": "python",  # gmpy2 aborts the process where Python raises MemoryError
    "MPMATH_NOGMPY": "1",
    "OMP_NUM_THREADS": "1",
}
RESTARTS = 3
"""A job is tried anew so many times when all workers are lost at once, say to the out-of-memory killer."""

OnProgress = Callable[[int, int], None]
"""(number of verdicts so far, number in all)"""


@dataclass(slots=True)
class _Job:
    message: bytes
    future: Future[Verdict]
    restarts: int = 0


class VerifierPool:
    """Runs verifiers in worker processes, each verification under the time and memory limits of its verifier.

    - A verification that takes too long is killed. One that eats too much memory fails. One that crashes takes its worker
      with it. Each is `unknown`, with the reason, and no other verdict is lost or changed.
    - After a tenth of a second, or a twentieth of its limit, a verification no longer counts as one of the `workers`. It goes
      on at the lowest priority, and another worker takes the next one. So even many that hang cost little more than one.
    - What a verifier can say at once (`VerifierOptions.at_once`) is said in this process. Workers start when needed, or by `start`.
    - It may be used from any thread, and inside asyncio through `asyncio.wrap_future(pool.submit(...))`. No signals.

    It is a context manager. A pool that is not closed ends with its process, even a killed one.

    Args:
        workers: verifications that run at once. None: one for each processor that this process may use.

    >>> from lampo.verify import NumericOptions
    >>> with VerifierPool() as pool:
    ...     [verdict.status for verdict in pool.verify(NumericOptions(), ["It is 19.", "20"], ["19", "19"])]
    ['right', 'wrong']
    """

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"VerifierPool needs at least one worker, not {workers}")
        self._workers = workers or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else [0])
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._jobs: dict[int, _Job] = {}
        self._num_jobs = 0
        self._closed = False
        self._parent: _Parent | None = None

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers. What is still running becomes unknown."""
        with self._lock:
            self._closed = True
            parent, self._parent = self._parent, None
        if parent is not None:
            parent.end()
        self._abandon("the pool was closed")

    def start(self, verifiers: Iterable[VerifierOptions]) -> None:
        """Start the workers of these verifiers in the background, so that the first verification waits for no import.

        What goes wrong is told by that verification.
        """
        messages: list[bytes] = []
        for verifier in verifiers:
            if isinstance(verifier, UnboundedVerifier):
                with contextlib.suppress(Exception):  # not fit for a worker
                    messages.append(pickle.dumps(("prepare", pickle.dumps(verifier))))
        if messages and not self._closed:
            with self._lock:
                parent, _ = self._running()
            if parent is not None:
                self._send(parent, messages)

    def submit(self, verifier: VerifierOptions, completion: str, answer: str) -> Future[Verdict]:
        """Begin one verification. The future always has a verdict in the end. It never raises.

        Raises:
            RuntimeError: the pool is closed.
        """
        future: Future[Verdict] = Future()
        if self._closed:
            raise RuntimeError("This VerifierPool is closed.")
        begin = time.perf_counter()
        try:
            verdict = verifier.at_once(completion, answer)
        except Exception as error:
            verdict = Verdict("unknown", detail=f"{type(error).__name__}: {error}")
        if verdict is not None:
            future.set_result(dataclasses.replace(verdict, seconds=time.perf_counter() - begin))
            return future
        assert isinstance(verifier, UnboundedVerifier), "a bounded verifier always has a verdict"
        try:
            kind, work = pickle.dumps(verifier), pickle.dumps((completion, answer))
        except Exception as error:
            future.set_result(Verdict("unknown", detail=f"not fit for a worker: {type(error).__name__}: {error}"))
            return future
        future.set_running_or_notify_cancel()
        with self._lock:
            self._num_jobs += 1
            number = self._num_jobs
            message = pickle.dumps(("verify", number, verifier.timeout_s, verifier.memory_mib, kind, work))
            self._jobs[number] = _Job(message, future)
            parent, refusal = self._running()
        if parent is None:
            self._abandon(refusal)
        else:
            self._send(parent, [message])
        return future

    def verify(
        self,
        verifier: VerifierOptions,
        completions: Sequence[str],
        answers: Sequence[str],
        *,
        on_progress: OnProgress | None = None,
        progress: bool = False,
    ) -> list[Verdict]:
        """Verdicts of many completions, in their order.

        Args:
            verifier: who decides.
            completions: the responses.
            answers: the right answer of each.
            on_progress: called with the number of verdicts so far, and of all.
            progress: show a bar with the rate and the time left, once it has taken two seconds.
        """
        triples = [(verifier, completion, answer) for completion, answer in zip(completions, answers, strict=True)]
        return self.verify_all(triples, on_progress=on_progress, progress=progress)

    def verify_all(
        self,
        triples: Iterable[tuple[VerifierOptions, str, str]],
        *,
        on_progress: OnProgress | None = None,
        progress: bool = False,
    ) -> list[Verdict]:
        """As `verify`, with a verifier for each: (verifier, completion, answer)."""
        futures = [self.submit(*triple) for triple in triples]
        if progress and on_progress is None:
            from .progress import bar

            with bar("verifying") as show:
                return _collect(futures, show)
        return _collect(futures, on_progress)

    def collect(self, futures: Sequence[Future[Verdict]]) -> list[Verdict]:
        """The verdicts of verifications that were begun, without waiting for those that run far longer than the others did.

        Once a hundred of a verifier with its options have come back, those that are left may take four times as long as the
        longest of them, and a tenth of a second at least. Then they are unknown. One at a time runs on unseen: if it comes back, such
        are waited for from then on. So verifiers that hang cost a training step neither their time limit nor the processors, and
        one that is only slower is not lost for ever. A verifier that bounds itself (`code`) is always waited for.
        """
        waited_for = {future for future in futures if not future.done()}
        with self._lock:
            numbers = frozenset(number for number, job in self._jobs.items() if job.future in waited_for)
            parent = self._parent
        if numbers and parent is not None:
            self._send(parent, [pickle.dumps(("drop_stragglers", numbers))])
        return [future.result() for future in futures]

    def _running(self) -> tuple[_Parent | None, str]:
        """The workers' parent, started if there is none (or if this process is a fork of the one that started it).

        None and the reason where none can be started: then nothing can be verified now.
        """
        if self._parent is None or self._parent.process_id != os.getpid():
            self._parent = None
            try:
                self._parent = _Parent(
                    self._workers, weakref.WeakMethod(self._received), weakref.WeakMethod(self._lost)
                )
            except (OSError, RuntimeError) as error:  # no process, no file descriptor, or no thread is left
                return None, f"the verification workers could not be started: {error}"
        return self._parent, ""

    def _send(self, parent: _Parent, messages: Iterable[bytes]) -> None:
        with (
            self._sending,
            contextlib.suppress(OSError),
        ):  # its reader notices as well, and sends what is left to a new one
            for message in messages:
                parent.connection.send_bytes(message)

    def _received(self, number: int, verdict: Verdict) -> None:
        with self._lock:
            job = self._jobs.pop(number, None)
        if job is not None:
            job.future.set_result(verdict)

    def _lost(self, parent: _Parent) -> None:
        """The workers' parent is gone: give what it had to do to a new one."""
        with self._lock:
            if parent is not self._parent:
                return
            self._parent = None
            given_up = [number for number, job in self._jobs.items() if job.restarts >= RESTARTS]
            jobs = [self._jobs.pop(number) for number in given_up]
            for job in self._jobs.values():
                job.restarts += 1
            messages = [job.message for job in self._jobs.values()]
            successor, refusal = self._running() if messages and not self._closed else (None, "")
        for job in jobs:
            job.future.set_result(Verdict("unknown", detail="all verification workers were lost, several times"))
        if successor is not None:
            self._send(successor, messages)
        elif refusal:
            self._abandon(refusal)

    def _abandon(self, reason: str) -> None:
        with self._lock:
            jobs, self._jobs = list(self._jobs.values()), {}
        for job in jobs:
            job.future.set_result(Verdict("unknown", detail=reason))


class _Parent:
    """The process that the workers are forked from, and the thread that reads its answers."""

    def __init__(
        self,
        workers: int,
        received: weakref.WeakMethod[Callable[[int, Verdict], None]],
        lost: weakref.WeakMethod[Callable[[_Parent], None]],
    ) -> None:
        self.process_id = os.getpid()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.workers", str(theirs.fileno()), str(workers)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=os.environ
                | ENVIRONMENT
                | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
                # Ctrl-C is the caller's; but no session: Linux shares processors between sessions whatever their priorities
                process_group=0,
            )
            self.connection = Connection(ours.detach())
        self._finalizer = weakref.finalize(self, _end, self.process_id, self._process, self.connection)
        reader = threading.Thread(
            target=_read, args=(self.connection, weakref.ref(self), received, lost), daemon=True, name="verdicts"
        )
        reader.start()

    def end(self) -> None:
        self._finalizer()


def _end(creator: int, process: subprocess.Popen[bytes], connection: Connection) -> None:
    """The parent of the workers kills them and goes when its connection ends. A fork of their creator leaves them to it."""
    if os.getpid() != creator:
        connection.close()
        return
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _read(
    connection: Connection,
    parent: weakref.ref[_Parent],
    received: weakref.WeakMethod[Callable[[int, Verdict], None]],
    lost: weakref.WeakMethod[Callable[[_Parent], None]],
) -> None:
    try:
        while True:
            number, fields = json.loads(connection.recv_bytes())
            try:
                verdict = Verdict(**fields)
            except (TypeError, ValueError) as error:
                verdict = Verdict("unknown", detail=f"the worker sent no verdict: {error}")
            deliver = received()
            if deliver is not None:
                deliver(number, verdict)
            del deliver
    except (OSError, EOFError):
        pass
    connection.close()
    gone, tell = parent(), lost()
    if gone is not None and tell is not None:
        tell(gone)


def _collect(futures: Sequence[Future[Verdict]], on_progress: OnProgress | None) -> list[Verdict]:
    verdicts: list[Verdict] = []
    for future in futures:
        verdicts.append(future.result())
        if on_progress is not None:
            on_progress(len(verdicts), len(futures))
    return verdicts
