from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lampo.types import LampoError, Verdict
from lampo.verify import ExactOptions, NumericOptions, VerifierOptions, committed_text, judge, verify
from lampo.verify.numeric import answer_number, first_number, last_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12-5=7", 7),
        ("10-4", 4),
        ("10 - 4", 4),
        ("x-4", 4),
        ("x - 4", 4),
        ("(x)-4", 4),
        ("10--4", -4),
        ("10 = -4", -4),
        ("= - 4", -4),
        ("the answer is -4", -4),
        ("the answer is −4.", -4),
        ("12\n-4", -4),
        ("- 4 apples", 4),  # an item of a list
        ("(-4)", -4),
        (r"\(-4\)", -4),
        ("**-4**", -4),
        ("$-4$", -4),
        ("-$4", -4),
        (r"-\$4", -4),
        ("COVID-19", 19),
        ("1,234,567", 1_234_567),
        ("$1,234.50.", Fraction(123450, 100)),
        ("1,2,3", 3),
        ("1,2345", 2345),
        ("0,123", 123),
        ("12345,678", 678),
        ("It is 42.", 42),
        ("3.14", Fraction(314, 100)),
        ("1.2.3", 3),
        (".75", Fraction(3, 4)),
        ("3/4", Fraction(3, 4)),
        ("16/2=8", 8),
        ("6e3", 6000),
        ("2E-2", Fraction(2, 100)),
        ("025", 25),
        (r"\boxed{42}", 42),
        ("5cm", 5),
        ("٣", None),  # digits of other scripts are not read
        ("no number", None),
        ("", None),
    ],
)
def test_last_number(text, value):
    found = last_number(text)
    assert (found and found.value) == value


@pytest.mark.parametrize(
    ("completion", "answer", "status"),
    [
        ("025", "25", "right"),
        ("1000000", "1,000,000", "right"),
        (".75", "3/4", "right"),
        ("0.1 + 0.2 = 0.3", "0.3", "right"),
        ("0.30000000000000004", "0.3", "wrong"),
        ("0.0000001", "0.0000003", "wrong"),
        ("12345678901234567891", "12345678901234567890", "wrong"),
        ("-0", "0", "right"),
        ("7 or 8", "7", "wrong"),
        ("50%", "50%", "right"),
        (r"50\%", "50.0 %", "right"),
        ("50%", "50", "wrong"),
        ("50", "50%", "wrong"),
        ("0.5", "50%", "wrong"),
        ("1/0", "0", "wrong"),
        ("<think>It is 5.</think> It is 7.", "7", "right"),
        ("<think>It is 7.</think> It is 5.", "7", "wrong"),
        ("<think>It is 7.", "7", "wrong"),
        ("7 <think>or 5", "7", "wrong"),
        ("It is 5. </think> It is 7.", "7", "right"),  # the prompt began the thought
        ("<think>7</think>", "7", "wrong"),
    ],
)
def test_numeric(completion, answer, status):
    assert NumericOptions().verify(completion, answer).status == status


@pytest.mark.parametrize("answer", ["", "twelve", "12 apples", "3 4", "x = 5", "--5", "1/0", "9" * 5000, "1e9999"])
def test_an_answer_that_is_no_number_is_unknown(answer):
    verdict = judge(NumericOptions(), "12", answer)
    assert verdict.status == "unknown"
    assert "not a number" in verdict.detail


@pytest.mark.parametrize("answer", ["-1200", " -1,200 ", "-$1,200", "$-1,200.00.", "− 1200", "$-1200$", "-1.2e3"])
def test_answers_in_many_spellings(answer):
    number = answer_number(answer)
    assert number is not None
    assert number.value == -1200


def test_nothing_found_is_wrong_and_extracts_nothing():
    for completion in ("", "I do not know", "<think>5", "</think>"):
        verdict = verify("numeric", completion, "5")
        assert (verdict.status, verdict.extracted) == ("wrong", None)


@pytest.mark.parametrize(
    ("completion", "extracted"),
    [
        ("9 + 9 = 18\n#### 18 (of 20)", "18"),
        ("#### 3 no, #### -18", "-18"),
        ("####18.", "18"),
        ("#### $18", "18"),
        ("18", None),
        ("#### 18 ####", None),
        ("<think>#### 18</think> 18", None),
    ],
)
def test_marker(completion, extracted):
    verdict = NumericOptions(marker="####").verify(completion, "18")
    assert verdict.extracted == extracted
    assert verdict.status == ("right" if extracted == "18" else "wrong")


def test_huge_runs_are_wrong():  # int() of such a run is refused by Python, and would take minutes if it were not
    huge = "9" * 100_000
    for completion in (
        huge,
        f"1{',111' * 30_000}",
        f"1/{huge}",
        f"1e{huge}",
        f"0.{huge}",
        "1e1000000000",
        "-" * 100_000,
    ):
        verdict = verify("numeric", completion, "9")
        assert verdict.status == "wrong", completion[:20]
        assert len(verdict.extracted or "") < 100
    assert verify("numeric", "1 " * 100_000 + "9", "9").status == "right"
    assert verify("numeric", "9", huge).status == "unknown"


