import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampo.verify import ChoiceOptions, lettered

CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "data" / "choice.jsonl").read_text(encoding="utf-8").splitlines()
]
CAPITALS = json.dumps({"letter": "B", "options": ["Lyon", "Paris", "A city on the Rhone", "Nice or Cannes"]})


@pytest.mark.parametrize(
    ("completion", "status"),
    [
        ("Answer: B", "right"),
        ("**Answer: B**", "right"),
        ("**Answer:** (B)", "right"),
        ("Answer: B.", "right"),
        ("Answer: $B$", "right"),
        ("Answer: B) Paris", "right"),
        ("Answer: b", "right"),
        ("Answer: Paris", "right"),
        ("Answer: paris.", "right"),
        ("Answer:\nB", "right"),
        ("The correct answer is (B), because ...", "right"),
        ("So the answer is option B.", "right"),
        ("the correct option is B", "right"),
        ("I would say \\boxed{B}.", "right"),
        ("$\\boxed{\\text{(B)}}$", "right"),
        ("$\\boxed{\\textbf{B}}$", "right"),
        ("\\boxed{\\text{Paris}}", "right"),
        ("A is wrong, C as well.\nB", "right"),
        ("(B)", "right"),
        ("First Answer: A. But no.\nAnswer: B", "right"),
        ("<think>Answer: A</think>Answer: B", "right"),
        ("$\\boxed{\\text{\\textbf{B}}}$", "right"),
        ("\\boxed{\\text{B) } \\frac{\\sqrt2}{2}}", "right"),
        ("I first thought \\boxed{A}, but it is \\boxed{\\text{\\textbf{B}}}.", "right"),
        ("\\boxed{B}, that is, \\boxed{B}", "right"),
        ("\\boxed{} Answer: B", "right"),
        ("The answer is B because it is the only one left.", "right"),
        ("The answer is B, I think.", "right"),
        ("I say the answer is B. I am sure that this answer is correct.", "right"),
        ("The answer is B (E = mc^2)", "right"),
        ("Answer: B\n\nI am confident that this answer is correct.", "right"),
        ("The answer is surely this:\nB", "right"),
        ("Answer: A\n\nI am confident that this answer is correct.", "wrong"),
        ("Answer: B\n\nI was wrong, the answer is C.", "wrong"),
        ("Answer: B\n\nAnswer: E", "wrong"),
        ("\\boxed{B}, thus \\boxed{", "wrong"),
        ("\\boxed{B}, \\boxed{C}", "wrong"),
        ("The answer is A because it is the only one left.", "wrong"),
        ("The answer is option A because B is too small.", "wrong"),
        ("Answer: A", "wrong"),
        ("Answer: Lyon", "wrong"),
        ("Answer: A city on the Rhone", "wrong"),
        ("Answer: B or C", "wrong"),
        ("Answer: A, B", "wrong"),
        ("Answer: both A and B", "wrong"),
        ("Answer: B, or possibly C", "wrong"),
        ("\\boxed{A, B, C, D}", "wrong"),
        ("\\boxed{B}, no, \\boxed{C}", "wrong"),
        ("Answer: B) Lyon", "wrong"),
        ("Answer: Nice or Cannes", "wrong"),
        ("B is the capital, I think, or A.", "wrong"),
        ("<think>Answer: B", "wrong"),
        ("<think>Answer: B</think>", "wrong"),
        ("Answer:", "wrong"),
        ("", "wrong"),
        ("A) Lyon\nB) Paris\nC) A city on the Rhone\nD) Nice or Cannes", "wrong"),
        ("The answer is one of the letters", "wrong"),
        ("Answer: $LETTER", "wrong"),
        ("Answer: E", "wrong"),
    ],
)
def test_what_a_response_commits_to(completion: str, status: str) -> None:
    assert ChoiceOptions().verify(completion, CAPITALS).status == status


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_what_a_person_reads(case: dict) -> None:
    assert (ChoiceOptions().verify(case["completion"], case["gold"]).status == "right") == case["expected"]


