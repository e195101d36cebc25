"""bubblewrap: new namespaces, a read-only view of the system, and nothing else (github.com/containers/bubblewrap)."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .cgroup import Cgroup, writable_roots
from .packages import INSIDE, locate
from .runner import Limits, Outcome, SandboxError, memory_file, rlimits, watch

ENTER_GROUPS = 'while [ "$1" != -- ]; do echo 0 >"$1" || exit 125; shift; done; shift; exec "$@"'
EXTRA_MIB = 64
"""Memory of the group above that of one process: bubblewrap itself, and the pages of its /tmp."""


class Bubblewrap:
    """Runs each command in namespaces of its own: no network, no other process, no file of this user.

    It sees /usr and the Python interpreter read-only, an empty /tmp of bounded size, a bare /dev and a read-only /proc. Its environment
    is empty but for PATH, HOME and LANG. It has no capabilities and cannot make new namespaces. Where control groups can be
    made, memory and processes are capped for all that it starts together. Started by root, it insists on them.
    """

    def __init__(self, roots: tuple[Path, ...], packages: tuple[str, ...] = ()) -> None:
        self.python = os.path.realpath(sys.executable)
        self._program = shutil.which("bwrap") or "bwrap"
        self._roots = roots
        self._flags = _flags(self.python)
        self.import_from: list[str] = [INSIDE] if packages else []
        for path in locate(packages):
            self._flags += ["--ro-bind", str(path), f"{INSIDE}/{path.name}"]

    @classmethod
    def start(cls) -> Bubblewrap:
        """Try it for real.

        Raises:
            SandboxError: it is not installed, does not start, or cannot cap the number of processes.
        """
        for program in ("bwrap", "prlimit"):
            if shutil.which(program) is None:
                raise SandboxError(f"the program {program} is not installed.")
        roots = writable_roots()
        if os.geteuid() == 0 and not roots:
            raise SandboxError(
                "as root, the number of processes can only be capped by a pids cgroup, and none is writable."
            )
        sandbox = cls(roots)
        outcome = sandbox.run({}, [sandbox.python, "-I", "-S", "-c", "print(6 * 7)"], b"", Limits())
        if outcome.stdout != b"42\n":
            raise SandboxError(f"bubblewrap ran a first program wrongly: {outcome.exit}, {outcome.stderr}")
        return sandbox

    def with_packages(self, packages: tuple[str, ...]) -> Bubblewrap:
        """The same, where programs may import these.

        Raises:
            SandboxError: one is not installed.
        """
        return Bubblewrap(self._roots, packages)

    def run(self, files: Mapping[str, bytes], command: Sequence[str], stdin: bytes, limits: Limits) -> Outcome:
        """See `Sandbox.run`."""
        descriptors: list[int] = []
        with contextlib.ExitStack() as stack:
            arguments = [self._program, *self._flags, "--size", str(limits.tmp_mib * 2**20), "--tmpfs", "/tmp"]
            for name, content in files.items():
                descriptors.append(memory_file(content))
                stack.callback(os.close, descriptors[-1])
                arguments += ["--perms", "0444", "--file", str(descriptors[-1]), f"/tmp/{name}"]
            status, status_writer = os.pipe()
            stack.callback(os.close, status)
            input_file = memory_file(stdin)
            stack.callback(os.close, input_file)
            arguments += [
                "--remount-ro",
                "/",
                "--chdir",
                "/tmp",
                "--json-status-fd",
                str(status_writer),
                *rlimits(limits),
                *command,
            ]
            group = None
            if self._roots:
                group = Cgroup(self._roots, processes=limits.processes, memory_mib=limits.memory_mib + EXTRA_MIB)
                try:
                    stack.enter_context(group)
                except OSError as error:
                    os.close(status_writer)
                    raise SandboxError(f"no control group could be made: {error}") from None
                arguments = ["/bin/sh", "-c", ENTER_GROUPS, "sh", *group.entries, "--", *arguments]
            try:
                process = subprocess.Popen(
                    arguments,
                    stdin=input_file,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=[*descriptors, status_writer],
                    env={},
                )
            except OSError as error:
                raise SandboxError(f"bubblewrap did not start: {error}") from None
            finally:
                os.close(status_writer)

            def stop() -> None:
                process.kill()
                if group is not None:
                    group.kill()

            outcome = watch(
                process,
                limits,
                stop,
                group.out_of_memory if group else lambda: False,
                group.computed_s if group else lambda: 0.0,
            )
            os.set_blocking(status, False)
            said = b""
            with contextlib.suppress(BlockingIOError):
                said = os.read(status, 65536)
            if b"child-pid" not in said or (outcome.exit == "crash" and b"exit-code" not in said):
                raise SandboxError(f"bubblewrap failed with status {outcome.code}: {outcome.stderr.strip()[-300:]}")
            return outcome


NAMESPACES = """
    --unshare-user --unshare-ipc --unshare-pid --unshare-net --unshare-uts --unshare-cgroup-try
    --die-with-parent --new-session --hostname sandbox --cap-drop ALL --uid 65534 --gid 65534
    --clearenv --setenv PATH /usr/bin:/bin --setenv HOME /tmp --setenv LANG C.UTF-8
    --setenv OMP_NUM_THREADS 1 --setenv OPENBLAS_NUM_THREADS 1
    --ro-bind /usr /usr --ro-bind-try /etc/ld.so.cache /etc/ld.so.cache --ro-bind-try /etc/alternatives /etc/alternatives
"""
DEVICES = "--proc /proc --remount-ro /proc --dev /dev --size 1048576 --tmpfs /dev/shm --remount-ro /dev"
"""Read-only, since the kernel lets root's uid write /proc/sys without any capability. Started by root, that is the uid inside."""


def _flags(python: str) -> list[str]:
    flags: list[str] = [*NAMESPACES.split()]
    if _version() >= (0, 8, 0):
        flags += ["--disable-userns"]
    for path in map(Path, ("/bin", "/sbin", "/lib", "/lib32", "/lib64")):
        if path.is_symlink():
            flags += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            flags += ["--ro-bind", str(path), str(path)]
    prefix = os.path.realpath(sys.base_prefix)
    for path in (prefix, python):
        if not path.startswith(("/usr/", f"{prefix}/")):
            flags += ["--ro-bind", path, path]
    return flags + DEVICES.split()


def _version() -> tuple[int, ...]:
    try:
        said = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, timeout=10).stdout
        return tuple(int(part) for part in said.split()[-1].split("."))
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return (0,)
