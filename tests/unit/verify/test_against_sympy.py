"""1,000 pairs of answers that differ by one number or sign, beside sympy, which alone says whether they are the same."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from lampo.verify.math.equality import equal

sympy = pytest.importorskip("sympy")

Drawn = tuple[str, Any]
X, K = sympy.symbols("x k")


class Numbers:
    """Whole numbers drawn from a seed; one of them may be changed, which makes the pair."""

    def __init__(self, seed: int, changed: int | None = None) -> None:
        self.generator, self.changed, self.count = random.Random(seed), changed, 0

    def __call__(self, low: int, high: int) -> int:
        drawn = self.generator.randint(low, high)
        change = random.Random(drawn * 7919 + self.count).choice((1, 1, 2, 10))
        self.count += 1
        return drawn + change if self.count - 1 == self.changed else drawn

    def choice(self, options: list[Callable[["Numbers"], Drawn]]) -> Drawn:
        return self.generator.choice(options)(self)


def fraction(n: Numbers) -> Drawn:
    above, below = n(-30, 30), n(1, 30)
    return rf"\frac{{{above}}}{{{below}}}", sympy.Rational(above, below)


def roots(n: Numbers) -> Drawn:
    a, b, c = n(1, 12), n(2, 40), n(1, 9)
    return rf"{a}+\frac{{\sqrt{{{b}}}}}{{{c}}}", a + sympy.sqrt(b) / c


def power(n: Numbers) -> Drawn:
    a, b = n(2, 9), n(2, 12)
    return rf"{a}^{{{b}}}", sympy.Integer(a) ** b


def transcendental(n: Numbers) -> Drawn:
    a, b, c = n(1, 12), n(2, 12), n(2, 20)
    return rf"\sin\frac{{{a}\pi}}{{{b}}}+\ln {c}", sympy.sin(a * sympy.pi / b) + sympy.log(c)


def polynomial(n: Numbers) -> Drawn:
    a, b, c = n(1, 9), n(1, 9), n(1, 9)
    return rf"({a}x+{b})(x-{c})", sympy.expand((a * X + b) * (X - c))


def quotient(n: Numbers) -> Drawn:
    a, b, c = n(1, 9), n(1, 9), n(1, 9)
    return rf"\frac{{{a}x}}{{x^2+{b}}}-{c}", a * X / (X**2 + b) - c


def total(n: Numbers) -> Drawn:
    a, b, low, high = n(1, 5), n(0, 5), n(1, 3), n(4, 20)
    return (
        rf"\sum_{{k={low}}}^{{{high}}} ({a}k^2+{b})",
        sum(sympy.Integer(a) * k**2 + b for k in range(low, high + 1)),
    )


def product(n: Numbers) -> Drawn:
    a, high = n(1, 5), n(2, 8)
    value = sympy.Integer(1)
    for k in range(1, high + 1):
        value *= 1 + sympy.Rational(a, k)
    return rf"\prod_{{k=1}}^{{{high}}}\left(1+\frac{{{a}}}{{k}}\right)", value


def geometric(n: Numbers) -> Drawn:
    a, q = n(1, 9), n(2, 9)
    return rf"\sum_{{n=0}}^{{\infty}} \frac{{{a}}}{{{q}^n}}", sympy.Rational(a * q, q - 1)


def integral(n: Numbers) -> Drawn:
    a, power, high = n(1, 9), n(1, 4), n(1, 5)
    return rf"\int_0^{{{high}}} {a}x^{{{power}}}\,dx", sympy.integrate(a * X**power, (X, 0, high))


def integral_of_exponential(n: Numbers) -> Drawn:
    a, high = n(1, 4), n(1, 3)
    return rf"\int_0^{{{high}}} e^{{{a}x}} dx", (sympy.exp(a * high) - 1) / a


def limit(n: Numbers) -> Drawn:
    a, b = n(1, 9), n(1, 9)
    return rf"\lim_{{x\to 0}} \frac{{\sin {a}x}}{{{b}x}}", sympy.Rational(a, b)


def remainder(n: Numbers) -> Drawn:
    a, b = n(10, 200), n(3, 17)
    return rf"{a} \bmod {b}", sympy.Integer(a % b)


def determinant(n: Numbers) -> Drawn:
    a, b, c, d = n(1, 9), n(1, 9), n(1, 9), n(1, 9)
    return rf"\begin{{vmatrix}}{a}&{b}\\{c}&{d}\end{{vmatrix}}", sympy.Integer(a * d - b * c)


def column(n: Numbers) -> Drawn:
    a, b, c, d = n(1, 9), n(1, 9), n(1, 9), n(1, 9)
    text = rf"{a}\begin{{bmatrix}}{b}\\{c}\end{{bmatrix}}+x\begin{{bmatrix}}1\\{d}\end{{bmatrix}}"
    return text, sympy.Matrix([a * b + X, a * c + d * X])


def interval(n: Numbers) -> Drawn:
    low, high = n(-9, 0), n(1, 9)
    return rf"\left[{low},{high}\right)", sympy.Interval.Ropen(low, high)


def members(n: Numbers) -> Drawn:
    found = [n(1, 6), n(3, 9), n(1, 12)]
    return rf"\{{{','.join(map(str, found))}\}}", sympy.FiniteSet(*found)


def degrees(n: Numbers) -> Drawn:
    whole, minutes = n(1, 80), n(1, 40)
    return rf"{whole}^{{\circ}} {minutes}^{{\prime}}", sympy.Rational(60 * whole + minutes, 60) * sympy.pi / 180


def vectors(n: Numbers, sign: str) -> tuple[str, Any, Any]:
    one, other = ([n(1, 9) for _ in range(3)] for _ in range(2))
    text = sign.join(rf"\begin{{bmatrix}}{row[0]}\\{row[1]}\\{row[2]}\end{{bmatrix}}" for row in (one, other))
    return text, sympy.Matrix(one), sympy.Matrix(other)


def scalar_product(n: Numbers) -> Drawn:
    text, one, other = vectors(n, r" \cdot ")
    return text, one.dot(other)


def cross_product(n: Numbers) -> Drawn:
    text, one, other = vectors(n, r" \times ")
    return text, one.cross(other)


def conditions(n: Numbers) -> Drawn:
    low, left_out = n(1, 9), n(10, 30)
    return rf"\{{x \mid x \geq {low}$ and $x \neq {left_out}\}}", sympy.Interval(low, sympy.oo) - sympy.FiniteSet(
        left_out
    )


def two_sets(n: Numbers) -> Drawn:
    low, high = n(1, 9), n(1, 9)
    sets = sympy.Interval(low, sympy.oo), sympy.Interval(-sympy.oo, high)
    return rf"\{{x \mid x \geq {low}\}},\{{x \mid x \leq {high}\}}", sympy.FiniteSet(*sets)


def identity(n: Numbers) -> Drawn:
    a, b = n(1, 9), n(1, 9)
    return rf"({a}x+{b})^2={a * a}x^2+{2 * a * b}x+{b * b}", sympy.expand((a * X + b) ** 2)


KINDS = [
    fraction, roots, power, transcendental, polynomial, quotient, total, product, geometric, integral,
    integral_of_exponential, limit, remainder, determinant, column, interval, members, degrees,
    scalar_product, cross_product, conditions, two_sets, identity,
]  # fmt: skip


def are_the_same(one: Any, other: Any) -> bool:
    if isinstance(one, sympy.Set):
        return one == other
    if isinstance(one, sympy.MatrixBase):
        return sympy.simplify(one - other) == sympy.zeros(*one.shape)
    difference = one - other
    if difference.free_symbols:
        return sympy.simplify(difference) == 0
    return difference == 0 or abs(sympy.N(difference, 40)) < sympy.Float("1e-30")


def test_no_changed_answer_is_accepted_that_sympy_tells_apart():
    accepted, judged, the_same = [], 0, 0
    for seed in range(1000):
        kind = KINDS[seed % len(KINDS)]
        counter = Numbers(seed)
        gold, gold_value = kind(counter)
        answer, value = kind(Numbers(seed, changed=random.Random(seed).randrange(counter.count)))
        same = bool(are_the_same(gold_value, value))
        verdict = equal(gold, answer)[0]
        the_same += same
        judged += verdict is not None
        if verdict is not None and verdict != same:
            accepted.append((gold, answer, verdict, same))
    assert not accepted
    assert the_same < 100
    assert judged == 1000


def test_the_value_that_sympy_finds_is_accepted():
    unread = []
    for seed in range(200):
        gold, value = KINDS[seed % len(KINDS)](Numbers(seed))
        if isinstance(value, sympy.Expr):
            answer = sympy.latex(value, ln_notation=True)
            if equal(answer, gold)[0] is not True:
                unread.append((answer, gold))
    assert not unread
