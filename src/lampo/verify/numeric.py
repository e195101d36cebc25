"""Numbers: the last one of a response, or the one after a marker, compared exactly."""

from __future__ import annotations

import dataclasses
import re
from collections import deque
from fractions import Fraction
from itertools import zip_longest
from typing import Literal, NamedTuple

from pydantic import Field

from ..types import Verdict
from .verifier_options import VerifierOptions, committed_text

MAX_NUMBER_LENGTH = 1000
"""A longer number has no value here: reading it could take minutes, and no answer needs it."""
MAX_EXPONENT = 1000

_NUMBER = re.compile(
    r"""
    (?P<number>
        (?P<value>
            (?: [1-9][0-9]{0,2} (?:,[0-9]{3})+ (?![0-9])    # 1,234,567
              | [0-9]+ )                                    # 1234567
            (?: \.[0-9]+ )?                                 # with decimals; a full stop is not part of it
          | (?<![0-9.]) \.[0-9]+                            # .25
        )
        (?: [eE] (?P<exponent> [-+]?[0-9]+ ) )?
        (?: / (?P<denominator> [0-9]+ ) )?
        (?P<percent> [ ]?\\?% )?
    )
    """,
    re.VERBOSE,
)
_MINUS = re.compile(r"(?P<left>\S?)(?P<space>[ \t]*)[-−](?P<gap>[ \t]*)(?:\\?[$€£])?\Z")
_PLAIN = re.compile(r"(?P<sign>[-−]?)(?P<whole>[0-9,]*)(?:\.(?P<decimals>[0-9]+))?[ ]?\\?%?")
_GOLD = re.compile(rf"(?P<prefix>[-−+$€£\\\s]*){_NUMBER.pattern}[$.\s]*", re.VERBOSE)


class Number(NamedTuple):
    """A number in a text: as it is written there, its exact value, and whether it is a percentage.

    The value is None where it has none: a denominator of zero, or a number too long to be an answer.
    """

    text: str
    value: Fraction | None
    percent: bool


class NumericOptions(VerifierOptions):
    """The number that a response commits to, compared exactly."""

    name: Literal["numeric"] = "numeric"
    """Selects this verifier."""
    marker: str | None = Field(default=None, min_length=1)
    """The answer stands after the last occurrence of this text, such as "####". A response without it gives none."""
    partial_credit: bool = False
    """The reward is the share of the digits that are right, see `digits_right`. Off: 1 for the right number, else 0."""

    def verify(self, completion: str, answer: str) -> Verdict:
        """Right if the response's number equals the answer: as fractions, never by closeness.

        The number is the first after the last marker, or without a marker the last one after the thought. It may have
        thousands separators, a currency sign, decimals, an exponent or a denominator (1,234.50, $5, .75, 6e3, 3/4). A
        minus with a left operand is an operation: "10-4" ends in 4, "it is -4" in -4. A percentage equals only a
        percentage: 50% is neither 50 nor 0.5. Units are not read. Of notation that needs a parser (LaTeX fractions,
        2^10, 3 1/2) the last plain number is taken: this verifier is for answers that are plain numbers.

        Returns:
            unknown if the answer is no number, wrong with nothing extracted if the response gives none.

        >>> NumericOptions().verify("7 * 12 = 84, that is $84.00.", "84")
        Verdict(status='right', extracted='84.00', detail='', seconds=0.0, score=None, graded=False)
        >>> NumericOptions(marker="####").verify("It is 84.", "84").status
        'wrong'
        """
        gold = answer_number(answer)
        if gold is None or gold.value is None:
            return Verdict(
                "unknown", detail=f"the answer {shortened(answer)!r} is not a number this verifier can compare"
            )
        text = committed_text(completion, self.marker)
        found = last_number(text) if self.marker is None else first_number(text)
        verdict = _compare(found, gold)
        if not self.partial_credit:
            return verdict
        score = 1.0 if verdict.status == "right" else 0.0 if found is None else digits_right(found, gold)
        return dataclasses.replace(verdict, score=score, graded=True)

    def answer_text(self, answer: str) -> str:
        """See `VerifierOptions.answer_text`."""
        return f"{self.marker or ''}{answer}"


