"""The process that verification workers are forked from: `python -m lampo.verify.pool.workers FD WORKERS`.

It has one thread, imports what the verifiers need once, and forks a worker in milliseconds. It only passes bytes on: jobs
come pickled from the caller, and verdicts go back as JSON, so that nothing a worker says is executed anywhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import io
import json
import math
import os
import pickle
import resource
import signal
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from ...interrupt import when_parent_ends
from ...types import Verdict
from .. import judge

PATIENCE_S = 0.1
PATIENCE_SHARE = 0.05
"""A verification that takes longer than both, PATIENCE_S and this share of its time limit, leaves its place to another,
and goes on at the lowest priority."""
PATIENCE_ON_THE_CLOCK = 5.0
"""Or that takes so many times as long on the clock: it waits for a processor, and so do those behind it."""
PRIORITY, SLOW_PRIORITY = 10, 19
"""As of `nice`: of verifications, which leave the processors to whoever samples and trains, and of those that take long."""
SPARES = 16
"""So many may have done so at once."""
HOPELESS_FACTOR, HOPELESS_S, HOPELESS_AFTER = 4.0, 0.1, 100
"""Where the caller waits for nothing else, a verification is given up after so many times the longest of its verifier that ever came
back, and so many seconds at least; but none before so many have come back."""
LAST_MOMENT_S = 0.1
"""One that was running when the caller began to wait goes on for so long at least: now it has the processors."""
SHORTEST_WAIT_S = 0.01
WAITING_COUNTS = 0.03
"""A second of waiting for a processor counts so many: a busy machine is not the verifier's fault, but nobody waits for ever."""
WALL_FACTOR, WALL_S = 10.0, 30.0
"""On the clock none takes longer than so many times its limit, and so many seconds at least, however busy the machine is."""
CROWD_FACTOR, CROWD_S = 4.0, 10.0
"""The same where more slow verifications run at once than there are workers: it is each other that they wait for."""
SHORTAGE_S = 2.0
"""So long a process that cannot fork its only worker waits before it leaves the next try to a fresh one."""
RECYCLE_AFTER = 2000
"""A worker that has done so many verifications is replaced: libraries keep caches."""
MIB = 2**20
_HEAD = struct.Struct("!QQ")
"""Of what a worker is sent: the number of the job, and its memory limit."""


@dataclass(slots=True)
class Job:
    """One verification: its number, limits, the pickled verifier, and the pickled (completion, answer)."""

    number: int
    timeout_s: float
    memory_mib: int
    kind: bytes
    work: bytes
    tried: bool = False
    hurried_s: float = math.inf
    """It may be given up after so long. Never, as long as the caller does not wait for it."""
    given_up: bool = False
    """The caller has its answer. How long it really takes is still of interest."""

    @property
    def patience_s(self) -> float:
        """How long it counts as one of the workers' verifications."""
        return min(self.timeout_s, max(PATIENCE_S, PATIENCE_SHARE * self.timeout_s))


@dataclass(slots=True)
class Experience:
    """What has been seen of one verifier with its options."""

    bounds_itself: bool = False
    num_back: int = 0
    longest_s: float = 0.0

    def came_back(self, seconds: float) -> None:
        """Learn from one that said right or wrong."""
        self.num_back, self.longest_s = self.num_back + 1, max(self.longest_s, seconds)

    @property
    def hopeless_s(self) -> float:
        """One that takes longer is not waited for."""
        if self.bounds_itself or self.num_back < HOPELESS_AFTER:
            return math.inf
        return max(HOPELESS_S, HOPELESS_FACTOR * self.longest_s)


