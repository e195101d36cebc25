"""Programs: the last code block of a response, run on tests in the sandbox, compared outside of it.

What a test expects never enters the sandbox. A program states its result, by its output or by the value of a function, and
it is compared here: there is no verdict inside that it could forge, no comparison that it could replace, and to leave
early states nothing.
"""

from __future__ import annotations

import ast
import functools
import json
import marshal
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal

from pydantic import Field

from ...types import LampoError, Verdict
from ..verifier_options import UnboundedVerifier, committed_text
from .sandbox import Limits, Outcome, Sandbox, SandboxError, find_sandbox
from .tests import ProgramTests, UnusableTests, read_tests

_FENCE = re.compile(r"([ \t]*)(`{3,})([^`]*)")
_WHOLE = re.compile(r"[-+]?\d+")
_FLOAT = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(\.\d*)?[eE][-+]?\d+|\d*\.\d+[eE][-+]?\d+)")
PYTHON = ("python", "py", "python3")
FLOAT_TOLERANCE = 1e-6
MAX_VALUE_DEPTH = 50
WALL_FACTOR = 4.0
"""CPU time decides whether a test took too long, for a right program waits on a busy machine. But one that sleeps has to end,
after so many times as much."""
LAST_BEGIN, LAST_END = 0.7, 0.85
"""No test begins after the first and none ends after the second of these shares of a verification's time limit: beyond that limit
it would be killed and unknown, which a program must not bring about by being slow."""

_PROGRAM = """\
import builtins, os, sys
builtins.exit = builtins.quit = sys.exit
sys.argv = ["main.py"]
sys.path.insert(0, "/tmp")
__file__ = os.path.abspath("main.py")
with open(__file__) as file: code = compile(file.read(), "main.py", "exec")
del builtins, file, os, sys
exec(globals().pop("code"))
"""
"""The program is this module itself, `__main__`, and finds no name in it that a script would not find."""

_FUNCTION = r"""import builtins, marshal, os, sys
builtins.exit = builtins.quit = sys.exit
asked = marshal.loads(sys.stdin.buffer.read())
results = os.dup(1)
os.dup2(2, 1)
def quoted(text):
    text = str.__str__(text)
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text: return f'"{text}"'
    units = memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H")
    return '"' + "".join("\\u%04x" % unit for unit in units) + '"'
def stated(value, depth=0):
    if depth > 50: raise ValueError("nested too deeply")
    if value is None: return "null"
    if isinstance(value, bool): return "true" if value else "false"
    if isinstance(value, int): return int.__repr__(value)
    if isinstance(value, float): return float.__repr__(value).replace("nan", "NaN").replace("inf", "Infinity")
    if isinstance(value, str): return quoted(value)
    def listed(kind, items): return '{"%s": [%s]}' % (kind, ", ".join([stated(item, depth + 1) for item in items]))
    if isinstance(value, dict):
        pairs = [f"[{stated(key, depth + 1)}, {stated(item, depth + 1)}]" for key, item in value.items()]
        return '{"dict": [%s]}' % ", ".join(pairs)
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind): return listed(kind.__name__, value)
    if hasattr(value, "__next__") or isinstance(value, range): return listed("list", value)
    if isinstance(value, complex): return listed("complex", (value.real, value.imag))
    return '{"other": %s}' % quoted(type(value).__name__)
module = sys.modules["solution"] = type(sys)("solution")
space = vars(module)
exec(compile(asked["setup"], "setup.py", "exec"), space)
exec(compile(asked["code"], "solution.py", "exec"), space)
def value_of(call):
    if call["name"] is None: return eval(compile(call["expression"], "test.py", "eval"), space)
    function = space[call["name"]] if call["name"] in space else getattr(space["Solution"](), call["name"])
    return function(*call["arguments"])
for call in asked["calls"]:
    try: value = stated(value_of(call))
    except Exception as error:
        if len(asked["calls"]) == 1: raise
        value = '{"raised": %s}' % quoted(type(error).__name__)
    said = value.encode() + b"\n"
    while said: said = said[os.write(results, said):]
"""
"""It states the value of each call as JSON, in a line of its own: one that crashes or hangs takes nothing from those before it. It imports
nothing that Python does not start with, for `json` alone takes longer than that start."""


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
        each = _each(tests, self)
        if self.one_process and tests.type != "stdin":
            values = [test for test in each if isinstance(test, _Value)]
            yield from _failures_in_one_process(values, code, tests.setup, sandbox, self._limits(0.0))
            return
        begin = time.monotonic()
        for test in each:
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


@dataclass(frozen=True, slots=True)
class _Output:
    """A program reads this text and has to write that one."""

    stdin: str
    expected: str
    rules: CodeOptions

    def failure(self, code: str, sandbox: Sandbox, limits: Limits) -> str | None:
        command = _command(sandbox, _PROGRAM)
        outcome = sandbox.run({"main.py": code.encode(errors="replace")}, command, self.stdin.encode(), limits)
        may_have_passed = outcome.exit == "ok" or (outcome.exit == "crash" and self.rules.ignore_exit_status)
        output, expected = outcome.stdout.decode(errors="replace"), self.expected
        if self.rules.ignore_case:
            output, expected = output.casefold(), expected.casefold()
        if may_have_passed and same_output(output, expected, whole_by_value=self.rules.whole_numbers_by_value):
            return None
        return "wrong answer" if outcome.exit == "ok" else _reason(outcome)


