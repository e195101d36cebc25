"""Attacks on the sandbox, for real: none may reach the host, outlive its run, or pass for a success."""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lampo.types import LampoError
from lampo.verify.code import sandbox as sandbox_module
from lampo.verify.code.sandbox import Limits, Outcome, Sandbox, SandboxError, find_sandbox
from lampo.verify.code.sandbox.bubblewrap import Bubblewrap
from lampo.verify.code.sandbox.cgroup import MOUNT, Cgroup, _processes
from lampo.verify.code.sandbox.unsafe import UnsafeLocal

from ....helpers.sandboxed import sandbox_or_skip


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return sandbox_or_skip()


def attack(sandbox: Sandbox, code: str, **limits: float) -> Outcome:
    values = {"wall_s": 20.0} | limits
    return sandbox.run(
        {"attack.py": code.encode()},
        [sandbox.python, "-I", "-S", "attack.py"],
        b"",
        Limits(**values),  # pyright: ignore
    )


def marked_processes(mark: str) -> list[str]:
    """All processes of this machine with this text on their command line."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            pass
    return found


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_program_runs_and_says_how_it_ended(sandbox: Sandbox) -> None:
    outcome = attack(sandbox, "print(open('attack.py').read()[:5]); import sys; print(sys.stdin.read(), end='')")
    assert (outcome.exit, outcome.code, outcome.stdout) == ("ok", 0, b"print\n")
    echo = sandbox.run({}, ["cat"], b"a\0b" * 100_000, Limits())
    assert echo.stdout == b"a\0b" * 100_000
    failed = attack(sandbox, "raise ValueError('seen')")
    assert (failed.exit, failed.code) == ("crash", 1)
    assert failed.stderr.endswith("ValueError: seen\n")
    assert attack(sandbox, "import os; os.kill(os.getpid(), 11)").code == 128 + 11
    assert attack(sandbox, "import ctypes; ctypes.string_at(0)").exit == "crash"
    assert attack(sandbox, "import os; os._exit(3)").code == 3
    deep = "import sys; sys.setrecursionlimit(10**9)\ndef f(n): return [f(n + 1)]\nf(0)"
    assert attack(sandbox, deep).exit in ("crash", "memory")


def test_time_is_bounded(sandbox: Sandbox) -> None:
    for code in (
        "while True: pass",
        "import time; time.sleep(60)",
        "import signal, time\nfor n in (1, 2, 15, 24): signal.signal(n, signal.SIG_IGN)\nwhile True: time.sleep(1)",
        "import os, sys; os.close(1); os.close(2)\nwhile True: pass",
    ):
        outcome = attack(sandbox, code, wall_s=1.0, cpu_s=1)
        assert outcome.exit == "time"
        assert outcome.seconds < 10


def test_cpu_time_is_bounded_apart_from_wall_time(sandbox: Sandbox) -> None:
    assert attack(sandbox, "while True: pass", cpu_s=1, wall_s=60).exit == "time"


def test_cpu_time_counts_all_processes_and_fractions_of_a_second(sandbox: Sandbox) -> None:
    roots = getattr(sandbox, "_roots", ())
    if not roots or not (os.access(MOUNT / "cpuacct", os.W_OK) or any((root / "cpu.stat").exists() for root in roots)):
        pytest.skip("no control group tells the CPU time here")
    burn = "import os, time\nfor _ in range({children}):\n  if os.fork() == 0: break\nwhile time.process_time() < {seconds}: pass\ntime.sleep(30)"
    for children, seconds, limit_s in ((0, 60, 0.2), (3, 0.8, 2)):
        outcome = attack(sandbox, burn.format(children=children, seconds=seconds), cpu_s=limit_s, wall_s=25)
        assert outcome.exit == "time"
        assert outcome.code == 128 + 9  # by us, before the limit of a process
        assert outcome.seconds < 25
    silent = "import os\nos.close(1); os.close(2)\nwhile True: pass"
    assert attack(sandbox, silent, cpu_s=0.2, wall_s=25).seconds < 25


def test_memory_is_bounded_for_one_process(sandbox: Sandbox) -> None:
    assert attack(sandbox, "held = bytearray(2**30)", memory_mib=128).exit == "memory"
    assert attack(sandbox, "held = []\nwhile True: held.append(bytearray(2**20))", memory_mib=128).exit == "memory"


def test_memory_is_bounded_for_all_its_processes_together(sandbox: Sandbox) -> None:
    if not getattr(sandbox, "_roots", ()):
        pytest.skip("no control group for memory can be made here: only each process is bounded")
    code = (
        "import os, time\nfor _ in range(8):\n  if os.fork() == 0:\n    held = b'x' * (100 * 2**20); time.sleep(30); os._exit(0)\n"
        "time.sleep(30)"
    )
    outcome = attack(sandbox, code, memory_mib=256, wall_s=8)
    assert outcome.exit in ("memory", "time")


def test_output_is_bounded(sandbox: Sandbox) -> None:
    for stream in ("stdout", "stderr"):
        outcome = attack(sandbox, f"import sys\nwhile True: sys.{stream}.write('x' * 10000)", output_kib=64)
        assert outcome.exit == "output"
        assert len(outcome.stdout) <= 64 * 1024
        assert len(outcome.stderr) <= 2000


def test_a_fork_bomb_is_capped_and_gone(sandbox: Sandbox) -> None:
    mark = f"bomb-{os.getpid()}-{time.monotonic_ns()}"
    code = f"import os\nmark = '{mark}'\nwhile True:\n  try: os.fork()\n  except OSError: pass"
    outcome = sandbox.run({}, [sandbox.python, "-I", "-S", "-c", code], b"", Limits(wall_s=2.0, processes=16))
    assert outcome.exit == "time"
    assert marked_processes(mark) == []


def test_the_number_of_processes_is_capped(sandbox: Sandbox) -> None:
    code = "import os, time\nn = 0\ntry:\n  while True:\n    if os.fork() == 0: time.sleep(30)\n    n += 1\nexcept OSError: print(n, flush=True)\nos._exit(0)"
    outcome = attack(sandbox, code, processes=16)
    assert 0 < int(outcome.stdout) < 20


def test_nothing_survives_in_the_background(sandbox: Sandbox) -> None:
    mark = f"daemon-{os.getpid()}-{time.monotonic_ns()}"
    code = f"import os, time\nmark = '{mark}'\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0: time.sleep(600)\n  os._exit(0)\nprint('left')"
    outcome = sandbox.run({}, [sandbox.python, "-I", "-S", "-c", code], b"", Limits(wall_s=3.0))
    assert outcome.stdout == b"left\n"
    wait_until(lambda: marked_processes(mark) == [])


def test_the_hosts_files_are_not_there(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "expected.txt"
    secret.write_text("the expected output")
    here = Path(__file__).resolve()
    code = f"""