@dataclass(slots=True)
class Worker:
    """A forked process, the pipe to it, and what it is doing."""

    pid: int
    pipe: Connection
    job: Job | None = None
    begin: float = 0.0
    before: tuple[float, float] = (0.0, 0.0)
    blocked_s: float = 0.0
    slow: bool = False
    crowded: bool = False
    num_done: int = 0

    def take(self, job: Job) -> None:
        """Begin a job.

        Raises:
            OSError: the process is gone.
        """
        self.job, self.begin, self.blocked_s = job, time.monotonic(), 0.0
        self.slow = self.crowded = False
        self.before = processor_times(self.pid) or (0.0, 0.0)
        self.pipe.send_bytes(_HEAD.pack(job.number, job.memory_mib) + job.kind + job.work)

    @property
    def wall_s(self) -> float:
        """How long its job may take on the clock, whatever it waits for."""
        factor, least = (CROWD_FACTOR, CROWD_S) if self.crowded else (WALL_FACTOR, WALL_S)
        return max(factor * self.job.timeout_s, least) if self.job else least

    def wall_seconds(self) -> float:
        """How long it has been at its job on the clock."""
        return time.monotonic() - self.begin

    def seconds(self) -> float:
        """How long it has been at its job, where Linux tells: in which it computed or was blocked, but did not wait for a processor."""
        wall = time.monotonic() - self.begin
        runnable = is_runnable(self.pid)  # it may be waiting at this moment, and `waited` is that of earlier times
        times = processor_times(self.pid)
        if times is None:
            return wall
        computed, waited = times[0] - self.before[0], times[1] - self.before[1]
        if not runnable:
            self.blocked_s = wall - waited - computed
        return max(0.0, WAITING_COUNTS * wall, computed + self.blocked_s)

    def took(self) -> float:
        """How long its job took, now that it has answered: all but what it waited for a processor."""
        wall = time.monotonic() - self.begin
        times = processor_times(self.pid)
        return wall if times is None else max(0.0, wall - (times[1] - self.before[1]))


def processor_times(pid: int) -> tuple[float, float] | None:
    """Seconds that a process has computed, and waited for a processor while it could have. None where nobody tells."""
    try:
        with open(f"/proc/{pid}/schedstat", "rb") as file:
            computed, waited, _ = file.read().split()
    except (OSError, ValueError):
        return None
    return int(computed) * 1e-9, int(waited) * 1e-9


