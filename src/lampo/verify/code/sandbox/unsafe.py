"""No sandbox at all: a plain process under resource limits, with all rights of this user. Only on explicit demand."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from .packages import locate
from .runner import Limits, Outcome, SandboxError, memory_file, rlimits, watch

DIE_WITH_PARENT = ["setpriv", "--pdeathsig", "KILL", "--"]


class UnsafeLocal:
    """Runs a command unprotected: it can read and write all that this user can, and use the network."""

    def __init__(self, packages: tuple[str, ...] = ()) -> None:
        self.python = os.path.realpath(sys.executable)
        self.import_from = sorted({str(path.parent) for path in locate(packages)})

    def run(self, files: Mapping[str, bytes], command: Sequence[str], stdin: bytes, limits: Limits) -> Outcome:
        """See `Sandbox.run`. But what it starts in another session is left behind.

        If this process is killed, so is the command. Its folder and what it started are then left behind.
        """
        with tempfile.TemporaryDirectory(prefix="lampo-unsandboxed-") as folder:
            for name, content in files.items():
                Path(folder, name).write_bytes(content)
            input_file = memory_file(stdin)
            flags = [flag for flag in rlimits(limits) if not flag.startswith("--nproc")]  # counts all of this user's
            try:
                process = subprocess.Popen(
                    [*DIE_WITH_PARENT, *flags, *command],
                    stdin=input_file,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    cwd=folder,
                    env={"PATH": "/usr/bin:/bin", "HOME": folder, "LANG": "C.UTF-8"},
                    start_new_session=True,
                )
            except OSError as error:
                raise SandboxError(f"the program did not start: {error}") from None
            finally:
                os.close(input_file)

            def stop() -> None:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)

            return watch(process, limits, stop, lambda: False, lambda: 0.0)
