"""What a response without a box commits to: sentences about the answer, and plain numbers."""

import pytest

from lampo.verify import MathOptions, committed_answer, judge


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("The answer is 42. We can verify that this answer is correct by substituting.", "42"),
        ("The answer is $x$.\n\nI hope this answer is helpful!", "x"),
        ("The answer is x, and the answer is right.", "x, and the answer is right"),
        ("Answer: B\n\nI am confident that this answer is correct.", "B"),
        ("The answer is Evelyn. My answer is final.", "Evelyn"),
        ("**Answer:** east. Surely this answer is right.", "east"),
        ("The answer is 3 steps, so the end is north.\n\nAnswer: north", "north"),
        ("The answer is 5. The answer is", "5"),
        ("The answer is 5. No, the answer is 6. This answer is sure.", "6"),
        ("The answer is north. I think the answer is east.", "east"),
        ("I hope this answer is helpful", "helpful"),
        ("This answer is correct. The answer is \\(\\pi\\).", "\\pi"),
    ],
)
def test_words_about_the_answer_are_none(completion: str, answer: str) -> None:
    assert committed_answer(completion) == answer


@pytest.mark.parametrize(
    ("completion", "answer", "status"),
    [
        ("The answer is 18 dollars per day.", "18", "right"),
        ("The answer is $70,000 profit.", "70000", "right"),
        ("The answer is -2 dollars each day.", "-2", "right"),
        ("**Answer:** Janet makes $18 every day", "18", "right"),
        ("Janet makes 18 dollars. I hope this answer is helpful!", "18", "right"),
        ("The answer is 60, no wait: 64", "64", "right"),
        ("\\boxed{18 \\text{ dollars per day}}", "18", "right"),
        ("The answer is 3:30.", "3:30", "right"),
        ("The answer is 5 cm.", "50 mm", "right"),
        ("The answer is 18 dollars. That is 2 a day.", "18", "right"),
        ("The answer is 17 dollars per day, not 18. It was 17.", "17", "wrong"),
        ("The answer is 17 or 18.", "18", "wrong"),
        ("\\boxed{17}, and 18 is what was asked", "18", "wrong"),
        ("The answer is $17 per day. She has 18.", "18", "wrong"),
        ("She has 18. The answer is 17 dollars per day. I hope this answer is helpful!", "18", "wrong"),
        ("<think>18</think>The answer is unclear.", "18", "wrong"),
    ],
)
def test_the_last_number_where_no_value_is_committed_to(completion: str, answer: str, status: str) -> None:
    assert judge(MathOptions(last_number=True), completion, answer).status == status


def test_without_it_words_are_words() -> None:
    for completion in ("The answer is 18 dollars per day.", "It is 18. I hope this answer is helpful!"):
        assert judge(MathOptions(), completion, "18").status == "wrong"
        assert judge(MathOptions(), completion, "18 dollars per day").status == (
            "right" if "per" in completion else "wrong"
        )


@pytest.mark.parametrize(
    "text", ["the answer is fine. " * 20_000, ("the answer is fine. " + r"\( " * 400) * 300], ids=["words", "formulas"]
)
def test_many_such_sentences_take_no_longer(text: str) -> None:
    committed_answer(text)
    assert MathOptions(last_number=True).verify(text, "5").status == "wrong"
