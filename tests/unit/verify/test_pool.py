"""The pool against verifiers that hang, crash, eat memory and lie; timings bound, never decide by a hair."""

import asyncio
import itertools
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lampo.types import Problem, Rollout, Verdict
from lampo.verify import CodeOptions, NumericOptions, PythonOptions, VerifierOptions, VerifierPool, judge, verifier
from lampo.verify.code.sandbox.cgroup import writable_roots
from lampo.verify.code.tests import ProgramTests
from lampo.verify.pool.workers import CROWD_S, HOPELESS_AFTER
from lampo.verify.verification import Verification

from ...helpers.pathological import Bounded

FUNCTION = "tests.helpers.pathological.verify"


def own(timeout_s: float = 20.0, **changes: object) -> PythonOptions:
    return PythonOptions(function=FUNCTION, timeout_s=timeout_s, **changes)  # pyright: ignore


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(workers=2) as pool:
        yield pool


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone_soon(pids: list[int]) -> bool:
    end = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(alive, pids))


def test_verdicts_keep_their_order(pool: VerifierPool) -> None:
    numbers = list(map(str, range(300)))
    verdicts = pool.verify(own(), numbers, [str(int(number) // 2 * 2) for number in numbers])
    assert [verdict.status for verdict in verdicts] == ["right", "wrong"] * 150
    assert sum(verdict.seconds for verdict in verdicts) > 0


def test_a_killed_one_loses_no_neighbour(pool: VerifierPool) -> None:
    said = ["4", "spin", "5", "crash", "4", "exit 3", "5", "eat", "4", "leave", "5", "raise", "4", "interrupt", "4"]
    verdicts = pool.verify(own(timeout_s=1.0), said, ["4"] * len(said))
    statuses = {text: verdict.status for text, verdict in zip(said, verdicts, strict=True)}
    assert statuses.pop("4") == "right"
    assert statuses.pop("5") == "wrong"
    assert set(statuses.values()) == {"unknown"}
    detail = {text: verdict.detail for text, verdict in zip(said, verdicts, strict=True)}
    assert detail["spin"] == "took longer than 1 s and was stopped"
    assert detail["crash"] == "the verifier's process was killed by signal 11 (Segmentation fault)"
    assert detail["exit 3"] == "the verifier's process left with status 3"
    assert "MemoryError" in detail["eat"]
    assert "failed. ValueError: no idea (" in detail["raise"]
    assert "failed. SystemExit: 0 (" in detail["leave"]
    assert detail["interrupt"].startswith("KeyboardInterrupt")


def test_memory_is_limited_for_each_verification(pool: VerifierPool) -> None:
    (verdict,) = pool.verify(own(timeout_s=60, memory_mib=256), ["eat-slowly"], ["4"])
    assert verdict.status == "unknown"
    assert "MemoryError" in verdict.detail
    assert pool.verify(own(), ["4"], ["4"])[0].status == "right"


def test_hanging_ones_run_beside_each_other_and_let_others_pass() -> None:
    with VerifierPool(workers=1) as pool:
        pool.verify(own(), ["4"], ["4"])  # started
        begin = time.monotonic()
        slow = [pool.submit(own(timeout_s=5.0), "sleep 60", "4") for _ in range(6)]
        quick = pool.verify(own(), ["4"] * 50, ["4"] * 50)
        assert all(verdict.status == "right" for verdict in quick)
        assert not all(future.done() for future in slow)  # the quick ones did not wait for them
        assert {future.result().status for future in slow} == {"unknown"}
        assert time.monotonic() - begin < 6 * 5.0


def test_those_that_spin_cost_no_more_wall_time_than_four_limits_or_ten_seconds() -> None:
    """Two processors need 16 s to give each of them its 2 s, and far longer where they are busy."""
    with VerifierPool(workers=2) as pool:
        pool.verify(own(), ["4"], ["4"])  # started
        begin = time.monotonic()
        spinning = [pool.submit(own(timeout_s=2.0), "spin", "4") for _ in range(16)]
        assert pool.verify(own(), ["4"] * 20, ["4"] * 20)[0].status == "right"
        verdicts = [future.result() for future in spinning]
        seconds = time.monotonic() - begin
    assert {verdict.status for verdict in verdicts} == {"unknown"}
    assert seconds < CROWD_S + 5
    assert all("and was stopped" in verdict.detail for verdict in verdicts)


def test_what_a_verification_started_ends_with_it() -> None:
    before = set(os.listdir("/proc"))
    with VerifierPool(workers=1) as pool:
        assert pool.verify(own(timeout_s=0.5), ["spawn-and-spin"], [""])[0].status == "unknown"
    sleeping = [
        int(pid)
        for pid in set(os.listdir("/proc")) - before
        if pid.isdigit() and b"lampo.verify.pool.workers" in command(pid)
    ]
    assert gone_soon(sleeping)


def command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_what_a_function_may_return(pool: VerifierPool) -> None:
    verdicts = pool.verify(own(), ["none", "text", "score", "print"], ["4"] * 4)
    assert [verdict.status for verdict in verdicts] == ["unknown", "unknown", "wrong", "right"]
    assert verdicts[1].detail == (
        f"{FUNCTION} returned a str. It must return a Verdict, True, False, a number or None."
    )
    assert verdicts[2].score == 0.25
    assert pool.verify(own(options={"prefix": "0"}), ["4"], ["04"])[0].status == "right"


def test_a_strange_verdict_stops_no_other(pool: VerifierPool) -> None:
    futures = [pool.submit(own(), text, "4") for text in ("4", "subclass", "no-status", "4")]
    assert [future.result(timeout=60).status for future in futures] == ["right", "right", "unknown", "right"]


@pytest.mark.parametrize("forks", ["fork-and-return", "fork-unseen-and-return"])
def test_a_copy_of_a_worker_does_not_answer_in_its_place(forks: str) -> None:
    with VerifierPool(workers=1) as pool:
        assert [verdict.status for verdict in pool.verify(own(), [forks, "sleep 1"], ["", ""])] == ["right"] * 2
        parent = pool._parent
        assert pool.verify(own(), [forks], [""])[0].status == "right"
        time.sleep(0.6)  # its copy speaks while nothing is asked
        assert pool.verify(own(), ["4"], ["4"])[0].status == "right"
        assert pool._parent is parent


def test_a_crash_is_seen_although_a_child_lives_on(pool: VerifierPool) -> None:
    (verdict,) = pool.verify(own(), ["fork-and-crash"], [""])
    assert verdict.detail == "the verifier's process was killed by signal 11 (Segmentation fault)"


def test_a_dead_idle_worker_is_replaced_and_so_is_the_parent_of_all() -> None:
    with VerifierPool(workers=1) as pool:
        (verdict,) = pool.verify(own(), ["pid"], [""])
        assert verdict.extracted is not None
        os.kill(int(verdict.extracted), signal.SIGKILL)
        assert pool.verify(own(), ["4"], ["4"])[0].status == "right"
        waiting = [pool.submit(own(), "sleep 0.4", "") for _ in range(3)]
        parent = pool._parent
        assert parent is not None
        os.kill(parent._process.pid, signal.SIGKILL)
        assert [future.result().status for future in waiting] == ["right"] * 3
        assert pool._parent is not parent


def test_after_a_restart_imports_still_are_no_part_of_a_verification() -> None:
    slow = PythonOptions(function="tests.helpers.slow_to_import.verify", timeout_s=1)
    with VerifierPool(workers=2) as pool:
        waiting = [pool.submit(slow, "4", "4") for _ in range(3)]
        assert pool._parent is not None
        os.kill(pool._parent._process.pid, signal.SIGKILL)
        assert [future.result().status for future in waiting] == ["right"] * 3


@contextmanager
def no_file_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_where_workers_cannot_be_started_verdicts_are_unknown_and_later_ones_are_not() -> None:
    with VerifierPool(workers=1) as pool:
        waiting = pool.submit(own(timeout_s=600), "sleep 600", "")
        parent = pool._parent
        assert parent is not None
        with no_file_descriptor_left():
            os.kill(parent._process.pid, signal.SIGKILL)
            assert waiting.result(timeout=60).detail.startswith("the verification workers could not be started: ")
            assert pool.submit(own(), "4", "4").result(timeout=60).status == "unknown"
        assert pool.verify(own(), ["4"], ["4"])[0].status == "right"


def test_a_fork_of_the_caller_leaves_its_workers_alone(tmp_path: Path) -> None:
    process = run_script(
        f"""
        import os, sys
        from lampo.verify import VerifierPool, verifier
        pool = VerifierPool(1)
        own = verifier("python:{FUNCTION}", timeout_s=600)
        (before,) = pool.verify(own, ["pid"], [""])
        for uses_the_pool in (False, True):
            child = os.fork()
            if child == 0:
                sys.exit(pool.verify(own, ["4"], ["4"])[0].status != "right" if uses_the_pool else 0)
            assert os.waitpid(child, 0)[1] == 0
        (after,) = pool.verify(own, ["pid"], [""])
        print(after.extracted == before.extracted)
        """,
        tmp_path,
    )
    assert process.communicate(timeout=60)[0] == "True\n"


def test_a_worker_that_cannot_be_forked_is_done_without() -> None:
    with VerifierPool(workers=3) as pool:
        pool.verify(own(), ["4"], ["4"])
        parent = pool._parent
        assert parent is not None
        pid = parent._process.pid
        used = set(map(int, os.listdir(f"/proc/{pid}/fd")))
        _, second = itertools.islice((number for number in itertools.count() if number not in used), 2)
        hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (second, hard))  # a pipe takes two
        assert [verdict.status for verdict in pool.verify(own(), ["sleep 0.3"] * 3, [""] * 3)] == ["right"] * 3
        assert pool._parent is parent


def test_killed_workers_leave_no_control_groups() -> None:
    roots = writable_roots()
    if not roots or not shutil.which("bwrap"):
        pytest.skip("no control groups can be made here")
    tests = ProgramTests(type="stdin", inputs=["1"], outputs=["1"]).dump()
    killed: set[str] = set()
    with VerifierPool(workers=1) as pool:
        for _ in range(2):  # each is tried twice
            future = pool.submit(CodeOptions(), "```\nwhile True: pass\n```", tests)
            while not future.done():
                for folder in roots[0].glob("lampo-*-*"):
                    pid = folder.name.split("-")[1]
                    if pool._parent and pid not in killed and parent_of(pid) == pool._parent._process.pid:
                        killed.add(pid)
                        os.kill(int(pid), signal.SIGKILL)
                time.sleep(0.01)
    first_ones = sorted(killed, key=int)[:2]
    assert len(first_ones) == 2
    assert not [folder for root in roots for pid in first_ones for folder in root.glob(f"lampo-{pid}-*")]


def parent_of(pid: str) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_closing_ends_what_runs_and_leaves_no_process() -> None:
    pool = VerifierPool(workers=2)
    (verdict,) = pool.verify(own(), ["pid"], [""])
    hanging = pool.submit(own(), "spin", "")
    parent = pool._parent
    assert parent is not None
    time.sleep(0.2)
    pool.close()
    pool.close()
    assert hanging.result(timeout=5).status == "unknown"
    assert gone_soon([int(verdict.extracted or 0), parent._process.pid])
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(own(), "4", "4")


def test_workers_can_be_started_before_the_first_verification() -> None:
    with VerifierPool(workers=1) as pool:
        pool.start([NumericOptions(), own(options={"not fit for a worker": lambda: None})])
        assert pool._parent is None  # one needs none, the other cannot have one
        pool.start([own(), own()])
        parent = pool._parent
        assert parent is not None
        assert [verdict.status for verdict in pool.verify(own(), ["1", "2"], ["1", "3"])] == ["right", "wrong"]
        assert pool._parent is parent
    pool.start([own()])
    assert pool._parent is None  # closed


def test_a_bounded_verifier_needs_no_process() -> None:
    with VerifierPool() as pool:
        assert pool.submit(NumericOptions(), "It is 4.", "4").result().status == "right"
        assert pool.submit(NumericOptions(), "It is 4.", "four").result().status == "unknown"
        assert pool._parent is None


def test_from_threads_and_from_asyncio(pool: VerifierPool) -> None:
    found: list[list[Verdict]] = []
    threads = [
        threading.Thread(target=lambda: found.append(pool.verify(own(), ["4", "5"] * 20, ["4"] * 40))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[verdict.status for verdict in verdicts] for verdicts in found] == [["right", "wrong"] * 20] * 4

    async def several() -> list[Verdict]:
        return await asyncio.gather(*(asyncio.wrap_future(pool.submit(own(), text, "4")) for text in ("4", "5", "4")))

    assert [verdict.status for verdict in asyncio.run(several())] == ["right", "wrong", "right"]


def test_progress_is_told(pool: VerifierPool) -> None:
    told: list[tuple[int, int]] = []
    pool.verify(own(), ["4"] * 3, ["4"] * 3, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def run_script(text: str, folder: Path, **options: object) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(textwrap.dedent(text))
    root = Path(__file__).resolve().parents[3]
    return subprocess.Popen(
        [sys.executable, str(script)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_script_needs_no_main_guard_and_no_close(tmp_path: Path) -> None:
    process = run_script(
        f"""
        from lampo.verify import VerifierPool, verifier
        pool = VerifierPool(2)
        print([verdict.status for verdict in pool.verify(verifier("python:{FUNCTION}"), ["4", "5"], ["4", "4"])])
        """,
        tmp_path,
    )
    assert process.communicate(timeout=60)[0] == "['right', 'wrong']\n"
    assert process.returncode == 0


def test_workers_go_with_a_killed_caller_even_from_an_endless_loop(tmp_path: Path) -> None:
    process = run_script(
        f"""
        import time
        from lampo.verify import VerifierPool, verifier
        pool = VerifierPool(2)
        own = verifier("python:{FUNCTION}", timeout_s=600)
        print(pool.verify(own, ["pid"], [""])[0].extracted, pool._parent._process.pid, flush=True)
        pool.submit(own, "spin", "")
        time.sleep(600)
        """,
        tmp_path,
    )
    assert process.stdout is not None
    pids = list(map(int, process.stdout.readline().split()))
    time.sleep(0.5)
    process.kill()
    process.communicate()
    assert gone_soon(pids)


def test_verifiers_see_no_torch(tmp_path: Path) -> None:
    process = run_script("import sys, lampo.verify, lampo.tasks; print('torch' in sys.modules)", tmp_path)
    assert process.communicate(timeout=60)[0] == "False\n"


def test_a_function_is_named_in_short_or_in_full_and_must_exist() -> None:
    short = verifier(f"python:{FUNCTION}", timeout_s=2)
    assert short == PythonOptions(function=FUNCTION, timeout_s=2)
    verdict = judge(PythonOptions(function="no.such.function"), "", "")
    assert verdict.status == "unknown"
    assert "There is no module 'no' for the verifier no.such.function" in verdict.detail


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="the kernel does not tell how long a process waited"
)
def test_waiting_for_a_busy_processor_hardly_counts() -> None:
    spin = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(spin) for _ in range(len(os.sched_getaffinity(0)))]
    try:
        with VerifierPool(workers=1) as pool:
            begin = time.monotonic()
            # at the lowest priority it may need half a minute, which is when it would be stopped
            verdict = pool.verify(own(timeout_s=2), ["work 0.12"], [""])[0]
            seconds = time.monotonic() - begin
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert verdict.status == "right", verdict
    assert verdict.seconds < min(0.5, seconds)


def test_seconds_hold_what_a_verification_was_blocked(pool: VerifierPool) -> None:
    verdicts = pool.verify(own(), ["sleep 0.2"] * 6, [""] * 6)
    assert min(verdict.seconds for verdict in verdicts) > 0.1


@pytest.fixture
def experienced() -> Iterator[VerifierPool]:
    """A pool that knows that `own()` is quick."""
    with VerifierPool(workers=2) as pool:
        pool.verify(own(timeout_s=600), ["4"] * HOPELESS_AFTER, ["4"] * HOPELESS_AFTER)
        yield pool


def test_those_that_hardly_come_back_are_given_up_once_it_is_known_what_is_usual(experienced: VerifierPool) -> None:
    said = ["sleep 600", "sleep 0.02", "sleep 600", "sleep 600", "4"]
    verdicts = experienced.collect([experienced.submit(own(timeout_s=600), text, "4") for text in said])
    assert [verdict.status for verdict in verdicts] == ["unknown", "right", "unknown", "unknown", "right"]
    assert re.fullmatch(
        r"took longer than \S+ s and was given up: no other of this verifier took longer than \S+ s", verdicts[0].detail
    )


def test_before_it_is_known_what_is_usual_all_are_waited_for() -> None:
    with VerifierPool(workers=1) as pool:
        assert pool.collect([pool.submit(own(), "sleep 1", "")])[0].status == "right"


def test_slower_ones_are_not_given_up_for_ever(experienced: VerifierPool) -> None:
    slower = own(timeout_s=600)
    assert experienced.collect([experienced.submit(slower, "sleep 1.5", "")])[0].status == "unknown"
    end = time.monotonic() + 60
    while experienced.collect([experienced.submit(slower, "sleep 1.5", "")])[0].status == "unknown":
        assert time.monotonic() < end


def test_what_is_usual_for_one_verifier_says_nothing_of_another(experienced: VerifierPool) -> None:
    other = own(timeout_s=600, options={"prefix": "0"})
    assert experienced.collect([experienced.submit(other, "sleep 1", "")])[0].status == "right"


def test_one_that_bounds_itself_is_never_given_up() -> None:
    bounded = Bounded(function=FUNCTION, timeout_s=600)
    with VerifierPool(workers=2) as pool:
        pool.verify(bounded, ["4"] * HOPELESS_AFTER, ["4"] * HOPELESS_AFTER)
        assert pool.collect([pool.submit(bounded, "sleep 1", "")])[0].status == "right"
    assert CodeOptions.bounds_itself


class Counting(VerifierPool):
    """A pool that keeps what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str]] = []

    def submit(self, verifier: VerifierOptions, completion: str, answer: str) -> Future[Verdict]:
        self.asked.append((completion, answer))
        return super().submit(verifier, completion, answer)


def test_a_text_that_a_group_has_twice_is_verified_once() -> None:
    pool = Counting()
    with pool:
        problems = [Problem("a", "2+2=", "4"), Problem("b", "2+3=", "5")]
        texts_PG = ["4", "5", "4"], ["4", "5", "5"]
        rollouts_PG = [[drawn(text) for text in texts_G] for texts_G in texts_PG]
        verdicts_PG = Verification(pool, problems, None).verdicts(rollouts_PG, drop_stragglers=True)
    assert [[verdict.status[0] for verdict in verdicts_G] for verdicts_G in verdicts_PG] == [[*"rwr"], [*"wrr"]]
    assert sorted(pool.asked) == [("4", "4"), ("4", "5"), ("5", "4"), ("5", "5")]


def drawn(text: str) -> Rollout:
    one = torch.ones(1)
    return Rollout(one.long(), one.long(), -one, True, text)
