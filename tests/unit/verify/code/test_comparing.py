"""Whether what a program stated is what a test expects, and by which rules."""

import pytest

from lampo.verify.code.comparing import same_output
from lampo.verify.code.tests import (
    ProgramTests,
    from_asserts,
    from_input_output,
)

from ....helpers.judged_programs import judged

UNCOMPARABLE = ["10**400", "{frozenset(): 1}", "{1j: 1}", "1j", "[[]]", "float('nan')", "-10**400"]


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("1\n2\n3\n", "1\n2\n3", True),
        ("1  2 \n\n", "1 2", True),
        ("1", "1\n2\n3", False),  # a right beginning
        ("1\n2\n3\n4", "1\n2\n3", False),
        ("", "1", False),
        ("", "", True),
        ("1\n\n2", "1\n2", False),
        ("0.3333334", "0.33333333", True),
        ("0.334", "0.33333333", False),
        ("1e-7", "0.0", True),
        ("1000000.5", "1000000.0", True),
        ("2.0", "2", False),  # a whole number is expected
        ("2", "2.0", True),
        ("yes", "YES", False),
        ("nan", "0.5", False),
        ("1" * 100, "0.5", False),
    ],
)
def test_outputs(output: str, expected: str, same: bool) -> None:
    assert same_output(output, expected) is same


@pytest.mark.parametrize("value", UNCOMPARABLE)
def test_a_value_that_cannot_be_compared_is_wrong(value: str) -> None:
    code = f"def f(x): return {value}"
    for tests in (
        *(ProgramTests(type="function", fn_name="f", inputs=[[1]], outputs=[expected]) for expected in (0.5, {"a": 1})),
        from_asserts(["assert abs(f(1) - 0.5) < 1e-6"]),
    ):
        assert judged(code, tests).status == "wrong", judged(code, tests).detail


def test_values_that_all_have_one_hash_cost_no_time_outside() -> None:
    code = "def f(x): return {n * (2**61 - 1) for n in range(1, 5000)}\ndef g(x): return dict.fromkeys(f(x), 1)"
    for name in "fg":
        tests = ProgramTests(type="function", fn_name=name, inputs=[[1]], outputs=[{"a": 1}])
        assert judged(code, tests).detail.endswith("no value was returned that can be compared")
    assert (
        judged("def f(): return {3, (1, 2)}, {4: 5}", from_asserts(["assert f() == ({3, (1, 2)}, {4: 5})"])).status
        == "right"
    )


@pytest.mark.parametrize(
    ("code", "output", "option"),
    [
        ("print(3)\nraise SystemExit(1)", "3\n", "ignore_exit_status"),
        ("print('Yes')", "YES\n", "ignore_case"),
        ("print(2.0)", "2\n", "whole_numbers_by_value"),
    ],
)
def test_rules_of_public_graders_are_options(code: str, output: str, option: str) -> None:
    tests = from_input_output({"inputs": [""], "outputs": [output]})
    assert judged(code, tests).status == "wrong"
    assert judged(code, tests, **{option: True}).status == "right"
    wrong = from_input_output({"inputs": [""], "outputs": ["4\n"]})
    assert judged(code, wrong, **{option: True}).status == "wrong"


def test_a_program_that_is_stopped_passes_by_no_option() -> None:
    tests = from_input_output({"inputs": [""], "outputs": ["3\n"]})
    spinning = "print(3, flush=True)\nwhile True: pass"
    assert judged(spinning, tests, ignore_exit_status=True, test_timeout_s=0.5).status == "wrong"


def test_whole_numbers_by_value_are_exact() -> None:
    for output, expected, same in (
        ("2.0", "2", True),
        ("-0.0", "0", True),
        ("2.0000001", "2", False),
        ("2e0", "2", False),
    ):
        assert same_output(output, expected, whole_by_value=True) is same
    assert not same_output("9007199254740993.0", "9007199254740992", whole_by_value=True)