def is_runnable(pid: int) -> bool:
    """Whether a process computes or waits for a processor."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"R"
    except OSError:
        return False


class Supervisor:
    """Hands jobs to workers, and stops those that take too long."""

    def __init__(self, client: Connection, num_workers: int) -> None:
        self._client = client
        self._num_workers = num_workers
        self._jobs: deque[Job] = deque()
        self._workers: dict[Connection, Worker] = {}
        self._experience: dict[bytes, Experience] = {}
        self._caller = os.getppid()

    def run(self) -> None:
        """Serve until the caller closes its end or is gone."""
        while os.getppid() == self._caller:
            for ready in wait([self._client, *self._workers], timeout=self._seconds_to_next_event()):
                if ready is self._client:
                    if not self._listen():
                        return
                elif worker := self._workers.get(ready):  # pyright: ignore[reportArgumentType, reportCallIssue]
                    self._worker_spoke(worker)
            self._stop_late_ones()
            self._hand_out()

    def end(self) -> None:
        """Stop every worker."""
        for worker in list(self._workers.values()):
            self._stop(worker)

    def _listen(self) -> bool:
        """Do what the caller asks for. False when it is gone."""
        try:
            asked, *given = pickle.loads(self._client.recv_bytes())
        except (EOFError, OSError):
            return False
        match asked:
            case "verify":
                job = Job(*given)
                self._know(job.kind)
                self._jobs.append(job)
            case "prepare":
                self._know(*given)
            case "drop_stragglers":
                self._hurry(*given)
        return True

    def _hurry(self, numbers: frozenset[int]) -> None:
        """The caller waits for these and for nothing else."""
        for job in self._jobs:
            if job.number in numbers:
                job.hurried_s = 0.0
        for worker in self._workers.values():
            if worker.job and worker.job.number in numbers:
                worker.job.hurried_s = worker.seconds() + LAST_MOMENT_S

    def _know(self, kind: bytes) -> None:
        if kind not in self._experience:
            self._experience[kind] = self._prepare(kind)

    def _prepare(self, kind: bytes) -> Experience:
        """Import what a verifier needs, once and before workers are forked."""
        experience = Experience()
        with contextlib.suppress(Exception):
            verifier = pickle.loads(kind)
            experience.bounds_itself = verifier.bounds_itself
            verifier.warm_up()
            gc.collect()
            gc.freeze()  # a worker's garbage collection then leaves the shared pages alone
        for worker in [worker for worker in self._workers.values() if worker.job is None]:
            self._stop(worker)
        return experience

    def _limit_s(self, job: Job) -> float:
        """When it is stopped or given up."""
        return min(job.timeout_s, max(job.hurried_s, self._experience[job.kind].hopeless_s))

    def _seconds_to_next_event(self) -> float:
        events = [
            min(
                (self._limit_s(job) if worker.slow else min(job.patience_s, self._limit_s(job))) - worker.seconds(),
                (worker.wall_s if worker.slow else min(worker.wall_s, PATIENCE_ON_THE_CLOCK * job.patience_s))
                - worker.wall_seconds(),
            )
            for worker in self._workers.values()
            if (job := worker.job)
        ]
        return min([1.0, *(max(SHORTEST_WAIT_S, event) for event in events)])

    def _hand_out(self) -> None:
        while self._jobs:
            busy = [worker for worker in self._workers.values() if worker.job]
            num_slow = sum(worker.slow for worker in busy)
            if len(busy) - num_slow >= self._num_workers or num_slow >= SPARES:
                return
            try:
                worker = next((worker for worker in self._workers.values() if not worker.job), None) or self._fork()
            except OSError:  # no process or no file descriptor is left; those that run will free theirs
                if busy:
                    return
                time.sleep(SHORTAGE_S)
                raise
            job = self._jobs.popleft()
            try:
                worker.take(job)
            except OSError:  # it died while idle
                self._stop(worker)
                self._jobs.appendleft(job)

    def _worker_spoke(self, worker: Worker) -> None:
        try:
            number, fields = json.loads(worker.pipe.recv_bytes())
        except (EOFError, OSError):
            self._worker_died(worker)
            return
        except (ValueError, TypeError):
            number, fields = 0, dict[str, Any]()
        if worker.job is None or number != worker.job.number:  # a copy of the process spoke, which a verifier made
            self._worker_died(worker, "answered for another verification")
            return
        seconds = min(fields["seconds"], worker.took())
        if fields["status"] != "unknown":
            self._experience[worker.job.kind].came_back(seconds)
        self._answer(worker.job, fields | {"seconds": seconds})
        worker.job = None
        worker.num_done += 1
        if worker.slow or worker.num_done >= RECYCLE_AFTER or fields["status"] == "unknown":
            # its priority cannot be raised again, and after a failure its memory is in an unknown state
            self._stop(worker)

    def _worker_died(self, worker: Worker, why: str = "") -> None:
        job, seconds, code = worker.job, worker.seconds(), self._stop(worker)
        if job is None:
            return
        if not job.tried and not job.given_up:
            job.tried = True  # perhaps it was killed for what another did: once more, in a fresh worker
            self._jobs.appendleft(job)
            return
        ended = f"was killed by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"left with status {code}"
        self._answer(job, _unknown(f"the verifier's process {why or ended}", seconds))

    def _stop_late_ones(self) -> None:
        slow = [worker for worker in self._workers.values() if worker.job and worker.slow]
        if len(slow) > self._num_workers:
            for worker in slow:
                worker.crowded = True
        for worker in list(self._workers.values()):
            if worker.job is None:
                continue
            job, seconds, limit_s = worker.job, worker.seconds(), self._limit_s(worker.job)
            wall_s = worker.wall_s
            is_out_of_time = worker.wall_seconds() >= wall_s
            if seconds >= limit_s or is_out_of_time:
                if worker.pipe.poll():  # it spoke in the last moment
                    self._worker_spoke(worker)
                elif is_out_of_time and seconds < limit_s:
                    self._stop(worker)
                    waited = f"took longer than {wall_s:.3g} s on the clock and was stopped"
                    self._answer(job, _unknown(f"{waited}; it had a processor for a part of it only", seconds))
                elif limit_s < job.timeout_s:
                    self._give_up(worker, job, seconds, limit_s)
                else:
                    self._stop(worker)
                    self._answer(job, _unknown(f"took longer than {limit_s:.3g} s and was stopped", seconds))
            elif seconds >= job.patience_s or worker.wall_seconds() >= PATIENCE_ON_THE_CLOCK * job.patience_s:
                self._slow_down(worker)

    def _give_up(self, worker: Worker, job: Job, seconds: float, limit_s: float) -> None:
        """Answer for one that hardly comes back. One at a time goes on, to learn whether such do come back."""
        usual = f"no other of this verifier took longer than {self._experience[job.kind].longest_s:.3g} s"
        self._answer(job, _unknown(f"took longer than {limit_s:.3g} s and was given up: {usual}", seconds))
        if any(other.job and other.job.given_up for other in self._workers.values()):
            self._stop(worker)
            return
        job.given_up, job.hurried_s = True, math.inf
        self._slow_down(worker)

    def _slow_down(self, worker: Worker) -> None:
        """Let another take its place, and the processors."""
        if not worker.slow:
            worker.slow = True
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, worker.pid, SLOW_PRIORITY)

    def _answer(self, job: Job, fields: dict[str, object]) -> None:
        if not job.given_up:
            self._client.send_bytes(json.dumps([job.number, fields]).encode())

    def _fork(self) -> Worker:
        ours, theirs = Pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for pipe in (ours, self._client, *self._workers):
                    pipe.close()
                serve(theirs)
                status = 0
            finally:
                os._exit(status)
        theirs.close()
        worker = self._workers[ours] = Worker(pid, ours)
        return worker

    def _stop(self, worker: Worker) -> int:
        """Kill a worker and what it started in its process group. Returns its exit code, negative for a signal."""
        del self._workers[worker.pipe]
        worker.pipe.close()
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(OSError):
                kill(worker.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])


def serve(pipe: Connection) -> None:
    """A worker's life: take a job, judge, answer, until the pipe ends."""
    os.setpgid(0, 0)
    os.nice(PRIORITY)
    os.register_at_fork(
        after_in_child=pipe.close
    )  # what a verifier forks neither answers in its place nor hides its end
    when_parent_ends(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  for the rest of its life
    for standard in (1, 2):
        os.dup2(sys.stdout.fileno(), standard)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    while True:
        try:
            message = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        number, memory_mib = _HEAD.unpack_from(message)
        limit = memory_mib * MIB
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        pipe.send_bytes(json.dumps([number, _judge(message[_HEAD.size :])]).encode())


def _judge(work: bytes) -> dict[str, object]:
    begin = time.perf_counter()
    try:
        stream = io.BytesIO(work)
        verdict = dataclasses.asdict(judge(pickle.load(stream), *pickle.load(stream)))
        json.dumps(verdict)
        return verdict
    except BaseException as error:  # SystemExit, and what sympy's helpers raise beside Exception
        return _unknown(f"{type(error).__name__}: {error}"[:500], time.perf_counter() - begin)


def _unknown(detail: str, seconds: float) -> dict[str, object]:
    return dataclasses.asdict(Verdict("unknown", detail=detail, seconds=seconds))


def main() -> None:
    """Entry point: the connection's file descriptor, and the number of workers."""
    fd, num_workers = map(int, sys.argv[1:3])
    supervisor = Supervisor(Connection(fd), num_workers)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        supervisor.run()
    except (OSError, EOFError):
        pass  # the caller is gone
    finally:
        supervisor.end()


if __name__ == "__main__":
    main()
