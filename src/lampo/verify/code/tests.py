"""The tests of a program, in one form, and how the forms of public data sets become it.

The answer of a problem for the verifier `code` is the JSON of one of

    {"type": "stdin", "inputs": ["3\n", ...], "outputs": ["9\n", ...]}
    {"type": "function", "fn_name": "square", "inputs": [[3], ...], "outputs": [9, ...]}
    {"type": "assert", "tests": ["assert square(3) == 9", ...], "setup": "import math"}

where `inputs` of a function are lists of arguments, and `setup` runs before the program.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

FUNCTION_SETUP = """\
import bisect, collections, copy, functools, heapq, itertools, math, operator, random, re, string, sys, time
from typing import *
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
del pow
"""
"""What a function may use without importing it, as at the judges that its problem is from: starter code says `List[int]`, and the
graders of APPS and LiveCodeBench put such imports in front. `pow` stays the built-in one."""


MAX_UNROLLED = 200
"""Rounds of a loop in a test that are written out."""


class UnusableTests(ValueError):
    """ProgramTests that cannot be used. Says why."""


class ProgramTests(BaseModel):
    """The tests of one program."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["stdin", "function", "assert"]
    inputs: list[Any] = []
    outputs: list[Any] = []
    fn_name: str | None = None
    tests: list[str] = []
    setup: str = ""
    wrapped: bool = False
    """An output may stand in a list of its own, as in APPS: [9] for 9."""

    @model_validator(mode="after")
    def _is_whole(self) -> ProgramTests:
        if self.type == "assert":
            if not self.tests:
                raise ValueError("there are no tests")
            return self
        if not self.inputs or len(self.inputs) != len(self.outputs):
            raise ValueError(f"{len(self.inputs)} inputs and {len(self.outputs)} outputs. They must pair, one at least")
        if self.type == "function" and not self.fn_name:
            raise ValueError("a function's tests need its name, fn_name")
        if self.type == "function" and not all(isinstance(arguments, list) for arguments in self.inputs):
            raise ValueError("the inputs of a function must be lists of arguments")
        if self.type == "stdin" and not all(isinstance(text, str) for text in [*self.inputs, *self.outputs]):
            raise ValueError("inputs and outputs of a program must be text")
        return self

    def __len__(self) -> int:
        return len(self.tests) or len(self.inputs)

    def dump(self) -> str:
        """The answer of a problem."""
        return self.model_dump_json(exclude_defaults=True)


def read_tests(answer: str) -> ProgramTests:
    """The tests in the answer of a problem.

    Raises:
        UnusableTests: it is not in this form.
    """
    return _checked(ProgramTests.model_validate_json, answer)


def from_input_output(value: str | Mapping[str, Any]) -> ProgramTests:
    """ProgramTests of APPS, TACO and PRIME Eurus: {"inputs", "outputs", "fn_name"?}, as a mapping or its JSON.

    >>> from_input_output('{"inputs": ["1 2"], "outputs": ["3"]}').type
    'stdin'
    >>> tests = from_input_output({"fn_name": "add", "inputs": [[1, 2]], "outputs": [[3]]})
    >>> tests.inputs, tests.setup == FUNCTION_SETUP
    ([[1, 2]], True)
    """
    fields = _json(value) if isinstance(value, str) else value
    try:
        inputs, outputs, name = list(fields["inputs"]), list(fields["outputs"]), fields.get("fn_name")
    except (KeyError, TypeError, AttributeError):
        raise UnusableTests("there are no inputs and outputs") from None
    if not name:
        return _tests(type="stdin", inputs=list(map(_lines, inputs)), outputs=list(map(_lines, outputs)))
    return _tests(
        type="function",
        fn_name=name,
        inputs=list(map(_arguments, inputs)),
        outputs=list(map(_value, outputs)),
        setup=FUNCTION_SETUP,
        wrapped=True,
    )


def from_verification_info(value: str | Mapping[str, Any]) -> ProgramTests:
    """ProgramTests of open-r1/verifiable-coding-problems-python: {language, test_cases: [{fn_name, input, output, type}]}.

    >>> case = {"type": "stdin_stdout", "input": "1 2", "output": "3", "fn_name": None}
    >>> from_verification_info({"language": "python", "test_cases": [case]}).outputs
    ['3']
    """
    fields = _json(value) if isinstance(value, str) else value
    cases = fields.get("test_cases") if isinstance(fields, Mapping) else None
    if not cases:
        raise UnusableTests("there are no test_cases")
    if fields.get("language", "python") != "python":
        raise UnusableTests(f"the language is {fields['language']}, not python")
    return _from_cases(cases, [case.get("fn_name") for case in cases])


def from_livecodebench(public: str, private: str | None = None, function: str | None = None) -> ProgramTests:
    """ProgramTests of LiveCodeBench: JSON lists of {input, output, testtype}. `function` is its metadata's func_name.

    Raises:
        UnusableTests: the private tests are compressed pickles, which run code when they are read.
    """
    cases = _json(public)
    if private:
        try:
            cases = [*cases, *json.loads(private)]
        except ValueError:
            raise UnusableTests(
                "the private tests are a compressed pickle, and to read a pickle runs the code in it. Convert them to "
                "JSON once, in a sandbox"
            ) from None
    return _from_cases(cases, [function] * len(cases))


