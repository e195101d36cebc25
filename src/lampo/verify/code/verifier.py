"""Programs: the last code block of a response, run on tests in the sandbox, compared outside of it.

What a test expects never enters the sandbox. A program states its result, by its output or by the value of a function, and
it is compared here: there is no verdict inside that it could forge, no comparison that it could replace, and to leave
early states nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from ...types import LampoError, Verdict
from ..verifier_options import UnboundedVerifier, committed_text
from .checks import Output, checks_of, failures_in_one_process
from .sandbox import Limits, Sandbox, SandboxError, find_sandbox
from .tests import ProgramTests, UnusableTests, read_tests

_FENCE = re.compile(r"([ \t]*)(`{3,})([^`]*)")
PYTHON = ("python", "py", "python3")
WALL_FACTOR = 4.0
"""CPU time decides whether a test took too long, for a right program waits on a busy machine. But one that sleeps has to end,
after so many times as much."""
LAST_BEGIN, LAST_END = 0.7, 0.85
"""No test begins after the first and none ends after the second of these shares of a verification's time limit: beyond that limit
it would be killed and unknown, which a program must not bring about by being slow."""


class CodeOptions(UnboundedVerifier):
    """Python programs, by tests on their output, their functions, or asserts. They run in a sandbox only."""

    bounds_itself: ClassVar[bool] = True
    """A program that hangs is wrong, after `test_timeout_s`: to give it up earlier would spare it that."""
    name: Literal["code"] = "code"
    """Selects this verifier."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Most seconds for one verification. No test begins after seven tenths of it, and those that are left are failed."""
    test_timeout_s: float = Field(default=6.0, gt=0)
    """Most seconds of CPU time of one test, and a quarter of its wall-clock time. Then the test is failed."""
    test_memory_mib: int = Field(default=512, ge=32)
    """Most memory of one test in MiB."""
    partial_credit: bool = False
    """The reward is the share of the tests that pass. All of them run, also after a failed one. Off: 1 if all pass, else 0."""
    one_process: bool = False
    """Call a function for all tests in one process, in their order: quick, where tests are many and small. They share its memory and
    `test_timeout_s`. A call that crashes or hangs fails those after it. A program that reads and writes is started for each test."""
    packages: tuple[str, ...] = ()
    """Packages of this Python that programs may import, such as numpy. A program that needs another is wrong."""
    ignore_exit_status: bool = False
    """Whether a program that wrote the right output passes although it ended with an error status."""
    ignore_case: bool = False
    """Whether capitals in outputs do not matter: Yes for YES."""
    whole_numbers_by_value: bool = False
    """Whether an output of 2.0 passes where 2 is expected."""
    allow_unsandboxed_code_execution: bool = False
    """DANGEROUS: where no sandbox starts, run the model's code unprotected, with all rights of this user."""

    def verify(self, completion: str, answer: str) -> Verdict:
        """Right if the last complete code block passes all tests.

        Args:
            completion: the response; see `last_code_block` for what is the program.
            answer: the tests, see `code_tests`.

        Returns:
            wrong if no complete block is given or a test fails; unknown if the tests make no sense or the sandbox fails.
            `score` is the share of the tests that passed; without `partial_credit`, of those up to the first failure.
        """
        try:
            tests = read_tests(answer)
        except UnusableTests as error:
            return Verdict("unknown", detail=f"the answer holds no tests that this verifier knows: {error}")
        code = last_code_block(completion)
        if code is None:
            return Verdict("wrong", detail="no code given", score=0.0, graded=self.partial_credit)
        try:
            sandbox = self._sandbox()
            failures = list(self._failures(code, tests, sandbox))
        except (LampoError, SandboxError) as error:
            return Verdict("unknown", code, str(error))
        except UnusableTests as error:
            return Verdict("unknown", code, f"a test cannot be judged from outside the sandbox: {error}")
        num_failed = len(failures)
        num_passed = len(tests) - num_failed if self.partial_credit or not failures else failures[0].number - 1
        detail = f"{num_passed}/{len(tests)} tests"
        if failures:
            detail += f"; test {failures[0].number}: {failures[0].reason}"
        status, score = "wrong" if failures else "right", num_passed / len(tests)
        return Verdict(status, code, detail, score=score, graded=self.partial_credit)

    def at_once(self, completion: str, answer: str) -> Verdict | None:
        """See `VerifierOptions.at_once`: only the lack of code is seen at once."""
        return self.verify(completion, answer) if last_code_block(completion) is None else None

    def answer_text(self, answer: str) -> None:
        """See `VerifierOptions.answer_text`. No solution is known."""
        return

    def prepare(self) -> None:
        """See `VerifierOptions.prepare`. Refuses where no sandbox starts."""
        try:
            self._sandbox()
        except SandboxError as error:
            raise LampoError(f"The verifier code cannot run: {error}") from None

    def _sandbox(self) -> Sandbox:
        return find_sandbox(allow_unsandboxed=self.allow_unsandboxed_code_execution, packages=self.packages)

    def warm_up(self) -> None:
        """See `VerifierOptions.warm_up`. The sandbox is tried once, and not by each worker."""
        self.prepare()

    def _failures(self, code: str, tests: ProgramTests, sandbox: Sandbox) -> Iterator[_Failure]:
        for number, reason in enumerate(self._reasons(code, tests, sandbox), start=1):
            if reason is not None:
                yield _Failure(number, reason)
                if not self.partial_credit:
                    return

    def _reasons(self, code: str, tests: ProgramTests, sandbox: Sandbox) -> Iterator[str | None]:
        """Why each test fails; None where it passes."""
        checks = checks_of(
            tests,
            ignore_exit_status=self.ignore_exit_status,
            ignore_case=self.ignore_case,
            whole_by_value=self.whole_numbers_by_value,
        )
        values = [check for check in checks if not isinstance(check, Output)]
        if self.one_process and values:
            yield from failures_in_one_process(values, code, tests.setup, sandbox, self._limits(0.0))
            return
        begin = time.monotonic()
        for test in checks:
            seconds = time.monotonic() - begin
            in_time = seconds < LAST_BEGIN * self.timeout_s
            yield (
                test.failure(code, sandbox, self._limits(seconds))
                if in_time
                else "took too long, with the tests before it"
            )

    def _limits(self, seconds: float) -> Limits:
        """Those of a process that begins so long after the verification."""
        return Limits(
            wall_s=min(WALL_FACTOR * self.test_timeout_s, LAST_END * self.timeout_s - seconds),
            cpu_s=self.test_timeout_s,
            memory_mib=self.test_memory_mib,
        )


