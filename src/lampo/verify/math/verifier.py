"""Mathematics: the final answer of a response, compared by value."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Literal

from pydantic import Field

from ...types import Verdict
from ..answers import committed_answer
from ..numeric import last_number, shortened
from ..verifier_options import UnboundedVerifier, committed_text
from .latex import is_readable, read_answer
from .tree import Malformed, TooLarge, Unsupported

_NUMERAL = re.compile(r"(?:[0-9]{1,200}|[0-9]{1,3}(?:,[0-9]{3}){1,60})(?:\.[0-9]{1,200})?|\.[0-9]{1,200}")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\{(-?[0-9]{1,200})\}\{(-?[0-9]{1,200})\}|([-+]?[0-9]{1,200})/([0-9]{1,200})")


class MathOptions(UnboundedVerifier):
    """The final answer of a response, compared with the gold answer as mathematics."""

    name: Literal["math"] = "math"
    """Selects this verifier."""
    last_number: bool = False
    """Whether a plain number counts where no value is committed to: the last in such words, else the last of the response."""
    tolerance: float = Field(default=0.0, ge=0, lt=1)
    """Largest relative difference between numbers that count as equal. 0: they are equal."""
    timeout_s: float = Field(default=3.0, gt=0)
    """Most seconds for one verification. Then it is killed and the verdict unknown. Waiting for a busy processor hardly counts."""

    def verify(self, completion: str, answer: str) -> Verdict:
        r"""Right if the answer that the response commits to is the gold answer, by value.

        What a response commits to: see `committed_answer`. What is equal: see `equal`.

        Returns:
            unknown if the gold answer cannot be read, or the response uses notation that is not supported; else wrong
            with nothing extracted if the response commits to no answer.

        >>> MathOptions().verify(r"Thus $x = \boxed{\frac{2}{4}}$.", "0.5").status
        'right'
        >>> MathOptions().verify(r"It is about \boxed{0.333}.", r"\frac{1}{3}").status
        'wrong'
        """
        verdict = self.at_once(completion, answer)
        if verdict is not None:
            return verdict
        from .equality import equal

        given = self._given(completion) or ""
        same, why = equal(_unwrapped(answer), given, self.tolerance)
        return Verdict("unknown" if same is None else "right" if same else "wrong", shortened(given, 200), why)

    def at_once(self, completion: str, answer: str) -> Verdict | None:
        """See `VerifierOptions.at_once`: no answer was given, or both are plain numerals, or the same text."""
        gold = _unwrapped(answer)
        if not gold:
            return Verdict("unknown", detail="the gold answer is empty")
        given = self._given(completion)
        if given is None:
            if _plain_value(gold) is None and not is_readable(gold):
                return Verdict("unknown", detail="no answer given, and the gold answer cannot be read")
            return Verdict("wrong", detail="no answer given")
        values = _plain_value(gold), _plain_value(given)
        if values[0] is None or values[1] is None:
            same_text = values[0] is values[1] and _without_space(gold) == _without_space(given)
            return Verdict("right", shortened(given, 200)) if same_text else None
        same = values[0] == values[1] or abs(values[0] - values[1]) <= Fraction(self.tolerance) * abs(values[0])
        return Verdict("right" if same else "wrong", shortened(given, 200))

    def answer_text(self, answer: str) -> str:
        r"""See `VerifierOptions.answer_text`: `\boxed{answer}`."""
        return rf"\boxed{{{_unwrapped(answer)}}}"

    def warm_up(self) -> None:
        """See `VerifierOptions.warm_up`."""
        from .equality import equal

        equal(r"\sqrt{2}", r"\frac{2}{\sqrt 2}")

    def _given(self, completion: str) -> str | None:
        given = committed_answer(completion)
        if not self.last_number or (given is not None and not _is_words(given)):
            return given
        number = last_number(given or "") or last_number(committed_text(completion))
        return number.text if number else given


def _unwrapped(answer: str) -> str:
    return (committed_answer(answer) or "" if "boxed{" in answer else answer).strip()


def _is_words(text: str) -> bool:
    """Whether an answer is read as words, such as "18 dollars per day", or cannot be read."""
    try:
        node = read_answer(text)
    except (Malformed, Unsupported, TooLarge) as error:
        return isinstance(error, Malformed)
    return node.op == "text" and re.search("[A-Za-z]{3}", str(node.value)) is not None


def _without_space(text: str) -> str:
    """A text without white space, but for that inside of numbers: 3 1/2 is not 31/2."""
    return re.sub(r"(?<![0-9.]) | (?![0-9.])", "", " ".join(text.split()))


def _plain_value(text: str) -> Fraction | None:
    """The exact value of a plain numeral or fraction of two. None if the text is something else."""
    text = text.strip().strip("$").strip().removesuffix(".").replace("−", "-")
    if match := _FRACTION.fullmatch(text):
        sign, numerator, denominator = match[1] or "", match[2] or match[4], match[3] or match[5]
        return None if int(denominator) == 0 else Fraction(int(numerator), int(denominator)) * (-1 if sign else 1)
    digits = text.removeprefix("-")
    if not _NUMERAL.fullmatch(digits):
        return None
    value = Fraction(digits.replace(",", ""))
    return -value if digits != text else value
