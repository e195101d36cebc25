"""The tests of a program one by one: what each asks, and why it fails. All comparing is done outside of the sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .asserts import read_assert
from .comparing import largest, plain_value, same_json, same_output
from .inside import SCRIPT, command, run_calls
from .sandbox import Limits, Outcome, Sandbox
from .tests import ProgramTests


@dataclass(frozen=True, slots=True)
class Output:
    """A program reads this text and has to write that one."""

    stdin: str
    expected: str
    ignore_exit_status: bool
    ignore_case: bool
    whole_by_value: bool

    def failure(self, code: str, sandbox: Sandbox, limits: Limits) -> str | None:
        """Why a program fails it; None where it passes."""
        started = command(sandbox, SCRIPT)
        outcome = sandbox.run({"main.py": code.encode(errors="replace")}, started, self.stdin.encode(), limits)
        may_have_passed = outcome.exit == "ok" or (outcome.exit == "crash" and self.ignore_exit_status)
        output, expected = outcome.stdout.decode(errors="replace"), self.expected
        if self.ignore_case:
            output, expected = output.casefold(), expected.casefold()
        if may_have_passed and same_output(output, expected, whole_by_value=self.whole_by_value):
            return None
        return "wrong answer" if outcome.exit == "ok" else _reason(outcome)


@dataclass(frozen=True, slots=True)
class Value:
    """A function's value, or that of an expression, has to fit what is expected."""

    call: dict[str, Any]
    setup: str
    expected: Any
    exact: bool = True
    wrapped: bool = False
    tolerance: float | None = None

    def failure(self, code: str, sandbox: Sandbox, limits: Limits) -> str | None:
        """Why a program fails it; None where it passes."""
        outcome = run_calls([self.call], code, self.setup, sandbox, limits)
        return self.wrong(outcome.stdout) if outcome.exit == "ok" else _reason(outcome)

    def wrong(self, said: bytes) -> str | None:
        """Why the value that was stated does not fit; None where it does."""
        most_members = largest(self.expected)
        try:
            value = json.loads(said)
            if isinstance(value, dict) and "raised" in value:
                return f"raised {value['raised']!s:.60}"
            return None if self._fits(plain_value(value, most_members)) else "wrong answer"
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):  # a whole number beyond floats, say
            return "wrong answer: no value was returned that can be compared"

    def _fits(self, value: Any) -> bool:
        if self.tolerance is not None:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            return number and abs(value - self.expected) <= self.tolerance
        if self.exact:
            return value == self.expected
        unwrapped = self.expected[0] if self.wrapped and _is_single(self.expected) else self.expected
        return same_json(value, self.expected) or same_json(value, unwrapped)


def failures_in_one_process(
    tests: list[Value], code: str, setup: str, sandbox: Sandbox, limits: Limits
) -> Iterator[str | None]:
    """Why a program fails each of them, all called in one process: quick, and one that crashes or hangs fails those after it."""
    outcome = run_calls([test.call for test in tests], code, setup, sandbox, limits)
    stated = outcome.stdout.split(b"\n")[:-1]  # what follows the last end of a line was cut off
    for number, test in enumerate(tests):
        if number < len(stated):
            yield test.wrong(stated[number])
        else:
            yield "wrong answer: no value was returned" if outcome.exit == "ok" else _reason(outcome)


def checks_of(tests: ProgramTests, **rules: bool) -> list[Output] | list[Value]:
    """The tests one by one.

    Args:
        tests: of the program.
        rules: of comparing outputs, see `Output`.

    Raises:
        UnusableTests: an assert cannot be judged from outside the sandbox.
    """
    if tests.type == "stdin":
        return [Output(*pair, **rules) for pair in zip(tests.inputs, tests.outputs, strict=True)]
    if tests.type == "function":
        return [
            Value(
                {"name": tests.fn_name, "arguments": arguments},
                tests.setup,
                expected,
                exact=False,
                wrapped=tests.wrapped,
            )
            for arguments, expected in zip(tests.inputs, tests.outputs, strict=True)
        ]
    return [
        Value({"name": None, "expression": asked.expression}, tests.setup, asked.expected, tolerance=asked.tolerance)
        for asked in map(read_assert, tests.tests)
    ]


def _is_single(expected: Any) -> bool:
    return isinstance(expected, list) and len(expected) == 1


def _reason(outcome: Outcome) -> str:
    last = outcome.stderr.strip().rpartition("\n")[2][:200]
    match outcome.exit:
        case "time":
            return "took too long"
        case "memory":
            return "used too much memory"
        case "output":
            return "wrote too much"
        case _:
            return f"ended with status {outcome.code}" + (f": {last}" if last else "")
