"""The forms in which public data sets have their tests."""

import json

import pytest

from lampo.verify import CodeOptions
from lampo.verify.code.tests import (
    FUNCTION_SETUP,
    ProgramTests,
    UnusableTests,
    from_asserts,
    from_input_output,
    from_livecodebench,
    from_verification_info,
    read_tests,
)

from ....helpers.judged_programs import ADD


def test_answers_that_hold_no_tests_are_unknown() -> None:
    for answer in (
        "",
        "42",
        "[]",
        '{"type": "stdin"}',
        '{"type": "stdin", "inputs": ["1"], "outputs": []}',
        '{"type": "x"}',
    ):
        assert CodeOptions().verify("```\n1\n```", answer).status == "unknown", answer


def test_forms_of_public_data_sets() -> None:
    assert read_tests(ADD.dump()) == ADD
    info = {
        "language": "python",
        "test_cases": [{"type": "stdin_stdout", "input": "1 2\n", "output": "3\n", "fn_name": None}],
    }
    assert from_verification_info(json.dumps(info)) == ProgramTests(type="stdin", inputs=["1 2\n"], outputs=["3\n"])
    called = {"test_cases": [{"type": "function_call", "fn_name": "add", "input": [1, 2], "output": 3}]}
    assert from_verification_info(called) == ProgramTests(
        type="function", fn_name="add", inputs=[[1, 2]], outputs=[3], setup=FUNCTION_SETUP
    )
    public = json.dumps([{"input": "[1, 2]\n3", "output": "[4]", "testtype": "functional"}])
    assert from_livecodebench(public, function="f") == ProgramTests(
        type="function", fn_name="f", inputs=[[[1, 2], 3]], outputs=[[4]], setup=FUNCTION_SETUP
    )
    assert from_input_output({"inputs": [["1", "2"]], "outputs": [["3"]]}).inputs == ["1\n2"]
    human = "METADATA = {}\n\ndef check(candidate):\n    assert candidate(3) == 9\n    assert candidate(2) == 4\n"
    assert from_asserts(human, entry_point="square").tests == ["assert square(3) == 9", "assert square(2) == 4"]


def test_forms_that_are_refused() -> None:
    for make, message in (
        (lambda: from_livecodebench("[]", "eJxLy8nPBwAC"), "pickle"),
        (
            lambda: from_verification_info({"language": "cpp", "test_cases": [{"input": "", "output": ""}]}),
            "not python",
        ),
        (lambda: from_verification_info({"test_cases": []}), "no test_cases"),
        (lambda: from_input_output("{"), "not JSON"),
        (lambda: from_input_output({"inputs": [], "outputs": []}), "must pair"),
        (lambda: from_asserts("for x in range(3):\n    assert f(x)"), "more than asserts"),
    ):
        with pytest.raises(UnusableTests, match=message):
            make()