def from_asserts(tests: str | Sequence[str], *, setup: str = "", entry_point: str | None = None) -> ProgramTests:
    """ProgramTests of MBPP (a list of asserts) and HumanEval (a function `check(candidate)` made of asserts, perhaps called behind).

    `assert all(...)` over values that are written down is one assert for each of them.

    >>> from_asserts("def check(candidate):\\n    assert candidate(3) == 9\\ncheck(square)").tests
    ['assert square(3) == 9']
    >>> from_asserts(["assert all(square(x) == y for x, y in [(2, 4), (3, 9)])"]).tests
    ['assert square(2) == 4', 'assert square(3) == 9']
    """
    found: list[str] = []
    for text in [tests] if isinstance(tests, str) else tests:
        try:
            body = ast.parse(text).body
        except SyntaxError as error:
            raise UnusableTests(f"a test is not Python: {error}") from None
        for statement in body:
            match statement:
                case ast.Expr(value=ast.Call(func=ast.Name("check"), args=[ast.Name(name)])):
                    entry_point = entry_point or name
                case _:
                    pass
        while body:
            statement, *body = body
            match statement:
                case ast.Assert():
                    found += [ast.unparse(_Renamed(entry_point).visit(each)) for each in _unrolled(statement)]
                case ast.Expr(value=ast.Call(func=ast.Name("check"), args=[ast.Name(name)])) if name == entry_point:
                    pass
                case ast.FunctionDef(name="check"):
                    body = [*statement.body, *body]
                case ast.Import() | ast.ImportFrom():
                    setup += f"\n{ast.unparse(statement)}"
                case ast.Expr(value=ast.Constant()) | ast.Pass() | ast.Assign(targets=[ast.Name(id="METADATA")]):
                    pass
                case _:
                    raise UnusableTests(f"a test has more than asserts: {ast.unparse(statement)[:60]}")
    return _tests(type="assert", tests=found, setup=setup.strip())


def _unrolled(statement: ast.Assert) -> list[ast.Assert]:
    """`assert all(...)` over values that are written down as one assert for each. Every other assert as it is."""
    match statement.test:
        case ast.Call(func=ast.Name("all"), args=[ast.List(elts=parts) | ast.Tuple(elts=parts)], keywords=[]) if parts:
            return [ast.Assert(test=part) for part in parts]
        case ast.Call(
            func=ast.Name("all"),
            args=[
                ast.GeneratorExp(
                    elt=part, generators=[ast.comprehension(target=target, iter=values, ifs=[], is_async=0)]
                )
                | ast.ListComp(elt=part, generators=[ast.comprehension(target=target, iter=values, ifs=[], is_async=0)])
            ],
            keywords=[],
        ):
            rows = [_named(target, value) for value in _written_down(values)]
            if rows and None not in rows:
                return [
                    ast.Assert(test=_Filled(row or {}).visit(ast.parse(ast.unparse(part), mode="eval").body))
                    for row in rows
                ]
        case _:
            pass
    return [statement]


def _written_down(values: ast.expr) -> list[ast.expr]:
    """The members of a list, tuple or range that is written down. None where it is another."""
    match values:
        case ast.List(elts=members) | ast.Tuple(elts=members):
            return members
        case ast.Call(func=ast.Name("range"), args=bounds, keywords=[]) if bounds:
            try:
                numbers = range(*[ast.literal_eval(bound) for bound in bounds])
            except (ValueError, TypeError):
                return []
            return (
                [ast.parse(str(number), mode="eval").body for number in numbers[:MAX_UNROLLED]]
                if len(numbers) <= MAX_UNROLLED
                else []
            )
        case _:
            return []


def _named(target: ast.expr, value: ast.expr) -> dict[str, ast.expr] | None:
    """The names of a loop with what they stand for in one round. None where they do not fit."""
    match target, value:
        case ast.Name(name), _:
            return {name: value}
        case ast.Tuple(elts=targets), ast.Tuple(elts=values) | ast.List(elts=values) if len(targets) == len(values):
            parts = [_named(*pair) for pair in zip(targets, values, strict=True)]
            return None if None in parts else {name: each for part in parts if part for name, each in part.items()}
        case _:
            return None


class _Filled(ast.NodeTransformer):
    """Names by what they stand for."""

    def __init__(self, values: dict[str, ast.expr]) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._values.get(node.id, node)


class _Renamed(ast.NodeTransformer):
    """`candidate` by the name that the function has."""

    def __init__(self, name: str | None) -> None:
        self._name = name

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self._name, node.ctx) if self._name and node.id == "candidate" else node


def _from_cases(cases: Sequence[Mapping[str, Any]], names: Sequence[str | None]) -> ProgramTests:
    try:
        inputs, outputs = [case["input"] for case in cases], [case["output"] for case in cases]
        kinds = {case.get("type") or case.get("testtype") for case in cases}
    except (KeyError, TypeError, AttributeError):
        raise UnusableTests("a test case has no input or output") from None
    if kinds <= {"stdin_stdout", "stdin", None}:
        return _tests(type="stdin", inputs=list(map(_lines, inputs)), outputs=list(map(_lines, outputs)))
    if len(kinds) > 1 or len(set(names)) != 1:
        raise UnusableTests("the test cases are of several kinds or functions")
    return _tests(
        type="function",
        fn_name=names[0],
        inputs=list(map(_arguments, inputs)),
        outputs=list(map(_value, outputs)),
        setup=FUNCTION_SETUP,
    )


def _tests(**fields: Any) -> ProgramTests:
    return _checked(ProgramTests.model_validate, fields)


def _checked(read: Callable[[Any], ProgramTests], tests: Any) -> ProgramTests:
    try:
        return read(tests)
    except ValidationError as error:
        raise UnusableTests(
            "; ".join(detail["msg"].removeprefix("Value error, ") for detail in error.errors()[:3])
        ) from None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise UnusableTests("the tests are not JSON") from None


def _lines(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _arguments(value: Any) -> list[Any]:
    """Arguments as a list, or as text with one JSON value a line."""
    return list(map(_value, value.strip().split("\n"))) if isinstance(value, str) else value


def _value(value: Any) -> Any:
    """A JSON value. Text that is none stands for itself."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
