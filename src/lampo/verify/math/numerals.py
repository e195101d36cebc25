r"""Numerals: with repeating decimals, with a base, and as part of mixed numbers."""

from __future__ import annotations

import re
from fractions import Fraction

from .grammar import Grammar
from .tokens import Token
from .tree import Malformed, Node, TooLarge, number

_REPEATS = re.compile(r"([0-9]*\.[0-9]*?)([0-9]{1,3}?)\2{2,}")
"""0.333... and 1.2454545...: digits that stand three times and then go on."""
LETTER_DIGITS = frozenset("ABCDEF")


class Numerals(Grammar):
    """Reads numerals."""

    def numeral(self, text: str) -> Node:
        r"""A numeral, of which the first digits are read: 3.5, 0.\overline{3}, 52_8."""
        if len(text) > 1000:
            raise TooLarge("a numeral of more than 1000 digits")
        if self.kind in (r"\overline", r"\dot", r"\bar") and "." in text:
            self.take()
            repeated = self.take()
            if repeated.kind == "{":
                repeated = self.take()
                self.expect("}")
            if repeated.kind != "number" or not repeated.text.isdigit():
                raise Malformed("a repeating decimal without digits")
            decimals = len(text.partition(".")[2])
            period = Fraction(int(repeated.text), 10 ** len(repeated.text) - 1) / 10**decimals
            return number(Fraction(f"{text}0" if text.endswith(".") or text == "." else text) + period)
        if (based := self.based(text)) is not None:
            return based
        if text.endswith("."):
            raise Malformed("a point without digits")
        if self.kind == r"\ldots" and (repeats := _REPEATS.fullmatch(text)):
            self.take()
            first, period = repeats[1], repeats[2]
            return number(
                Fraction(first + "0")
                + Fraction(int(period), 10 ** len(period) - 1) / 10 ** len(first.partition(".")[2])
            )
        return number(Fraction(text))

    def based(self, digits: str) -> Node | None:
        """A numeral with a base, 1F_16 or A5_{11}, of which the first digits are read; None if there is no base."""
        start = self.position
        while self.token.text in LETTER_DIGITS or (self.kind == "number" and digits[-1] in LETTER_DIGITS):
            digits += self.take().text
        if self.kind == "_" and not digits.isalpha():
            return self.in_base(digits)
        self.position = start
        return None

    def in_base(self, digits: str) -> Node:
        """Digits with the base that stands as a subscript behind them."""
        base = self.script()
        if base.op == "text" or base.op != "number" or not is_whole(base):
            raise Malformed("a numeral with a strange subscript")
        assert isinstance(base.value, Fraction)
        try:
            return number(int(digits, int(base.value)) if 2 <= base.value <= 36 else int("no"))
        except ValueError:
            raise Malformed(f"{digits} is no numeral in base {base.value}") from None

    def mixed(self, whole: Node, before: Token) -> Node | None:
        """The mixed number 3 1/2, if a whole number is followed by a proper fraction of numerals."""
        if before.kind != "number" or whole.op != "number" or not is_whole(whole):
            return None
        start = self.position
        if self.kind == r"\frac":
            part = self.atom()
        elif self.kind == "number" and self.tokens[start + 1].kind == "/" and self.tokens[start + 2].kind == "number":
            numerator = self.atom()
            self.take()
            part = Node("div", (numerator, self.atom()))
        else:
            return None
        if part.op == "div" and all(arg.op == "number" and is_whole(arg) for arg in part.args):
            numerator, denominator = (arg.value for arg in part.args)
            if 0 < numerator < denominator and self.kind != "^":  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]
                return Node("add", (whole, part))
        self.position = start
        return None


def is_whole(node: Node) -> bool:
    """Whether this is a whole number."""
    return isinstance(node.value, Fraction) and node.value.denominator == 1
