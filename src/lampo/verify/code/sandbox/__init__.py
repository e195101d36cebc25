"""Running programs that nobody vouches for: one small interface, one file per backend."""

from __future__ import annotations

import functools
import logging
import os

from ....types import LampoError
from .bubblewrap import Bubblewrap
from .runner import Limits, Outcome, Sandbox, SandboxError
from .unsafe import UnsafeLocal

__all__ = ["Limits", "Outcome", "Sandbox", "SandboxError", "find_sandbox"]

SWITCH = "allow_unsandboxed_code_execution"


def find_sandbox(*, allow_unsandboxed: bool = False, packages: tuple[str, ...] = ()) -> Sandbox:
    """The sandbox of this machine, in which programs may import these packages. It is tried for real, once a process.

    Raises:
        LampoError: none starts here, and running without one was not asked for; says why, and what to do.
        SandboxError: a package is not installed.
    """
    found = _bubblewrap()
    if isinstance(found, Bubblewrap):
        return found.with_packages(packages) if packages else found
    if allow_unsandboxed:
        _warn()
        return UnsafeLocal(packages)
    raise LampoError(
        f"Code written by a model runs only in a sandbox, and none starts here: {found}\n"
        "Install bubblewrap: apt install bubblewrap (Debian, Ubuntu), dnf install bubblewrap (Fedora), "
        "pacman -S bubblewrap (Arch). In a container it needs user namespaces. Ask for a seccomp profile that allows "
        "unshare and mount, or for a container with its own user namespaces. As root it also needs a writable pids "
        "cgroup, or run as an ordinary user.\n"
        f"To run such code WITHOUT protection, with all rights of this user, set {SWITCH}=true on the verifier."
    )


@functools.cache
def _bubblewrap() -> Bubblewrap | str:
    try:
        return Bubblewrap.start()
    except SandboxError as error:
        return str(error)


@functools.cache
def _warn() -> None:
    logging.getLogger("lampo").warning(
        "%s is set: code written by the model runs UNSANDBOXED, with all rights of user %d", SWITCH, os.getuid()
    )