import os
for path in ("/etc/shadow", "/etc/passwd", "/etc/hostname", {str(secret)!r}, {str(here)!r}, "/proc/1/environ", "/proc/1/root/etc/shadow",
             "/proc/self/root/../etc/shadow", "/sys/kernel", "/var/log", "/home", "/run"):
    try:
        print("READ", path, os.listdir(path) if os.path.isdir(path) else open(path).read(100))
    except OSError:
        pass
os.symlink({str(secret)!r}, "link")
try: print("READ", open("link").read())
except OSError: pass
print(len([pid for pid in os.listdir("/proc") if pid.isdigit()]))
"""
    outcome = attack(sandbox, code)
    lines = outcome.stdout.decode().splitlines()
    assert outcome.exit == "ok", outcome.stderr
    assert [line for line in lines if line.startswith("READ") and not line.startswith("READ /proc/1/environ")] == []
    assert "the expected output" not in outcome.stdout.decode()
    assert int(lines[-1]) <= 3  # bubblewrap's own and this one


def test_the_environment_is_empty(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "a secret")
    code = "import os, glob\nprint(dict(os.environ))\nfor f in glob.glob('/proc/*/environ'):\n  try: print(open(f).read())\n  except OSError: pass"
    outcome = attack(sandbox, code)
    assert b"a secret" not in outcome.stdout
    assert b"/usr/bin:/bin" in outcome.stdout


def test_no_file_descriptor_of_ours_is_open(sandbox: Sandbox) -> None:
    with open(__file__), open(__file__) as held:
        os.set_inheritable(held.fileno(), True)
        outcome = attack(
            sandbox,
            "import os; print(*[os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if int(n) > 2 and os.path.exists(f'/proc/self/fd/{n}')])",
        )
    assert "test_sandbox" not in outcome.stdout.decode()


def test_there_is_no_network(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"""
import socket
for place in (("127.0.0.1", {server.getsockname()[1]}), ("1.1.1.1", 53), ("::1", {server.getsockname()[1]})):
    try:
        socket.create_connection(place, timeout=2); print("CONNECTED", place)
    except OSError as error: print(error)
