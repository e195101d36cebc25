"""A user's own verifier that misbehaves as its completion tells it."""

import ctypes
import os
import sys
import time
from dataclasses import dataclass
from typing import ClassVar

from lampo.types import Verdict
from lampo.verify import PythonOptions


class Bounded(PythonOptions):
    """A verifier that bounds itself."""

    bounds_itself: ClassVar[bool] = True


@dataclass(frozen=True)
class Steps(Verdict):
    """A verdict that says more than a verdict does."""

    steps: int = 0


class Agreeable(str):
    """A text that claims to be any other."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return True


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
        case ["fork-and-return"]:
            if os.fork() == 0:
                time.sleep(0.3)
                return False
            return True
        case ["fork-unseen-and-return"]:
            if ctypes.PyDLL(None).fork() == 0:
                time.sleep(0.3)
                return False
            return True
        case ["fork-and-crash"]:
            if os.fork() == 0:
                time.sleep(600)
            ctypes.string_at(0)
        case ["subclass"]:
            return Steps("right", steps=3)
        case ["no-status"]:
            return Verdict(Agreeable("whatever"))  # type: ignore[arg-type]
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
        case ["half"]:
            return Verdict("unknown", "4\ud83d", "half \ud83d, \x1b[2J, \u202e")
        case ["score"]:
            return Verdict("wrong", score=0.25)
    return prefix + completion == answer