def _compare(found: Number | None, gold: Number) -> Verdict:
    if found is None:
        return Verdict("wrong", detail="no number given")
    extracted = shortened(found.text)
    if found.value is None:
        return Verdict("wrong", extracted, "a zero denominator, or a number too long to compare")
    if found.percent != gold.percent:
        return Verdict("wrong", extracted, "one is a percentage, the other is not")
    return Verdict("right" if found.value == gold.value else "wrong", extracted)


def digits_right(found: Number, gold: Number) -> float:
    """Share of the places, from the first digit of either to the last of either, at which two decimal numbers have the same digit.

    0 where the signs differ, where one is a percentage and the other is not, and where one is no plain decimal.

    >>> def share(said, answer):
    ...     return digits_right(last_number(said), last_number(answer))
    >>> share("1042", "1032"), share("32", "1032"), share("3.25", "3.5"), share("-7", "7")
    (0.75, 0.5, 0.3333333333333333, 0.0)
    """
    (sign, whole, decimals), (gold_sign, gold_whole, gold_decimals) = _digits(found), _digits(gold)
    if sign != gold_sign or found.percent != gold.percent or "" in (whole + decimals, gold_whole + gold_decimals):
        return 0.0
    places = [*zip_longest(whole[::-1], gold_whole[::-1]), *zip_longest(decimals, gold_decimals)]
    return sum(digit == gold_digit for digit, gold_digit in places) / len(places)


def _digits(number: Number) -> tuple[str, str, str]:
    """Sign, digits before the point, and digits after it up to the last that is not 0. No digits where it is no plain decimal."""
    match = _PLAIN.fullmatch(number.text)
    if match is None:
        return "", "", ""
    return match["sign"], match["whole"].replace(",", "").lstrip("0") or "0", (match["decimals"] or "").rstrip("0")


def last_number(text: str) -> Number | None:
    """The last number of a text.

    >>> last_number("12-5=7"), last_number("10-4").text, last_number("none")
    (Number(text='7', value=Fraction(7, 1), percent=False), '4', None)
    """
    matches = deque(_NUMBER.finditer(text), maxlen=1)
    return _number(matches[0], _is_negative(text[: matches[0].start()])) if matches else None


def first_number(text: str) -> Number | None:
    """The first number of a text.

    >>> first_number(" −1,250.0 metres in 3 hours")
    Number(text='-1,250.0', value=Fraction(-1250, 1), percent=False)
    """
    match = _NUMBER.search(text)
    return _number(match, _is_negative(text[: match.start()])) if match else None


def answer_number(text: str) -> Number | None:
    """The number that a text is, with nothing else around it but a sign, a currency and a full stop.

    >>> answer_number("- $1,200"), answer_number("12 apples")
    (Number(text='-1,200', value=Fraction(-1200, 1), percent=False), None)
    """
    match = _GOLD.fullmatch(text)
    num_minus = len(re.findall("[-−]", match["prefix"])) if match else 0
    return _number(match, num_minus == 1) if match and num_minus < 2 else None


def _number(match: re.Match[str], negative: bool) -> Number:
    return Number("-" * negative + match["number"], _value(match, negative), match["percent"] is not None)


def _value(match: re.Match[str], negative: bool) -> Fraction | None:
    exponent, denominator = match["exponent"] or "0", match["denominator"] or "1"
    if max(map(len, (match["value"], exponent, denominator))) > MAX_NUMBER_LENGTH:
        return None
    if abs(int(exponent)) > MAX_EXPONENT or int(denominator) == 0:
        return None
    value = Fraction(match["value"].replace(",", "")) * Fraction(10) ** int(exponent) / int(denominator)
    return -value if negative else value


def _is_negative(before: str) -> bool:
    """Whether the text before a number ends in a minus that belongs to the number, and not to a subtraction or a list.

    A minus that touches the number is its sign unless it has a left operand. One before a space, only after = : ( or ≈.
    """
    match = _MINUS.search(before[-100:])
    if match is None:
        return False
    left, after_word = match["left"], bool(match["space"]) and match["left"].isalpha()
    if match["gap"]:
        return left in tuple("=:(≈")
    return after_word or not (left.isalnum() or left in tuple(")]}%!"))


def shortened(text: str, limit: int = 60) -> str:
    """The beginning of a text that is longer."""
    return text if len(text) <= limit else text[:limit] + "…"