@dataclass(frozen=True, slots=True)
class _Value:
    """A function's value, or that of an expression, has to fit what is expected."""

    call: dict[str, Any]
    setup: str
    expected: Any
    exact: bool = True
    wrapped: bool = False
    tolerance: float | None = None

    def failure(self, code: str, sandbox: Sandbox, limits: Limits) -> str | None:
        outcome = _call([self.call], code, self.setup, sandbox, limits)
        return self.wrong(outcome.stdout) if outcome.exit == "ok" else _reason(outcome)

    def wrong(self, said: bytes) -> str | None:
        """Why the value that was stated does not fit; None where it does."""
        most_members = _most_members(self.expected)
        try:
            value = json.loads(said)
            if isinstance(value, dict) and "raised" in value:
                return f"raised {value['raised']!s:.60}"
            return None if self._fits(_plain(value, most_members)) else "wrong answer"
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):  # a whole number beyond floats, say
            return "wrong answer: no value was returned that can be compared"

    def _fits(self, value: Any) -> bool:
        if self.tolerance is not None:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            return number and abs(value - self.expected) <= self.tolerance
        if self.exact:
            return value == self.expected
        unwrapped = self.expected[0] if self.wrapped and _is_single(self.expected) else self.expected
        return _same_json(value, self.expected) or _same_json(value, unwrapped)


def _call(calls: list[dict[str, Any]], code: str, setup: str, sandbox: Sandbox, limits: Limits) -> Outcome:
    asked = marshal.dumps({"calls": calls, "setup": setup, "code": code})  # read by this same Python, inside
    return sandbox.run({}, _command(sandbox, _FUNCTION), asked, limits)


def _failures_in_one_process(
    tests: list[_Value], code: str, setup: str, sandbox: Sandbox, limits: Limits
) -> Iterator[str | None]:
    outcome = _call([test.call for test in tests], code, setup, sandbox, limits)
    stated = outcome.stdout.split(b"\n")[:-1]  # what follows the last end of a line was cut off
    for number, test in enumerate(tests):
        if number < len(stated):
            yield test.wrong(stated[number])
        else:
            yield "wrong answer: no value was returned" if outcome.exit == "ok" else _reason(outcome)


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


def _command(sandbox: Sandbox, program: str) -> list[str]:
    imports = f"import sys; sys.path += {sandbox.import_from!r}\n" if sandbox.import_from else ""
    return [sandbox.python, "-I", "-S", "-c", imports + program]


def same_output(output: str, expected: str, *, whole_by_value: bool = False) -> bool:
    """Whether two outputs are the same to a public grader: line by line, white space at the ends and its amount aside.

    A word that is expected to be a decimal number ("0.50", "1e-3") may differ by 1e-6, absolutely or relatively. A whole
    number may not, unless `whole_by_value` lets 2.0 pass for 2. The output has to be there to its last line: a right
    beginning is not enough.

    >>> same_output("1  2 \\n0.3333333\\n\\n", "1 2\\n0.33333333"), same_output("1", "1\\n2"), same_output("1.0", "1")
    (True, False, False)
    """
    same_word = functools.partial(_same_word, whole_by_value=whole_by_value)
    lines, expected_lines = ([line.split() for line in text.rstrip().split("\n")] for text in (output, expected))
    return len(lines) == len(expected_lines) and all(
        len(words) == len(expected_words) and all(map(same_word, words, expected_words))
        for words, expected_words in zip(lines, expected_lines, strict=True)
    )


def _same_word(word: str, expected: str, *, whole_by_value: bool) -> bool:
    if word == expected:
        return True
    if whole_by_value and _WHOLE.fullmatch(expected) and _FLOAT.fullmatch(word) and len(word) + len(expected) <= 120:
        return "e" not in word.casefold() and Fraction(word) == int(expected)
    if not _FLOAT.fullmatch(expected) or len(word) > 60:
        return False
    try:
        return math.isclose(float(word), float(expected), rel_tol=FLOAT_TOLERANCE, abs_tol=FLOAT_TOLERANCE)
    except ValueError:
        return False


def _each(tests: ProgramTests, rules: CodeOptions) -> Iterator[_Output | _Value]:
    if tests.type == "stdin":
        yield from (_Output(*pair, rules) for pair in zip(tests.inputs, tests.outputs, strict=True))
    elif tests.type == "function":
        for arguments, expected in zip(tests.inputs, tests.outputs, strict=True):
            call = {"name": tests.fn_name, "arguments": arguments}
            yield _Value(call, tests.setup, expected, exact=False, wrapped=tests.wrapped)
    else:
        yield from [_from_assert(test, tests.setup) for test in tests.tests]  # all are read before the first runs