def test_what_the_pattern_of_simple_evals_accepts_rightly_is_accepted() -> None:
    pattern = re.compile(r"(?i)Answer[ \t]*:[ \t]*\$?([A-D])\$?")
    for lead in ("", "Some words.\n\n", "**", "Final "):
        for said in ("Answer: C", "Answer:C", "answer : c", "ANSWER: $C$", "Answer:\t$C"):
            for end in (
                "",
                ".",
                "**",
                "\n",
                ")",
                ", since A is too small",
                " because of B",
                "\n\nB would be too large.",
                "; not D",
            ):
                response = f"{lead}{said}{end}"
                assert pattern.search(response)
                assert ChoiceOptions().verify(response, "C").status == "right", response


@pytest.mark.parametrize("letter", "ABCD")
def test_no_letter_is_read_otherwise_than_the_others(letter: str) -> None:
    for gold in (letter, json.dumps({"letter": letter, "options": ["one", "two", "three", "four"]})):
        for said in (
            "{} because it is the only one left",
            "option {} since I like it",
            "**{}** or so",
            "({}), I think",
            "{}: a good one",
        ):
            assert ChoiceOptions().verify(f"The answer is {said.format(letter)}.", gold).status == "right", said
        for other in set("ABCD") - {letter}:
            for said in ("{} or {}", "{} and also {}", "{}, or else {}"):
                assert ChoiceOptions().verify(f"The answer is {said.format(letter, other)}.", gold).status == "wrong", (
                    said
                )


def test_an_option_in_mathematics_is_its_text() -> None:
    gold = json.dumps({"letter": "C", "options": ["5 \\text{ m}", "\\frac{1}{2}", "5 \\text{ cm}"]})
    assert ChoiceOptions().verify("\\boxed{5 \\text{ cm}}", gold).extracted == "C"
    assert ChoiceOptions().verify("\\boxed{\\frac{1}{2}}", gold).extracted == "B"


def test_a_letter_is_enough_as_an_answer() -> None:
    assert ChoiceOptions().verify("Answer: C", "C").status == "right"
    assert ChoiceOptions().verify("Answer: C) the third", "(C)").status == "right"
    assert ChoiceOptions().verify("Answer: B", "C").status == "wrong"
    for nonsense in ("", "K", "42", "[]", '{"letter": "C", "options": ["one", "two"]}', "the third"):
        assert ChoiceOptions().verify("Answer: C", nonsense).status == "unknown"


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" + "\\text{" * 50_000 + "B" + "}" * 50_001,
        "Answer: " + "\\text{" * 50_000,
        "\\boxed{" * 60_000,
        "answer" + " " * 400_000,
        "the answer is " * 28_000,
        "answer:\n" * 50_000,
        "Answer: " + ")" * 400_000,
        "A" + ")" * 400_000 + "x",
        "the answer is A a " * 22_000,
    ],
    ids=lambda text: text[:20],
)
def test_long_responses_take_linear_time(text: str) -> None:
    ChoiceOptions().verify(text, CAPITALS)  # pytest's time limit stops what is quadratic


@given(st.text())
def test_any_response_gets_a_verdict_and_committing_is_right(text: str) -> None:
    assert ChoiceOptions().verify(text, CAPITALS).status in ("right", "wrong")
    assert ChoiceOptions().verify(ChoiceOptions().answer_text(CAPITALS), CAPITALS).status == "right"


def test_the_place_of_the_right_option_follows_from_the_key_and_from_nothing_else() -> None:
    letters = Counter()
    for number in range(2000):
        text, answer = lettered(["right", "w1", "w2", "w3"], 0, key=f"problem {number}")
        again = lettered(["right", "w1", "w2", "w3"], 0, key=f"problem {number}")
        assert (text, answer) == again
        letter = json.loads(answer)["letter"]
        assert f"{letter}) right" in text
        letters[letter] += 1
    assert all(abs(count - 500) < 5 * (2000 * 0.25 * 0.75) ** 0.5 for count in letters.values())


def test_lettered_refuses_too_few_and_too_many() -> None:
    for options in (["one"], list("abcdefghijk")):
        with pytest.raises(ValueError, match="2 to 10"):
            lettered(options, 0, "")