@dataclass(frozen=True, slots=True)
class _Failure:
    number: int
    reason: str


def last_code_block(completion: str) -> str | None:
    """The last complete block after the thought that is fenced as Python, else the last without a language. None if there is none.

    A block without a language that follows the program is often its output. Lines lose the indentation of their fence, as in
    Markdown: a fence inside a list is indented.

    >>> last_code_block("```python\\nprint(1)\\n```\\nor rather\\n```py\\nprint(2)\\n```")
    'print(2)\\n'
    >>> last_code_block("- So:\\n  ```python\\n  print(1)\\n  ```\\n  prints:\\n  ```\\n  1\\n  ```")
    'print(1)\\n'
    >>> last_code_block("```python\\nprint(1)")
    """
    found: dict[bool, str] = {}  # by whether it is fenced as Python
    indent, fence, language, lines = 0, "", "", []
    for line in committed_text(completion).splitlines(keepends=True):
        match = _FENCE.fullmatch(line.rstrip())
        if not fence:
            if match:
                indent, fence, language, lines = len(match[1]), match[2], match[3].strip().split(" ")[0].lower(), []
        elif match and match[2] == fence and not match[3]:
            if language in ("", *PYTHON):
                found[language != ""] = "".join(lines)
            fence = ""
        else:
            lines.append(line[min(indent, len(line) - len(line.lstrip(" \t"))) :])
    return found.get(True, found.get(False))