print(open("/proc/net/dev").read())
"""
        outcome = attack(sandbox, code)
    assert outcome.exit == "ok", outcome.stderr
    assert b"CONNECTED" not in outcome.stdout
    assert b"eth0" not in outcome.stdout


def test_killing_others_reaches_nobody(sandbox: Sandbox) -> None:
    witness = subprocess.Popen(["sleep", "60"])
    try:
        attack(
            sandbox,
            f"import os\nfor pid in (-1, 1, os.getppid(), {witness.pid}, {os.getpid()}):\n  try: os.kill(pid, 9)\n  except OSError: pass",
        )
        assert witness.poll() is None
    finally:
        witness.kill()
        witness.wait()
    assert attack(sandbox, "print(1)").exit == "ok"


def test_no_privilege_can_be_had(sandbox: Sandbox) -> None:
    code = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
print("mount", libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))
print("unshare", libc.unshare(0x10000000))
print("chroot", libc.chroot(b"/usr"))
for call in (lambda: os.setuid(0), lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0)), lambda: os.chown("/usr", 0, 0)):
    try: call(); print("DONE")
    except OSError: pass
print([line for line in open("/proc/self/status") if line.startswith(("CapEff", "NoNewPrivs"))])
"""
    outcome = attack(sandbox, code)
    text = outcome.stdout.decode()
    assert outcome.exit == "ok", outcome.stderr
    assert "DONE" not in text
    for name in ("mount", "unshare", "chroot"):
        assert f"{name} -1" in text
    assert "CapEff:\\t0000000000000000" in text
    assert "NoNewPrivs:\\t1" in text


def test_nothing_can_be_written_but_a_small_tmp(sandbox: Sandbox) -> None:
    code = """
import os
for place in ("/usr", "/usr/bin", "/etc", "/dev", "/", "/proc", os.path.dirname(os.__file__)):
    try: open(os.path.join(place, "written"), "w").write("x"); print("WROTE", place)
    except OSError: pass
for place in ("/tmp", "/dev/shm"):
    total = 0
    try:
        for n in range(2000):
            with open(f"{place}/{n}", "wb") as stream: stream.write(b"x" * 2**20); total += 1
    except OSError as error: print(place, total, error.errno)
"""
    outcome = attack(sandbox, code, tmp_mib=16, open_files=32)
    text = outcome.stdout.decode()
    assert "WROTE" not in text
    rooms = {
        line.split()[0]: int(line.split()[1]) for line in text.splitlines() if line.startswith(("/tmp", "/dev/shm"))
    }
    assert rooms["/tmp"] <= 16
    assert rooms["/dev/shm"] <= 1


def test_no_setting_of_the_kernel_can_be_opened_for_writing(sandbox: Sandbox) -> None:
    code = """
import os
num_tried = 0
for folder, _, files in os.walk("/proc"):
    for path in (os.path.join(folder, name) for name in files):
        if os.path.islink(path): continue
        num_tried += 1
        try: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)); print("OPENED", path)
        except OSError: pass
print(num_tried, os.path.exists("/proc/sys/kernel/core_pattern"))
"""
    outcome = attack(sandbox, code)
    *opened, last = outcome.stdout.decode().splitlines()
    assert opened == []
    assert int(last.split()[0]) > 300
    assert last.endswith("True")


def test_a_file_and_their_number_are_bounded(sandbox: Sandbox) -> None:
    outcome = attack(sandbox, "held = [open(f'{n}', 'w') for n in range(10_000)]", open_files=32)
    assert outcome.exit == "crash"
    assert "Too many open files" in outcome.stderr
    assert attack(sandbox, "import os\nos.truncate(os.open('big', 65), 2**40)", tmp_mib=8).exit != "ok"


def test_runs_do_not_see_each_other_and_leave_nothing(sandbox: Sandbox) -> None:
    assert attack(sandbox, "open('/tmp/left', 'w').write('x')").exit == "ok"
    assert attack(sandbox, "open('/tmp/left')").exit == "crash"
    assert not Path("/tmp/left").exists()
    for root in getattr(sandbox, "_roots", ()):
        assert list(root.glob(f"lampo-{os.getpid()}-*")) == []


