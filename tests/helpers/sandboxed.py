"""The sandbox of this machine, for tests that need one."""

import functools

import pytest

from lampo.types import LampoError
from lampo.verify.code.sandbox import Sandbox, find_sandbox


@functools.cache
def reason_without() -> str | None:
    try:
        find_sandbox()
    except LampoError as error:
        return str(error).partition("\n")[0]
    return None


def sandbox_or_skip() -> Sandbox:
    if reason := reason_without():
        pytest.skip(reason)
    return find_sandbox()
