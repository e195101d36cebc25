"""Multiple choice: the one letter, or the one option, that a response commits to."""

from __future__ import annotations

import json
import random
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from ..types import Verdict
from .answers import boxed_answer
from .verifier_options import VerifierOptions, committed_text

LETTERS = "ABCDEFGHIJ"

MAX_LENGTH = 1500
"""Of the words that commit to an option; what is longer is cut."""
_MAX_PHRASES, _MAX_WRAPPED = 50, 4

_PHRASE = re.compile(
    r"(?:\banswer(?:\s{1,8}is)?[*_\s]{0,8}[:=]|\b(?:answer|option|choice)\s{1,8}is\b)[*_\s]*(?P<said>[^\n]*)",
    re.IGNORECASE,
)
_WRAPPING = re.compile(r"\\(?:text|mathrm|mathbf|textbf|rm|bf)\s*\{([^{}]*)\}")
_LETTER = re.compile(r"(?<![A-Za-z0-9'’])\(?([A-J])(?![A-Za-z0-9'’])")
_ALONE = re.compile(r"[\s(\[*_$\"'`]*(?:option\s+|choice\s+)?[(\[]?([A-Ja-j])[)\].:]*[\s)\]*_$\"'`.]*", re.IGNORECASE)
_NAMED = re.compile(r"\A[\s(\[*_$]*(?:option|choice|letter)\s+", re.IGNORECASE)
# "A" and "I" inside a sentence are letters only where they are not the article and the pronoun
_ARTICLE_OR_PRONOUN = re.compile(r"(?<!\A)\b[AI]\s+(?=[a-z])(?!or\b|and\b)")
_LETTER_AND_TEXT = re.compile(r"[\s(\[*_$]*([A-J])[)\].:]+[\s*_$]*(.+)", re.DOTALL)


class ChoiceOptions(VerifierOptions):
    """Multiple choice, A to J: the letter or the option that the response commits to, and only one."""

    name: Literal["choice"] = "choice"
    """Selects this verifier."""

    def verify(self, completion: str, answer: str) -> Verdict:
        r"""Right if the response commits to the right letter, or to the text of the right option, and to no other.

        What counts is, after the thought, the last `\boxed{}` (see `committed_answer`), else the last "answer: ..." or "the
        answer is ..." that names an option, else a last line that is a letter alone. "B", "(B)", "B) Paris" and "Paris" say
        the same; "A or B", or the letter of one option with the text of another, commits to nothing and is wrong.

        Args:
            completion: the response.
            answer: the right letter, or what `lettered` gives: the letter and the options.

        Returns:
            unknown if the answer is neither.

        >>> ChoiceOptions().verify("It must be B, since ... The answer is (C).", "C").status
        'right'
        >>> ChoiceOptions().verify("Answer: B or C", "C").detail
        'names several options'
        """
        letter, options = _gold(answer)
        if letter is None:
            return Verdict("unknown", detail="the answer is neither a letter from A to J nor a letter with options")
        said, chosen = "", set[str]()
        for words in filter(None, _commitments(committed_text(completion))):
            said, chosen = said or words, _chosen(words, options)
            if chosen:
                said = words
                break
        if not said:
            return Verdict("wrong", detail="no answer given")
        extracted = said if len(said) <= 60 else said[:60] + "…"
        if len(chosen) > 1:
            return Verdict("wrong", extracted, "names several options")
        if not chosen:
            return Verdict("wrong", extracted, "names none of the options")
        found = chosen.pop()
        return Verdict("right" if found == letter else "wrong", found)

    def answer_text(self, answer: str) -> str:
        """See `VerifierOptions.answer_text`."""
        return f"Answer: {_gold(answer)[0] or answer}"


def lettered(options: Sequence[str], right: int, key: str) -> tuple[str, str]:
    """Options in an order that the key alone decides, so that no policy can learn where the right one stands.

    Args:
        options: their texts, at most ten.
        right: index of the right one.
        key: what the order depends on, such as the problem's id: the same key gives the same order everywhere.

    Returns:
        The options with their letters, one a line, and the answer for `ChoiceOptions`.

    >>> text, answer = lettered(["4", "5", "6", "7"], 0, key="two plus two")
    >>> print(text)
    A) 7
    B) 5
    C) 6
    D) 4
    >>> answer
    '{"letter": "D", "options": ["7", "5", "6", "4"]}'
    """
    if not 2 <= len(options) <= len(LETTERS):
        raise ValueError(f"lettered needs 2 to {len(LETTERS)} options, not {len(options)}")
    order = list(range(len(options)))
    random.Random(f"lampo {key}").shuffle(order)
    shuffled = [" ".join(options[index].split()) for index in order]
    text = "\n".join(f"{letter}) {option}" for letter, option in zip(LETTERS, shuffled, strict=False))
    answer = {"letter": LETTERS[order.index(right)], "options": shuffled}
    return text, json.dumps(answer, ensure_ascii=False)


def _gold(answer: str) -> tuple[str | None, list[str]]:
    if alone := _ALONE.fullmatch(answer):
        return alone[1].upper(), []
    try:
        fields: Any = json.loads(answer)
        letter, options = fields["letter"], fields["options"]
    except (ValueError, TypeError, KeyError):
        return None, []
    known = isinstance(options, list) and all(isinstance(option, str) for option in options)
    return (letter, options) if known and letter in list(LETTERS[: len(options)]) else (None, [])


def _commitments(text: str) -> Iterator[str]:
    """The words in which a text commits to an option, the last first."""
    if (boxed := boxed_answer(text)) is not None:
        yield _unwrapped(boxed)
        return
    for phrase in reversed(deque(_PHRASE.finditer(text), maxlen=_MAX_PHRASES)):
        said = phrase["said"]
        if not said.strip(" *_$:"):  # the option stands on the next line
            said = text[phrase.end() : phrase.end() + MAX_LENGTH].strip().partition("\n")[0]
        yield _unwrapped(said)
    last = text.strip().rpartition("\n")[2]
    if len(last) <= MAX_LENGTH and _ALONE.fullmatch(last):
        yield last


def _unwrapped(text: str) -> str:
    text = text[:MAX_LENGTH]
    for _ in range(_MAX_WRAPPED):
        text = _WRAPPING.sub(r"\1", text)
    return text.strip()


def _chosen(said: str, options: Sequence[str]) -> set[str]:
    """The letters of all options that these words name."""
    if alone := _ALONE.fullmatch(said):
        return {alone[1].upper()}
    texts = {_plain(_unwrapped(option)): letter for letter, option in zip(LETTERS, options, strict=False)}
    letters = LETTERS[: len(options) or None]
    if _plain(said) in texts:
        return {texts[_plain(said)]}
    if pair := _LETTER_AND_TEXT.fullmatch(said):
        letter, text = pair[1], _plain(pair[2])
        if text in texts:
            return {letter, texts[text]}
        if texts and not _LETTER.findall(pair[2]):
            return {letter}
    return set(_LETTER.findall(_ARTICLE_OR_PRONOUN.sub("", _NAMED.sub("", said)))) & set(letters)


def _plain(text: str) -> str:
    return " ".join(text.strip(" \t\n.*_$()\"'").split()).casefold()
