"""A user's own verifier that misbehaves as its completion tells it."""

import ctypes
import os
import sys
import time
from typing import ClassVar

from lampo.types import Verdict
from lampo.verify import PythonOptions


class Bounded(PythonOptions):
    """A verifier that bounds itself."""

    bounds_itself: ClassVar[bool] = True


def verify(completion: str, answer: str, *, prefix: str = "") -> Verdict | bool | None:
    match completion.split():
        case ["sleep", seconds]:
            time.sleep(float(seconds))
            return True
        case ["work", seconds]:
            while time.process_time() < float(seconds):  # of a fresh process
                pass
            return True
        case ["spin"]:
            while True:
                pass
        case ["spawn-and-spin"]:
            if os.fork() == 0:
                time.sleep(600)
            while True:
                pass
        case ["eat"]:
            return len(bytearray(8 * 2**30)) > 0
        case ["eat-slowly"]:
            held = []
            while True:
                held.append(bytearray(2**24))
        case ["exit", code]:
            os._exit(int(code))
        case ["leave"]:
            sys.exit(0)
        case ["crash"]:
            ctypes.string_at(0)
        case ["raise"]:
            raise ValueError("no idea")
        case ["interrupt"]:
            raise KeyboardInterrupt
        case ["print"]:
            print("to standard output" * 10_000)
            return True
        case ["none"]:
            return None
        case ["text"]:
            return "right"  # type: ignore[return-value]
        case ["pid"]:
            return Verdict("right", str(os.getpid()))
        case ["score"]:
            return Verdict("wrong", score=0.25)
    return prefix + completion == answer
