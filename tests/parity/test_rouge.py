"""ROUGE-L against rouge_score 0.1.2, the package of Google Research, on the same tokens."""

import random

import pytest

from lampo.rewards import rouge_l, rouge_tokens

rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")

ALPHABETS = [
    "ab ",
    "0123456789+=\n",
    "abcdefghijklmnopqrstuvwxyzABC .,;!?_-",
    r"\{}^_$0123456789xyz ",
    "äöüßéñ日本語中文русскийΑΩ½²∑∫😀\u0301\u200d \u00a0",
]


class OurTokenizer:
    def tokenize(self, text):
        return rouge_tokens(text)


def texts():
    numbers = random.Random(0)
    for index in range(400):
        alphabet = ALPHABETS[index % len(ALPHABETS)]
        candidate, reference = (
            "".join(numbers.choices(alphabet, k=numbers.choice([0, 1, 2, 5, 20, 80, 200]))) for _ in range(2)
        )
        if index % 3 == 0:  # mostly the same
            candidate = reference[: len(reference) // 2] + candidate
        yield candidate, reference


def test_equal_to_rouge_score_on_our_tokens():
    scorer = rouge_scorer.RougeScorer(["rougeL"], tokenizer=OurTokenizer())
    for candidate, reference in texts():
        theirs = scorer.score(reference, candidate)["rougeL"].fmeasure
        ours = rouge_l(rouge_tokens(candidate), rouge_tokens(reference))
        assert abs(ours - theirs) <= 1e-12, (candidate, reference)


def test_equal_to_rouge_score_on_words_and_on_token_ids():
    for candidate, reference in texts():
        for split in (str.split, lambda text: [ord(letter) for letter in text]):
            theirs = rouge_scorer._score_lcs(split(reference), split(candidate)).fmeasure
            assert abs(rouge_l(split(candidate), split(reference)) - theirs) <= 1e-12, (candidate, reference)


@pytest.mark.parametrize(("candidate", "reference"), [([], []), (["a"], []), ([], ["a"]), (["a"], ["a"]), ([-1], [-2])])
def test_equal_to_rouge_score_at_the_edges(candidate, reference):
    assert rouge_l(candidate, reference) == rouge_scorer._score_lcs(reference, candidate).fmeasure
