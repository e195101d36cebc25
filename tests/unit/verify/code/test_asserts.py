"""Asserts: what each asks, and those that cannot be judged from outside."""

import pytest

from lampo.verify import CodeOptions
from lampo.verify.code.tests import (
    ProgramTests,
    from_asserts,
)

from ....helpers.judged_programs import judged
from ....helpers.sandboxed import sandbox_or_skip


def test_asserts_as_python_means_them() -> None:
    tests = from_asserts(
        [
            "assert pair() == (1, 2)",
            "assert 3 == three()",
            "assert set(many()) == set([3, 1])",
            "assert none() is None",
            "assert is_even(2)",
            "assert not is_even(3)",
            "assert abs(half() - 0.5) < 1e-6",
            "assert math.isclose(half(), 0.5, rel_tol=1e-3)",
        ],
        setup="import math",
    )
    code = """
def pair(): return (1, 2)
def three(): return 3
def many(): return [1, 3, 1]
def none(): return None
def is_even(x): return x % 2 == 0
def half(): return 0.5
"""
    assert judged(code, tests).status == "right", judged(code, tests).detail
    assert judged(code.replace("(1, 2)", "[1, 2]"), tests).status == "wrong"
    assert judged(code.replace("return 0.5", "return 0.6"), tests).detail.startswith("6/8")


def test_what_cannot_be_judged_from_outside_is_unknown() -> None:
    sandbox_or_skip()
    for test in ("assert check(square(2), 4)", "assert all(square(n) == n * n for n in range(3))", "print(1)"):
        tests = ProgramTests(type="assert", tests=[test]).dump()
        assert CodeOptions().verify("```\ndef square(x): return 4\n```", tests).status in ("unknown",), test


@pytest.mark.parametrize(
    ("text", "tests"),
    [
        ("assert all(f(x) == y for x, y in [(2, 4), (3, 9)])", ["assert f(2) == 4", "assert f(3) == 9"]),
        ("assert all([f(2) == 4, f(3) == 9])", ["assert f(2) == 4", "assert f(3) == 9"]),
        ("assert all([f(x) for x in range(2)])", ["assert f(0)", "assert f(1)"]),
        ("assert all(f(x) == y for (x, y) in ((2, 4),))", ["assert f(2) == 4"]),
        ("assert all(f(x) for x in range(10**9))", ["assert all((f(x) for x in range(10 ** 9)))"]),
        ("assert all(f(x) for x in g())", ["assert all((f(x) for x in g()))"]),
        ("assert all(f(x) for x in [1, 2] if x)", ["assert all((f(x) for x in [1, 2] if x))"]),
        ("def check(candidate):\n    assert candidate(3) == 9\ncheck(square)", ["assert square(3) == 9"]),
        (
            "def check(candidate):\n    assert all(candidate(x) == 1 for x in (1, 2))\ncheck(f)",
            ["assert f(1) == 1", "assert f(2) == 1"],
        ),
    ],
)
def test_asserts_of_many_values_and_a_check_that_is_called(text: str, tests: list[str]) -> None:
    assert from_asserts([text]).tests == tests


def test_an_unrolled_assert_is_judged() -> None:
    tests = from_asserts(["assert all(square(x) == y for x, y in [(2, 4), (3, 9)])"])
    assert judged("def square(x): return x * x", tests).status == "right"
    assert judged("def square(x): return 4", tests).detail == "1/2 tests; test 2: wrong answer"