def _from_assert(test: str, setup: str) -> _Value:
    """An assert as an expression to evaluate inside, and what its value has to be, which stays outside.

    Raises:
        UnusableTests: the expected value would have to enter the sandbox, or the comparison to run there.
    """
    try:
        (statement,) = ast.parse(test.strip()).body
    except (SyntaxError, ValueError):
        raise UnusableTests(f"not one assert: {test[:60]}") from None
    if not isinstance(statement, ast.Assert):
        raise UnusableTests(f"not an assert: {test[:60]}")

    def value(expression: ast.expr, expected: Any, tolerance: float | None = None) -> _Value:
        return _Value({"name": None, "expression": ast.unparse(expression)}, setup, expected, tolerance=tolerance)

    match statement.test:
        case ast.Compare(left=left, ops=[ast.Eq() | ast.Is() as operator], comparators=[right]):
            for inside, outside in ((left, right), (right, left)):
                if (expected := _literal(outside)) is not _NONE and _literal(inside) is _NONE:
                    if isinstance(operator, ast.Is) and expected not in (None, True, False):
                        break
                    return value(inside, expected)
        case ast.Compare(
            left=ast.Call(func=ast.Name(id="abs"), args=[ast.BinOp(left=inside, op=ast.Sub(), right=outside)]),
            ops=[ast.Lt() | ast.LtE()],
            comparators=[bound],
        ):
            expected, tolerance = _literal(outside), _literal(bound)
            if isinstance(expected, int | float) and isinstance(tolerance, int | float):
                return value(inside, expected, float(tolerance))
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="math"), attr="isclose"), args=[inside, outside], keywords=words
        ):
            expected = _literal(outside)
            given = {word.arg: _literal(word.value) for word in words}
            if (
                isinstance(expected, int | float)
                and set(given) <= {"rel_tol", "abs_tol"}
                and _NONE not in given.values()
            ):
                tolerance = max(given.get("rel_tol", 1e-9) * abs(expected), given.get("abs_tol", 0.0))
                return value(inside, expected, tolerance)
        case ast.UnaryOp(op=ast.Not(), operand=ast.Call(func=ast.Name()) as call) if _has_plain_arguments(call):
            return value(_truth(call), False)
        case ast.Call(func=ast.Name()) as call if _has_plain_arguments(call):
            return value(_truth(call), True)
        case _:
            pass
    raise UnusableTests(test[:80])


_NONE = object()


def _literal(node: ast.expr) -> Any:
    """The value of a literal, also within set(), sorted(), list() or tuple(). `_NONE` where it is no literal."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1 and not node.keywords:
        build = {"set": set, "sorted": sorted, "list": list, "tuple": tuple}.get(node.func.id)
        inner = _literal(node.args[0])
        try:
            return build(inner) if build and inner is not _NONE else _NONE
        except TypeError:
            return _NONE
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _NONE


def _truth(call: ast.Call) -> ast.Call:
    return ast.Call(ast.Name("bool", ast.Load()), [call], [])


def _has_plain_arguments(call: ast.Call) -> bool:
    return all(_literal(node) is not _NONE for node in [*call.args, *(word.value for word in call.keywords)])


def _most_members(value: Any) -> int:
    """How many members the largest set or dict within a value has."""
    if isinstance(value, dict):
        return max([len(value), *map(_most_members, value), *map(_most_members, value.values())])
    if isinstance(value, list | tuple | set | frozenset):
        own = len(value) if isinstance(value, set | frozenset) else 0
        return max([own, *map(_most_members, value)])
    return 0


def _plain(value: Any, most_members: int, depth: int = 0) -> Any:
    """The value that the sandbox stated, of plain types only.

    Its sets and dicts may have so many members: the program can choose numbers that all have one hash, and to put those
    into one set takes time as their square.
    """
    if depth > MAX_VALUE_DEPTH:
        raise ValueError("nested too deeply")
    if not isinstance(value, dict):
        if isinstance(value, list):
            raise TypeError("untagged")
        return value
    ((kind, items),) = value.items()
    if kind in ("dict", "set", "frozenset") and len(items) > most_members:
        raise ValueError("more members than any set or dict that is expected")
    if kind == "dict":
        return {_plain(key, most_members, depth + 1): _plain(item, most_members, depth + 1) for key, item in items}
    if kind == "complex":
        return complex(*items)
    build = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind]
    return build(_plain(item, most_members, depth + 1) for item in items)


def _is_single(expected: Any) -> bool:
    return isinstance(expected, list) and len(expected) == 1


def _same_json(value: Any, expected: Any) -> bool:
    """Equality with a JSON value: tuples are lists, keys of objects are text, decimals may differ by 1e-6."""
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(map(_same_json, value, expected))
    if isinstance(value, dict) and isinstance(expected, dict):
        named = {key if isinstance(key, str) else json.dumps(key): item for key, item in value.items()}
        return named.keys() == expected.keys() and all(_same_json(named[key], expected[key]) for key in expected)
    if isinstance(value, bool) != isinstance(expected, bool):
        return False
    if isinstance(expected, float) and isinstance(value, int | float):
        return math.isclose(value, expected, rel_tol=FLOAT_TOLERANCE, abs_tol=FLOAT_TOLERANCE)
    return type(value) is type(expected) and value == expected


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
