"""Control groups: caps on the processes and the memory of everything that a run starts, together.

RLIMIT_AS counts each process alone, and RLIMIT_NPROC does not bind the user root: these do. Version 1 needs the mounted
hierarchies `memory` and `pids` to be writable, version 2 a delegated group with these controllers. What a run computes is
told by version 2, and by `cpuacct` of version 1 where that is writable too.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
import signal
import time
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
_NAME = re.compile(r"lampo-(\d+)-[0-9a-f]+")


class Cgroup:
    """A group for one run, as a context manager. Leaving it kills what is left inside."""

    def __init__(self, roots: tuple[Path, ...], *, processes: int, memory_mib: int) -> None:
        name = f"lampo-{os.getpid()}-{secrets.token_hex(8)}"  # a process killed in a run leaves its folder, and its number is reused
        self._roots, self._folders = roots, [root / name for root in roots]
        memory = str(memory_mib * 2**20)
        self._settings = {
            "pids.max": str(processes),
            "memory.limit_in_bytes": memory,
            "memory.memsw.limit_in_bytes": memory,
            "memory.max": memory,
            "memory.swap.max": "0",
        }

    @property
    def entries(self) -> list[str]:
        """Files to which a process that has one thread writes 0, itself, to get in. They are there once the group is entered.

        To move a process into a group (`cgroup.procs`), the kernel stops all forks and exits of the machine and waits for
        every processor to notice: some 10 ms, unless it did so just before. A thread that moves itself by `tasks` needs
        none of that (Linux 5.12), and one thread is all that a shell has. Version 2 has no such file.
        """
        return [
            str(folder / name)
            for folder in self._folders
            for name in ("tasks" if (folder / "tasks").exists() else "cgroup.procs",)
        ]

    def __enter__(self) -> Cgroup:
        _remove_stale(self._roots, os.getpid())
        try:
            for folder in self._folders:
                folder.mkdir()
                for name, value in self._settings.items():
                    if (folder / name).exists():
                        with contextlib.suppress(OSError):  # swap accounting may be off
                            (folder / name).write_text(value)
        except OSError:
            for folder in self._folders:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for folder in self._folders:
            _remove(folder)

    def kill(self) -> None:
        """Kill everything inside, and wait until it is gone."""
        end, pause_s = time.monotonic() + 5, 1e-4
        while time.monotonic() < end:
            inside = {pid for folder in self._folders for pid in _processes(folder)}
            if not inside:
                return
            for pid in inside:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(pause_s)  # what dies is mostly gone in a fraction of a millisecond
            pause_s = min(2 * pause_s, 1e-3)

    def computed_s(self) -> float:
        """CPU time of all that was ever inside; 0 where the kernel does not tell."""
        for folder in self._folders:
            with contextlib.suppress(OSError):
                return int((folder / "cpuacct.usage").read_text()) * 1e-9
            with contextlib.suppress(OSError):
                if said := re.search(r"^usage_usec (\d+)", (folder / "cpu.stat").read_text(), re.MULTILINE):
                    return int(said[1]) * 1e-6
        return 0.0

    def out_of_memory(self) -> bool:
        """Whether the kernel killed something inside for its memory."""
        for folder in self._folders:
            for name in ("memory.oom_control", "memory.events"):
                with contextlib.suppress(OSError):
                    if re.search(r"^oom_kill [1-9]", (folder / name).read_text(), re.MULTILINE):
                        return True
        return False


def writable_roots() -> tuple[Path, ...]:
    """Where groups can be made that cap both processes and memory. Empty if nowhere."""
    version_1 = (MOUNT / "pids", MOUNT / "memory")
    for roots in ((*version_1, MOUNT / "cpuacct"), version_1, (_own_group(),)):
        try:
            with Cgroup(roots, processes=8, memory_mib=64) as group:
                files = {name for folder in group._folders for name in os.listdir(folder)}
        except OSError:
            continue
        if "pids.max" in files and files & {"memory.max", "memory.limit_in_bytes"}:
            return roots
    return ()


def _own_group() -> Path:
    """The version 2 group of this process."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                return MOUNT / line[3:].lstrip("/")
    return MOUNT


def _processes(folder: Path) -> list[int]:
    """What is inside and can be seen. One of another PID namespace reads as 0, which to `kill` is our own process group."""
    with contextlib.suppress(OSError):
        return [pid for pid in map(int, (folder / "cgroup.procs").read_text().split()) if pid]
    return []


def _remove(folder: Path, tries: int = 200) -> None:
    for _ in range(tries):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.005)
        else:
            return


@functools.lru_cache(maxsize=1)
def _remove_stale(roots: tuple[Path, ...], process: int) -> None:
    """Remove what dead processes left, once in each process: a worker that was killed in a run is followed by a fresh one."""
    for root in roots:
        for folder in root.glob("lampo-*"):
            match = _NAME.fullmatch(folder.name)
            if match and not Path(f"/proc/{match[1]}").exists():
                for pid in _processes(folder):  # its program may be dying still
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                _remove(folder, tries=20)  # not for long: in another PID namespace its owner may be alive