def test_many_at_once(sandbox: Sandbox) -> None:
    outcomes: dict[int, bytes] = {}

    def one(number: int) -> None:
        outcomes[number] = attack(sandbox, f"print({number})").stdout

    threads = [threading.Thread(target=one, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {number: f"{number}\n".encode() for number in range(24)}


def test_a_sandbox_that_fails_is_told_from_a_program_that_fails(sandbox: Sandbox) -> None:
    outcome = attack(sandbox, "import sys; sys.stderr.write('bwrap: Cannot start'); sys.exit(1)")
    assert outcome.exit == "crash"
    broken = Bubblewrap(getattr(sandbox, "_roots", ()))
    broken._flags = [*broken._flags, "--no-such-flag"]
    with pytest.raises(SandboxError, match="failed with status 1: bwrap: Unknown option"):
        attack(broken, "print(1)")


def test_without_a_sandbox_it_is_refused_unless_asked_for_loudly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Bubblewrap:
        raise SandboxError("no user namespaces")

    monkeypatch.setattr(Bubblewrap, "start", fail)
    for cached in (sandbox_module._bubblewrap, sandbox_module._warn):
        cached.cache_clear()
    try:
        with pytest.raises(
            LampoError, match=r"no user namespaces(.|\n)*apt install bubblewrap(.|\n)*allow_unsandboxed"
        ):
            find_sandbox()
        with caplog.at_level(logging.WARNING, logger="lampo"):
            assert isinstance(find_sandbox(allow_unsandboxed=True), UnsafeLocal)
        assert "UNSANDBOXED" in caplog.text
    finally:
        for cached in (sandbox_module._bubblewrap, sandbox_module._warn):
            cached.cache_clear()


def test_the_unsafe_runner_keeps_the_limits_it_can() -> None:
    unsafe = UnsafeLocal()
    assert attack(unsafe, "print(6 * 7)").stdout == b"42\n"
    assert attack(unsafe, "while True: pass", wall_s=1.0).exit == "time"
    assert attack(unsafe, "held = bytearray(2**30)", memory_mib=128).exit == "memory"
    assert attack(unsafe, "while True: print('x' * 1000)", output_kib=64).exit == "output"


def test_the_unsafe_runner_leaves_no_program_when_it_is_killed(tmp_path: Path) -> None:
    started = tmp_path / "started"
    program = f"import time; open({str(started)!r}, 'w').close(); time.sleep(600)"
    run = "import sys; from lampo.verify.code.sandbox.unsafe import *; UnsafeLocal().run({}, [sys.executable, '-c', sys.argv[1]], b'', Limits(wall_s=500))"
    runner = subprocess.Popen([sys.executable, "-c", run, program])
    try:
        wait_until(started.exists)
    finally:
        runner.kill()
        runner.wait()
    wait_until(lambda: marked_processes(str(started)) == [])


def test_the_name_of_a_control_group_is_never_used_again() -> None:
    code = """
import os
from pathlib import Path
from lampo.verify.code.sandbox.cgroup import Cgroup
os.getpid = lambda: 7  # the number of a process that is gone is used again
for _ in range(3):
    if os.fork() == 0:  # each has what its parent had
        print(Cgroup((Path("/"),), processes=1, memory_mib=1)._folders[0], flush=True)
        os._exit(0)
    os.wait()
"""
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert len(set(names)) == 3


def test_control_groups_of_a_killed_process_are_removed_by_the_next(sandbox: Sandbox) -> None:
    roots = getattr(sandbox, "_roots", ())
    if not roots:
        pytest.skip("no control group can be made here")
    code = """
import os
from lampo.verify.code.sandbox.cgroup import Cgroup, writable_roots
roots = writable_roots()
for _ in range(2):
    if os.fork() == 0:
        group = Cgroup(roots, processes=1, memory_mib=64)
        group.__enter__()
        print(group._folders[0], flush=True)
        os._exit(0)  # as if killed
    os.wait()
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    first, second = map(Path, said.split())
    assert not first.exists()
    for root in roots:
        (root / second.name).rmdir()
    with pytest.raises(OSError, match="nowhere"):
        Cgroup((*roots, Path("/nowhere")), processes=1, memory_mib=64).__enter__()
    assert [folder for root in roots for folder in root.glob(f"lampo-{os.getpid()}-*")] == []


def test_processes_of_another_pid_namespace_are_never_killed(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("0\n7\n0\n")  # so the kernel shows them, and kill(0) would end ourselves
    assert _processes(tmp_path) == [7]
    assert _processes(tmp_path / "gone") == []
