"""Values of two expressions compared: exactly, or at points drawn from a hash of both texts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from .calculus import BOUND
from .parts import has, has_i, has_symbols, symbols_of
from .tree import Node, TooLarge, Undefined
from .values import Values, close

NUM_POINTS = 10
"""Points at which expressions with variables are compared."""
BASE_DIGITS = 60
"""Digits of the first comparison. The second one has at least twice as many."""


class Points:
    """What a gold answer and an answer are compared at, and how close they have to be."""

    def __init__(self, gold: str, answer: str, tolerance: float = 0.0) -> None:
        self.seed = f"{gold}\x00{answer}"
        self.tolerance = tolerance

    def same_value(self, gold: Node, answer: Node) -> bool:
        """Whether two expressions have the same values, wherever both are real, or where no such point is found."""
        if gold == answer and not has_symbols(gold):
            Values(BASE_DIGITS, {}).of(gold)
            return True
        num_real, complex_same, num_complex = 0, True, 0
        with_i = has_i(gold) or has_i(answer)
        problem: Exception = Undefined("no value at any point")
        enough = 4 if has(gold, *BOUND) or has(answer, *BOUND) else -1
        for digits, point in self.points(gold, answer):
            values = Values(digits, point)
            try:
                pair = values.of(gold), values.of(answer)
            except (Undefined, TooLarge) as error:
                if not point:
                    raise
                problem = error
                continue
            same = close(values, *pair) or self.within_tolerance(values, *pair)
            if values.left_the_reals and not with_i:
                num_complex, complex_same = num_complex + 1, complex_same and same
                continue
            if not same:
                return False
            num_real += 1
            if gold == answer or num_real == enough:
                return True
        if num_real == num_complex == 0:
            raise problem
        return num_real > 0 or complex_same

    def within_tolerance(self, values: Values, gold: Any, answer: Any) -> bool:
        """Whether the difference of two values is small enough to be called equal."""
        return self.tolerance > 0 and bool(
            abs(values.real(gold) - values.real(answer)) <= self.tolerance * abs(values.real(gold))
        )

    def points(self, *nodes: Node) -> Iterator[tuple[int, dict[str, Fraction]]]:
        """Where to compare, and with how many digits: coarsely first, then with so many that no term is lost."""
        names = sorted({name for node in nodes for name in symbols_of(node)})
        generator = random.Random(self.seed)
        has_series = any(has(node, *BOUND) for node in nodes)
        for i in range(NUM_POINTS if names else 1):
            low, high = ((200, 4000), (50, 950), (-4000, 4000))[min(i // 2, 2)]
            point = {name: Fraction(generator.randint(low, high), 1000 + generator.randint(1, 97)) for name in names}
            yield BASE_DIGITS, point
            largest = BASE_DIGITS // 2
            for node in nodes:
                values = Values(BASE_DIGITS, point)
                try:
                    value = values.of(node)
                except (Undefined, TooLarge):
                    continue
                if not isinstance(value, Fraction):
                    largest = max(largest, values.log10 + values.finest)
            if not names or i == 0 or (has_series and i == 2):
                yield 2 * BASE_DIGITS + 2 * largest, point

    def constant_factor(self, one: Node, other: Node) -> Any:
        """The number that one is of the other. None if there is none, or both are zero everywhere."""
        ratio: Any = None
        count = 0
        for digits, point in self.points(one, other):
            values = Values(digits, point)
            try:
                first, second = values.of(one), values.of(other)
                if values.is_zero(first) or values.is_zero(second):
                    return None
                found = values.divide(first, second)
            except Undefined:
                continue
            if values.left_the_reals and not (has_i(one) or has_i(other)):
                continue
            count += 1
            if ratio is not None and not close(values, ratio, found):
                return None
            ratio = found
        return ratio if count > 1 or not (set(symbols_of(one)) | set(symbols_of(other))) else None
