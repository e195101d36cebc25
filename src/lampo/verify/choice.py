"""Multiple choice: the one letter, or the one option, that a response commits to."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any, Literal

from ..types import Verdict
from .chosen_option import LETTERS, alone, chosen_option
from .verifier_options import VerifierOptions, committed_text


class ChoiceOptions(VerifierOptions):
    """Multiple choice, A to J: the letter or the option that the response commits to, and only one."""

    name: Literal["choice"] = "choice"
    """Selects this verifier."""

    def verify(self, completion: str, answer: str) -> Verdict:
        r"""Right if the response commits to the right letter, or to the text of the right option, and to no other.

        What counts is, after the thought, the last mention of an option: a `\boxed{}`, `<answer>` tags, a sentence such as
        "the answer is ..." or "... is correct", or a last line that is a letter alone. "B", "(B)", "B) Paris" and "Paris" say the
        same. "C, not B" names C, "not C" names none. "A or B" commits to nothing and is wrong. See `chosen_option`.

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
        chosen = chosen_option(committed_text(completion), options)
        if chosen is None:
            return Verdict("wrong", detail="no answer given")
        extracted = chosen.said if len(chosen.said) <= 60 else chosen.said[:60] + "…"
        if len(chosen.letters) > 1:
            return Verdict("wrong", extracted, "names several options")
        if not chosen.letters:
            return Verdict("wrong", extracted, chosen.why_none)
        (found,) = chosen.letters
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
    if only := alone(answer):
        return only, []
    try:
        fields: Any = json.loads(answer)
        letter, options = fields["letter"], fields["options"]
    except (ValueError, TypeError, KeyError):
        return None, []
    known = isinstance(options, list) and all(isinstance(option, str) for option in options)
    return (letter, options) if known and letter in list(LETTERS[: len(options)]) else (None, [])