@settings(deadline=None)
@given(st.fractions(max_denominator=10**6))
def test_every_fraction_equals_itself_and_not_its_neighbour(number):
    assert NumericOptions().verify(f"So it is {number}.", str(number)).status == "right"
    assert NumericOptions().verify(f"So it is {number + Fraction(1, 10**12)}.", str(number)).status == "wrong"


@settings(deadline=None)
@given(st.integers(), st.integers(0, 10**9))
def test_separators_and_operations_do_not_change_an_integer(number, other):
    for completion in (f"{number:,}", f"${number:,}.", f"{other}-{other}={number}", f"#### {number}"):
        assert NumericOptions().verify(completion, str(number)).status == "right"


@settings(deadline=None)
@given(st.text())
def test_no_text_makes_a_verifier_fail(text):
    for name, answer in (("numeric", "5"), ("exact", "5"), ("choice", "C")):
        assert verify(name, text, answer).status in ("right", "wrong")
        assert "Error" not in verify(name, "5", text).detail
    first_number(text)


def test_exact():
    assert ExactOptions().verify("  New \n York ", "New York") == Verdict("right", "New York")
    assert ExactOptions().verify("new york", "New York").status == "wrong"
    assert ExactOptions(ignore_case=True).verify("new york", "New York").status == "right"
    assert ExactOptions().verify("New York.", "New York").status == "wrong"
    assert ExactOptions().verify("<think>east</think>west", "west").status == "right"
    assert ExactOptions().verify(" ", "west") == Verdict("wrong", detail="no answer given")
    assert ExactOptions().verify("west", " ").status == "unknown"
    assert ExactOptions(marker="Answer:").verify("Answer: east? Answer: west", "west").status == "right"
    assert ExactOptions(marker="Answer:").verify("west", "west").extracted is None


@pytest.mark.parametrize(
    ("said", "answer", "score"),
    [
        ("1032", "1032", 1),
        ("It is 1,032.0", "1032", 1),
        ("1042", "1032", 3 / 4),
        ("32", "1032", 2 / 4),
        ("21032", "1032", 4 / 5),
        ("0133", "132", 2 / 3),
        ("3.25", "3.5", 1 / 3),
        ("3.5", "3.50", 1),
        (".75", "0.7", 2 / 3),
        ("-7", "7", 0),
        ("50%", "50", 0),
        ("57%", "50%", 1 / 2),
        ("1/2", "0.5", 1),
        ("1/3", "0.5", 0),
        ("1/0", "0.5", 0),
        ("none", "5", 0),
    ],
)
def test_partial_credit_of_a_number_is_the_share_of_its_digits(said, answer, score):
    verdict = NumericOptions(partial_credit=True).verify(said, answer)
    assert (verdict.value, verdict.status) == (pytest.approx(score), "right" if score == 1 else "wrong")
    whole = NumericOptions().verify(said, answer)
    assert (whole.status, whole.score, whole.value) == (verdict.status, None, float(score == 1))


def test_partial_credit_of_a_text_is_1_only_for_the_same_words():
    judged = ExactOptions(partial_credit=True, ignore_case=True).verify
    for said, score in (("New YORK", 1), ("new old york", 2 * 2 / 5), ("York New", 2 * 1 / 4), ("none", 0), ("", 0)):
        verdict = judged(said, "New  York")
        assert (verdict.value, verdict.status) == (pytest.approx(score), "right" if score == 1 else "wrong")


def test_partial_credit_leaves_unknown_unknown_and_is_refused_where_answers_have_no_parts():
    for partial in (NumericOptions(partial_credit=True), ExactOptions(partial_credit=True)):
        assert partial.verify("5", " ").value is None
    for name in ("math", "choice"):
        with pytest.raises(LampoError, match="partial_credit"):
            verify(name, "5", "5", partial_credit=True)


def test_committed_text_of_reopened_thoughts():
    assert committed_text("<think>a</think>b<think>c</think>d") == "d"
    assert committed_text("<think>a</think>b<think>c") == ""


class Failing(VerifierOptions):
    def verify(self, completion: str, answer: str) -> Verdict:
        raise RecursionError("too deep")


def test_a_failing_verifier_is_unknown_and_timed():
    verdict = judge(Failing(), "5", "5")
    assert (verdict.status, verdict.detail) == ("unknown", "RecursionError: too deep")
    assert verdict.seconds > 0


def test_wrong_options_are_refused():
    with pytest.raises(LampoError, match=r"'numbers'.*Known: numeric, exact"):
        verify("numbers", "5", "5")
    with pytest.raises(LampoError, match="tolerance"):
        verify("numeric", "5", "5", tolerance=0.1)
    with pytest.raises(LampoError, match="marker"):
        verify("numeric", "5", "5", marker="")
