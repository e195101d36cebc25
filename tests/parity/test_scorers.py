"""Scores of fixed completions by our verifiers and by the code and the patterns of lm-evaluation-harness (lm_eval).

Where the two differ the reason is written down, and the difference itself is asserted, so that the list stays honest.
"""

import importlib.util
import re
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from lampo.evaluation.benchmarks import BENCHMARKS
from lampo.verify import MathOptions, judge


def tasks_folder() -> Path:
    try:
        return Path(str(metadata.distribution("lm_eval").locate_file("lm_eval/tasks")))
    except metadata.PackageNotFoundError:
        pytest.skip("lm_eval is not installed (pip install --no-deps lm_eval==0.4.13)")


@pytest.fixture(scope="module")
def hendrycks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hendrycks", tasks_folder() / "hendrycks_math" / "utils.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MATH = [  # (gold, completion)
    ("42", "Thus the answer is $\\boxed{42}$."),
    ("42", "Thus the answer is $\\boxed{43}$."),
    ("42", "First \\boxed{41}. No: \\boxed{42}."),
    ("\\frac{1}{2}", "So $\\boxed{\\frac12}$."),
    ("\\frac{1}{2}", "So $\\boxed{\\dfrac{1}{2}}$."),
    ("\\frac{3}{4}", "So $\\boxed{3/4}$."),
    ("\\frac{3}{4}", "So $\\boxed{\\frac{6}{8}}$."),
    ("\\frac{3}{4}", "So $\\boxed{0.75}$."),
    ("0.5", "So $\\boxed{\\frac{1}{2}}$."),
    ("x+1", "So $\\boxed{x + 1}$."),
    ("x+1", "So $\\boxed{1+x}$."),
    ("\\sqrt{12}", "So $\\boxed{2\\sqrt{3}}$."),
    ("(1,2)", "So $\\boxed{(1, 2)}$."),
    ("(1,2)", "So $\\boxed{(2,1)}$."),
    ("\\text{east}", "So $\\boxed{\\text{west}}$."),
    ("\\text{east}", "So $\\boxed{\\text{east}}$."),
    ("12", "So $\\boxed{12\\text{ cm}}$."),
    ("90", "So $\\boxed{90^\\circ}$."),
    ("50", "So $\\boxed{50\\%}$."),
    ("7", "So $\\boxed{x = 7}$."),
    ("1000", "So $\\boxed{1,000}$."),
    ("3", "So the answer is 3."),
    ("5", "So $\\boxed{3 \\text{ or } 5}$."),
    ("2", "So $\\boxed{2"),
    ("\\{1,2\\}", "So $\\boxed{\\{2,1\\}}$."),
    ("-\\frac{1}{3}", "So $\\boxed{\\frac{-1}{3}}$."),
    ("10", "So $\\boxed{\\$10}$."),
    ("8", "<think>\\boxed{7}</think>So $\\boxed{8}$."),
    ("6", "<think>So $\\boxed{6}$."),
]
MATH_DIFFERENCES = {  # theirs compares normalised text, ours values
    "So $\\boxed{\\frac{6}{8}}$.": (True, "equal fractions"),
    "So $\\boxed{0.75}$.": (True, "a decimal for a fraction (only 0.5 is known there)"),
    "So $\\boxed{1+x}$.": (True, "the same sum in another order"),
    "So $\\boxed{2\\sqrt{3}}$.": (True, "the same root"),
    "So $\\boxed{1,000}$.": (True, "a thousands separator"),
    "So $\\boxed{\\{2,1\\}}$.": (True, "sets have no order"),
    "So $\\boxed{\\frac{-1}{3}}$.": (True, "the place of the sign"),
    "So the answer is 3.": (True, "no box: theirs has nothing to compare"),
    "So $\\boxed{50\\%}$.": (False, "50 % is one half; theirs drops the sign"),
    "<think>So $\\boxed{6}$.": (False, "a thought that is still open commits to nothing"),
}


@pytest.mark.parametrize(("gold", "completion"), MATH)
def test_math_against_hendrycks_math(hendrycks: ModuleType, gold: str, completion: str) -> None:
    ours = judge(MathOptions(), completion, gold).status == "right"
    box = hendrycks.last_boxed_only_string(completion)
    theirs = bool(box) and hendrycks.is_equiv(hendrycks.remove_boxed(box), gold)
    if completion in MATH_DIFFERENCES:
        expected, _ = MATH_DIFFERENCES[completion]
        assert (ours, theirs) == (expected, not expected)
    else:
        assert ours == theirs


GSM8K = [
    ("72", "48/2 = 24\n48+24 = 72\n#### 72"),
    ("72", "48/2 = 24\n48+24 = 73\n#### 73"),
    ("72", "So the total is \\boxed{72}."),
    ("72", "She sold 72."),
    ("72", "The answer is 72 clips, out of 100."),
    ("1234", "It costs $1,234."),
    ("1234", "#### 1,234"),
    ("5", "The answer is 5"),
    ("5", "The answer is $5.00"),
    ("18", "He makes 9 * 2 = $18 every day."),
    ("18", "She has \\boxed{18} eggs, that is 2 a day."),
    ("-3", "#### -3"),
    ("10", "ten"),
    ("0.5", "#### 0.5"),
    ("3", "Answer: **3**"),
    ("64", "The answer is 60, no wait: 64"),
    ("20", "#### 20 dollars"),
    ("18", "The answer is 18. That is 2 a day."),
    ("18", "The answer is 18 dollars per day."),
    ("42", "The answer is 42. We can verify that this answer is correct by substituting."),
    ("70000", "The answer is $70,000 profit."),
    ("18", "**Answer:** Janet makes $18 every day"),
    ("18", "Janet makes 18 dollars. I hope this answer is helpful!"),
]
GSM8K_DIFFERENCES = {
    "The answer is $5.00": (True, "5.00 is 5; theirs compares text"),
    "She has \\boxed{18} eggs, that is 2 a day.": (True, "theirs takes the last number, ours the box"),
    "The answer is 18. That is 2 a day.": (True, "theirs takes the last number, ours what is said to be the answer"),
}


def flexible_extract(completion: str, gold: str) -> bool:
    """The filter and metric `flexible-extract` of lm_eval's gsm8k.yaml, with its patterns."""
    text = (tasks_folder() / "gsm8k" / "gsm8k.yaml").read_text()
    settings = yaml.safe_load(text)
    (pattern,) = [
        step["regex_pattern"]
        for entry in settings["filter_list"]
        for step in entry["filter"]
        if entry["name"] == "flexible-extract" and step["function"] == "regex"
    ]
    matches = re.findall(pattern, completion)
    found = next((group for group in matches[-1] if group), "[invalid]").strip() if matches else "[invalid]"
    for ignored in settings["metric_list"][0]["regexes_to_ignore"]:
        found, gold = re.sub(ignored, "", found), re.sub(ignored, "", gold)
    return found.lower() == gold.lower()


@pytest.mark.parametrize(("gold", "completion"), GSM8K)
def test_gsm8k_against_flexible_extract(gold: str, completion: str) -> None:
    verifier = BENCHMARKS["gsm8k"].verifier
    assert verifier is not None
    ours, theirs = judge(verifier, completion, gold).status == "right", flexible_extract(completion, gold)
    if completion in GSM8K_DIFFERENCES:
        expected, _ = GSM8K_DIFFERENCES[completion]
        assert (ours, theirs) == (expected, not expected)
    else:
        assert ours == theirs
