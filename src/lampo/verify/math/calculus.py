r"""Values of sums, products, integrals, limits and determinants, or the refusal of those whose value is not sure.

A sum without an end is added up while its terms shrink as a geometric series does. An integral is computed with an estimate of its
error. A limit is the value that two points close to its place agree on. What could hide a term from that (numbers that are very large
or small, functions with steps) is not computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from .tree import Malformed, Node, TooLarge, Undefined, Unsupported
from .units import vocabulary

if TYPE_CHECKING:
    from .values import Values

BOUND = frozenset(("sum", "prod", "int", "lim"))
"""Parts of an answer that bind the variable they are named by."""
MAX_WORK = 20_000
"""Terms that are added up, and points at which integrands are computed, for one answer: about a second."""
_BLOCK = 8
"""Terms that are looked at together: their largest has to halve from one block to the next."""
_TAME_CALLS = vocabulary("factorial binom root sin cos tan arcsin arccos arctan sinh cosh tanh exp ln log")
_MOST_TAME = 10_000
"""How large, and how small, what does not depend on the bound variable may be."""


def calculate(values: Values, node: Node) -> Any:
    """The value of a sum, product, integral or limit.

    Raises:
        Undefined, TooLarge: it has none, or none that is sure.
        Unsupported: it is of a kind that is not computed.
    """
    if node.op in ("sum", "prod"):
        return _over_range(values, node)
    return _integral(values, node) if node.op == "int" else _limit(values, node)


def _over_range(values: Values, node: Node) -> Any:
    first = values.of(node.args[0])
    if not (isinstance(first, Fraction) and first.denominator == 1):
        raise Undefined("a range that does not begin at a whole number")
    start, body = first.numerator, node.args[2]
    if node.args[1] == Node("constant", value="oo"):
        if node.op == "prod":
            raise Unsupported("a product without an end")
        return _series(values, body, str(node.value), start)
    last = values.of(node.args[1])
    if not (isinstance(last, Fraction) and last.denominator == 1) or last < start - 1:
        raise Undefined("a range that does not end at a whole number")
    total: Any = Fraction(int(node.op == "prod"))
    with _bound(values, str(node.value)) as point:
        for index in range(start, last.numerator + 1):
            point[str(node.value)] = Fraction(index)
            total = (values.multiplied if node.op == "prod" else values.added)(total, values.of(body))
            values.work(1 + (total.denominator.bit_length() // 250 if isinstance(total, Fraction) else 0))
    return total


def _series(values: Values, body: Node, name: str, start: int) -> Any:
    """The sum of a series whose terms shrink at least as fast as those of a geometric one."""
    _refuse_hidden(values, body, name)
    total: Any = values.mp.mpf(0)
    before, halved = None, 0
    with _bound(values, name) as point:
        base = deepest = values.log10
        for block in range(MAX_WORK):
            largest = values.mp.mpf(0)
            for index in range(start + block * _BLOCK, start + (block + 1) * _BLOCK):
                point[name] = Fraction(index)
                values.log10 = base
                value = values.of(body)
                values.work(1 + (value.denominator.bit_length() // 1000 if isinstance(value, Fraction) else 0))
                term = values.real(value)
                deepest = max(deepest, values.log10) if block < 2 else deepest
                total, largest = total + term, max(largest, abs(term))
            halved = halved + 1 if before is not None and largest <= before / 2 else 0
            before = largest
            if halved >= 3 and largest * 2 * _BLOCK <= values.mp.mpf(10) ** -values.digits * max(1, abs(total)):
                values.log10 = deepest
                return total
            if block >= 6 and not halved:
                break
    raise Undefined("a series that converges slowly, or not at all")


def _integral(values: Values, node: Node) -> Any:
    low, high, body = node.args
    _refuse_hidden(values, body, str(node.value))
    ends = [_infinite(values, end) or values.real(values.of(end)) for end in (low, high)]
    if any(isinstance(end, values.mp.mpc) for end in ends):
        raise Undefined("an integral between complex numbers")
    base = values.log10
    with _bound(values, str(node.value)) as point:

        def integrand(x: Any) -> Any:
            values.work(4)
            values.log10 = base
            point[str(node.value)] = x
            return values.real(values.of(body))

        with values.mp.workdps(values.digits + 10):
            value, error = values.mp.quad(integrand, ends, error=True, maxdegree=8)
        values.log10 = base
    if not values.mp.isfinite(value) or error > values.mp.mpf(10) ** (10 - values.digits) * max(1, abs(value)):
        raise Undefined("an integral whose value is not sure")
    return value


def _limit(values: Values, node: Node) -> Any:
    name, side = str(node.value).rstrip("+-"), str(node.value)[-1]
    _refuse_hidden(values, node.args[1], name)
    infinite = _infinite(values, node.args[0])
    digits, base = values.digits, values.log10
    place = None if infinite is not None else values.of(node.args[0])
    found: list[Any] = []
    with _bound(values, name) as point, _digits(values, digits * 4):
        for sign in (1, -1):
            if infinite is None and side in "+-" and (sign < 0) != (side == "-"):
                continue
            for power in (digits, digits + 7):
                step = sign * Fraction(1, 10**power)
                point[name] = values.real(1 / step if place is None else values.added(place, step))
                if infinite is not None and (infinite > 0) != (sign > 0):
                    continue
                values.log10 = base
                found.append(values.real(values.of(node.args[1])))
    values.log10 = base
    scale = max(1, *map(abs, found))
    if any(abs(value - found[0]) > scale * values.mp.mpf(10) ** (12 - digits) for value in found):
        raise Undefined("a limit that is not seen")
    nearest = values.mp.nint(found[0].real)
    return Fraction(int(nearest)) if abs(found[0] - nearest) < values.mp.mpf(10) ** (12 - digits) else +found[0]


def determinant(values: Values, matrix: Node) -> Any:
    """The determinant of a square matrix, by elimination."""
    size = matrix.value
    if matrix.op != "matrix" or not isinstance(size, int) or len(matrix.args) != size * size or size > 8:
        raise Malformed("a determinant of what is no square matrix")
    rows = [[values.of(entry) for entry in matrix.args[i * size : (i + 1) * size]] for i in range(size)]
    result: Any = Fraction(1)
    for column in range(size):
        pivot = next((i for i in range(column, size) if not values.is_zero(rows[i][column])), None)
        if pivot is None:
            return Fraction(0)
        if pivot != column:
            rows[column], rows[pivot] = rows[pivot], rows[column]
            result = -result
        result = values.multiplied(result, rows[column][column])
        for i in range(column + 1, size):
            factor = values.divide(rows[i][column], rows[column][column])
            rows[i] = [
                values.added(entry, -values.multiplied(factor, above))
                for entry, above in zip(rows[i], rows[column], strict=True)
            ]
    return result


def _infinite(values: Values, node: Node) -> Any:
    if node == Node("constant", value="oo"):
        return values.mp.inf
    return -values.mp.inf if node == Node("neg", (Node("constant", value="oo"),)) else None


@contextmanager
def _bound(values: Values, name: str) -> Iterator[dict[str, Any]]:
    """A point at which this variable may be set."""
    outer, point = values.point, dict(values.point)
    values.point = point
    try:
        yield point
    finally:
        values.point = outer


@contextmanager
def _digits(values: Values, digits: int) -> Iterator[None]:
    outer, values.digits = values.digits, digits
    values.mp.dps = digits
    try:
        yield
    finally:
        values.digits = outer
        values.mp.dps = outer


def _refuse_hidden(values: Values, body: Node, name: str) -> None:
    """Refuse what could hide a part of a sum, integral or limit from a look at some of its points."""
    if body.op == "call" and body.value not in _TAME_CALLS:
        raise Unsupported(f"{body.value} within a series, integral or limit")
    if body.op in BOUND:
        raise Unsupported("one of these within another")
    if _holds(body, name):
        for arg in body.args:
            _refuse_hidden(values, arg, name)
        return
    size = abs(values.real(values.of(body)))
    if size and not 1 <= size * _MOST_TAME <= _MOST_TAME**2:
        raise TooLarge("a number too large or too small within a series, integral or limit")


def _holds(node: Node, name: str) -> bool:
    return (node.op == "symbol" and node.value == name) or any(_holds(arg, name) for arg in node.args)
