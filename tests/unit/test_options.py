"""A user's own functions: found, called with what they ask for, and their errors told with file and line."""

from pathlib import Path

import pytest

from lampo.options import call_own, load_function, make_importable, own_function_options
from lampo.types import LampoError

OWN = "tests.helpers.own_functions"


def test_a_function_is_found_and_what_is_wrong_is_said(tmp_path: Path) -> None:
    assert load_function(f"{OWN}.closeness", "the verifier")("4", "4") == 1.0
    with pytest.raises(
        LampoError, match=r"There is no module 'no' for the reward no\.such\. Put no\.py beside the recipe"
    ):
        load_function("no.such", "the reward")
    with pytest.raises(LampoError, match=r"own_functions\.py has no function 'closness' \(the reward"):
        load_function(f"{OWN}.closness", "the reward")
    (tmp_path / "own_broken_module.py").write_text("import torch\n1 / 0\n")
    make_importable([tmp_path])
    with pytest.raises(
        LampoError, match=r"ZeroDivisionError: division by zero \(.*own_broken_module\.py, line 2: 1 / 0\)"
    ):
        load_function("own_broken_module.reward", "the reward")
    (tmp_path / "own_needs_another.py").write_text("import a_module_that_is_not_there\n")
    with pytest.raises(
        LampoError, match="Importing the reward .* failed.*No module named 'a_module_that_is_not_there'"
    ):
        load_function("own_needs_another.reward", "the reward")


def test_what_a_function_raises_is_told_with_its_line() -> None:
    with pytest.raises(
        LampoError, match=r"It failed\. KeyError: 'no such key' \(.*own_functions\.py, line \d+: return"
    ):
        call_own(load_function(f"{OWN}.raises", "it"), "It", {"a": 1}, {})


def test_other_keys_of_a_section_are_options_of_its_function() -> None:
    section = {"name": "python:a.b", "weight": 2.0, "limit": 3}
    assert own_function_options(section, known=("weight",)) == {
        "name": "python",
        "function": "a.b",
        "weight": 2.0,
        "options": {"limit": 3},
    }
    assert own_function_options({"name": "grpo", "std": True}, known=()) == {"name": "grpo", "std": True}
