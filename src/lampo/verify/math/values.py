"""Values of expressions: exact while they are rational, else with as many digits as are asked for."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from fractions import Fraction
from functools import reduce
from math import comb, factorial, gcd, isqrt, lcm
from typing import Any

from .calculus import BOUND, MAX_WORK, calculate, determinant
from .tree import Malformed, Node, TooLarge, Undefined

MAX_BITS = 40_000
"""Size of a whole number that is computed, about 12,000 digits."""
MAX_LOG10 = 2000
"""Powers of ten that the parts of an expression may span where it is not rational."""


SPARE_DIGITS = 20
"""Digits that rounding may cost. Two values are equal if all others agree."""


_thread = threading.local()


def _mp_context(digits: int) -> Any:
    """This thread's own mpmath, set to so many digits. The global one would be shared between threads."""
    if not hasattr(_thread, "mp"):
        from mpmath import MPContext

        _thread.mp = MPContext()
    _thread.mp.dps = digits
    return _thread.mp


def begin_work() -> None:
    """From here on as many terms may be computed as for one answer."""
    _thread.work_left = MAX_WORK


class Values:
    """Values of expressions at a point: a Fraction as long as they are rational, else a number of mpmath.

    Only the latest of a thread may be used: they share its mpmath.
    """

    def __init__(self, digits: int, point: Mapping[str, Fraction]) -> None:
        self.mp = _mp_context(digits)
        self.digits = digits
        self.point = point
        self.left_the_reals = False
        self.log10 = 0
        """Powers of ten that the values on the way may span, up and down: no term is smaller than 10 to minus this."""
        self.finest = 0
        """Digits of the longest denominator, beyond 60, of a fraction that was made a number of mpmath."""

    def work(self, amount: int) -> None:
        """Count terms and points that are computed."""
        _thread.work_left = getattr(_thread, "work_left", MAX_WORK) - amount
        if _thread.work_left < 0:
            raise TooLarge("too many terms to be added up")

    def of(self, node: Node) -> Any:
        """The value of an expression.

        Raises:
            Undefined, TooLarge: it has none, or one that is not computed.
            Malformed: this is no expression.
        """
        value = self._of(node)
        if isinstance(value, Fraction):
            if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
                raise TooLarge("a number too large to be computed")
            return value
        mp = self.mp
        if not mp.isfinite(value):
            raise Undefined("not a finite value")
        if isinstance(value, mp.mpc):
            if abs(value.imag) <= abs(value) * mp.mpf(10) ** (-self.digits * 3 // 4):
                value = value.real
            else:
                self.left_the_reals = True
        return value

    def real(self, value: Any) -> Any:
        """As a number of mpmath."""
        if not isinstance(value, Fraction):
            return value
        self._count(0.302 * abs(value.numerator.bit_length() - value.denominator.bit_length()))
        if not self.point and (bits := value.denominator.bit_length()) > 200:
            self.finest = max(self.finest, int(0.302 * (bits - 200)))
        return self.mp.mpf(value.numerator) / value.denominator

    def _count(self, log10: float) -> None:
        """Add to the powers of ten that values of this expression may span."""
        self.log10 += int(log10)
        if self.log10 > MAX_LOG10:
            raise TooLarge("a value too large or too small to be computed")

    def _of(self, node: Node) -> Any:
        match node.op:
            case "number":
                return node.value
            case "symbol":
                return self.point[str(node.value)]
            case "constant":
                return self._constant(str(node.value))
            case "neg":
                return -self.of(node.args[0])
            case "add":
                return reduce(self.added, map(self.of, node.args))
            case "mul":
                return reduce(self.multiplied, map(self.of, node.args))
            case "div" | "ratio" if len(node.args) == 2:
                return self.divide(*map(self.of, node.args))
            case "pow":
                return self._power(self.of(node.args[0]), self.of(node.args[1]))
            case "degree":
                return self.real(self.of(node.args[0])) * self.mp.pi / 180
            case "call" if node.value == "det":
                return determinant(self, node.args[0])
            case op if op in BOUND:
                return calculate(self, node)
            case "call":
                args = [self.of(arg) for arg in node.args]
                try:
                    return self._call(str(node.value), args)
                except (ValueError, ZeroDivisionError, OverflowError):  # of mpmath, at a pole
                    raise Undefined(f"{node.value} has a pole") from None
        raise Malformed("this is no expression")

    def _constant(self, name: str) -> Any:
        if name == "pi":
            return +self.mp.pi
        if name == "e":
            return +self.mp.e
        if name == "i":
            return self.mp.mpc(0, 1)
        if name == "oo":
            raise Undefined("infinity is no number")
        raise Malformed("a set is no number")

    def added(self, left: Any, right: Any) -> Any:
        """The sum of two values."""
        if isinstance(left, Fraction) and isinstance(right, Fraction):
            return left + right
        return self.real(left) + self.real(right)

    def multiplied(self, left: Any, right: Any) -> Any:
        """The product of two values."""
        if isinstance(left, Fraction) and isinstance(right, Fraction):
            return left * right
        return self.real(left) * self.real(right)

    def divide(self, left: Any, right: Any) -> Any:
        """The quotient of two values."""
        if self.is_zero(right):
            raise Undefined("division by zero")
        if isinstance(left, Fraction) and isinstance(right, Fraction):
            return left / right
        return self.real(left) / self.real(right)

    def is_zero(self, value: Any) -> bool:
        """Whether a value is zero, as far as its digits tell."""
        if isinstance(value, Fraction):
            return value == 0
        return bool(abs(value) < self.mp.mpf(10) ** (-self.digits * 2 // 3))

    def _whole(self, value: Any) -> int | None:
        return int(value) if isinstance(value, Fraction) and value.denominator == 1 else None

    def _power(self, base: Any, exponent: Any) -> Any:
        if self.is_zero(base):
            if not isinstance(exponent, Fraction) or exponent < 0:
                raise Undefined("a power of zero")
            return Fraction(int(exponent == 0))
        if isinstance(base, Fraction) and isinstance(exponent, Fraction):
            if abs(base) == 1 and exponent.denominator == 1:
                return base if exponent.numerator % 2 else Fraction(1)
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if bits * abs(exponent) > MAX_BITS:
                raise TooLarge("a power too large to be computed")
            if exponent.denominator == 1:
                return base**exponent.numerator
            if base < 0 and exponent.denominator % 2:  # the real root
                root = self.mp.power(self.real(-base), self.real(exponent))
                return -root if exponent.numerator % 2 else root
        mp = self.mp
        base, exponent = self.real(base), self.real(exponent)
        size = abs(mp.re(exponent * mp.log(base)))
        self._count(float(min(size, 10**9)) / 2.3)
        return mp.power(base, exponent)

    def _call(self, name: str, args: list[Any]) -> Any:
        mp = self.mp
        if name == "factorial":
            return self._factorial(args[0])
        if name == "binom":
            return self._binomial(*args)
        if name == "root":
            radicand, degree = args
            if not isinstance(degree, Fraction) or self.is_zero(degree):
                raise Undefined("a root of a strange degree")
            return self._root(radicand, degree)
        if name in ("gcd", "lcm"):
            numbers = [self._whole(arg) for arg in args]
            if None in numbers:
                raise Undefined(f"{name} of numbers that are not whole")
            return Fraction((gcd if name == "gcd" else lcm)(*numbers))  # pyright: ignore[reportArgumentType]
        if name == "mod":
            above, below = self._whole(args[0]), self._whole(args[1])
            if above is None or below is None or below < 1:
                raise Undefined("a remainder of numbers that are not whole")
            return Fraction(above % below)
        if name in ("max", "min"):
            return (max if name == "max" else min)(args, key=lambda value: self._ordered(self.real(value)))
        if name == "abs":
            return abs(args[0])
        if name in ("floor", "ceil"):
            return self._floor(args[0], name == "ceil")
        if name[0] == "?":
            return self._unknown_function(name, args)
        if name == "exp":
            return self._power(+mp.e, args[0])
        return self._elementary(name, args)

    def _elementary(self, name: str, args: list[Any]) -> Any:
        mp = self.mp
        values = [self.real(arg) for arg in args]
        x = values[0]
        if name in ("log", "ln", "lg"):
            if self.is_zero(args[0]):
                raise Undefined("the logarithm of zero")
            base = mp.e if name == "ln" else values[1] if len(values) > 1 else mp.mpf(10)
            if self.is_zero(base) or self.is_zero(mp.log(base)):
                raise Undefined("a logarithm to a strange base")
            return mp.log(x) / mp.log(base)
        if abs(x) > 10**30:
            raise TooLarge("an argument too large")
        if name in ("sinh", "cosh"):
            self._count(float(abs(x)) / 2.3)
        if name == "cis":
            return mp.cos(x) + mp.mpc(0, 1) * mp.sin(x)
        if name in ("Re", "Im", "arg"):
            return {"Re": mp.re, "Im": mp.im, "arg": mp.arg}[name](x)
        if name == "sgn":
            return Fraction(int(mp.sign(mp.re(x))))
        function = getattr(mp, name.replace("arc", "a"))
        try:
            value = function(x)
        except (ZeroDivisionError, ValueError):
            raise Undefined(f"{name} has a pole") from None
        if not isinstance(args[0], Fraction) and abs(value) > mp.mpf(10) ** (self.digits // 2):
            raise Undefined(f"{name} has a pole")
        return value

    def _factorial(self, value: Any) -> Any:
        whole = self._whole(value)
        if whole is not None:
            if whole < 0:
                raise Undefined("the factorial of a negative number")
            if whole > 3000:
                raise TooLarge("a factorial too large to be computed")
            return Fraction(factorial(whole))
        if abs(value) > 1000:
            raise TooLarge("a factorial too large to be computed")
        return self.mp.gamma(self.real(value) + 1)

    def _binomial(self, above: Any, below: Any) -> Any:
        n, k = self._whole(above), self._whole(below)
        if n is not None and k is not None and n >= 0:
            if n > 5000:
                raise TooLarge("a binomial coefficient too large to be computed")
            return Fraction(comb(n, k) if k >= 0 else 0)
        above, below = self.real(above), self.real(below)
        if max(abs(above), abs(below)) > 1000:
            raise TooLarge("a binomial coefficient too large to be computed")
        return self.mp.binomial(above, below)

    def _root(self, radicand: Any, degree: Fraction) -> Any:
        if isinstance(radicand, Fraction) and radicand >= 0 and degree == 2:
            root = Fraction(isqrt(radicand.numerator), isqrt(radicand.denominator))
            if root * root == radicand:
                return root
        is_odd = degree.denominator == 1 and degree.numerator % 2 == 1
        if is_odd and not isinstance(radicand, Fraction | self.mp.mpc) and radicand < 0:  # the real root
            return -self._power(-radicand, 1 / degree)
        return self._power(radicand, 1 / degree)

    def _floor(self, value: Any, up: bool) -> Fraction:
        if isinstance(value, Fraction):
            return Fraction(-((-value.numerator) // value.denominator) if up else value.numerator // value.denominator)
        value = self._ordered(value)
        nearest = self.mp.nint(value)
        if self.is_zero(value - nearest):
            return Fraction(int(nearest))
        return Fraction(int(self.mp.ceil(value) if up else self.mp.floor(value)))

    def _ordered(self, value: Any) -> Any:
        if isinstance(value, self.mp.mpc):
            raise Undefined("complex numbers have no order")
        return value

    def _unknown_function(self, name: str, args: list[Any]) -> Any:
        """A function of which only the name is known: some smooth function, always the same for a name."""
        generator = random.Random(name)
        angles = [self.real(arg) * generator.randint(100, 900) / 401 for arg in args]
        return reduce(self.multiplied, [self.mp.cos(angle) + 2 + i for i, angle in enumerate(angles)])


def close(values: Values, one: Any, other: Any) -> bool:
    """Whether two values agree in all digits that are sure."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    difference = abs(values.real(one) - values.real(other))
    scale = max(values.mp.mpf(1), abs(values.real(one)), abs(values.real(other)))
    return bool(difference <= scale * values.mp.mpf(10) ** -(values.digits - SPARE_DIGITS))
