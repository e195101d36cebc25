"""What is told of an answer."""

from lampo.signal.answer import SCALINGS, Answer, Signal
from lampo.signal.statistics import Versus
from lampo.signal.table import markdown, tables

NOISE = Versus(0.1, None, None, None, "cannot tell", 120)
KNOWN = Versus(0.2, 0.3, 0.1, 0.5, "better")


def answer(clean: Versus, errors: Versus, smaller: Versus) -> Answer:
    baseline = Versus(0.1, 0.0, 0.0, 0.0, "baseline")
    conditions = [("clean verdicts", 4, clean), ("40% false positives", 4, errors), ("clean verdicts", 2, smaller)]
    signals = [
        Signal(verdicts, size, scaling, name, baseline if (name, size) == ("grpo", 4) else versus)
        for verdicts, size, versus in conditions
        for scaling in SCALINGS
        for name in ("grpo", "lampo")
    ]
    return Answer("small", "grpo", "untrained", 16, 16, 3, 4, 0.1, 0.5, "token", 8192, tuple(signals))


def titles(of: Answer) -> list[str]:
    return [table.title for table in tables(of)]


def test_a_table_of_dashes_is_left_out() -> None:
    first, errors, sizes = (
        "With clean verdicts",
        "With made-up errors of the verifier",
        "Group sizes, 12 rollouts a step",
    )
    assert titles(answer(KNOWN, KNOWN, KNOWN)) == [first, errors, sizes]
    assert titles(answer(NOISE, KNOWN, NOISE)) == [first, errors]
    assert titles(answer(KNOWN, NOISE, KNOWN)) == [first, sizes]
    nothing = answer(NOISE, NOISE, NOISE)
    assert titles(nothing) == [first]
    assert "40% false positives: too noisy to tell." in markdown(nothing)  # it is told in words
