"""Asserts as expressions to evaluate inside the sandbox, and what their values have to be, which stays outside."""

from __future__ import annotations

import ast
from typing import Any, NamedTuple

from .tests import UnusableTests

_NONE = object()


class Assertion(NamedTuple):
    """An expression, what its value has to be, and how far a number may be from that."""

    expression: str
    expected: Any
    tolerance: float | None = None


def read_assert(test: str) -> Assertion:
    """What an assert asks.

    Raises:
        UnusableTests: the expected value would have to enter the sandbox, or the comparison to run there.
    """
    try:
        (statement,) = ast.parse(test.strip()).body
    except (SyntaxError, ValueError):
        raise UnusableTests(f"not one assert: {test[:60]}") from None
    if not isinstance(statement, ast.Assert):
        raise UnusableTests(f"not an assert: {test[:60]}")

    def value(expression: ast.expr, expected: Any, tolerance: float | None = None) -> Assertion:
        return Assertion(ast.unparse(expression), expected, tolerance)

    match statement.test:
        case ast.Compare(left=left, ops=[ast.Eq() | ast.Is() as operator], comparators=[right]):
            for inside, outside in ((left, right), (right, left)):
                if (expected := _literal(outside)) is not _NONE and _literal(inside) is _NONE:
                    if isinstance(operator, ast.Is) and expected not in (None, True, False):
                        break
                    return value(inside, expected)
        case ast.Compare(
            left=ast.Call(func=ast.Name(id="abs"), args=[ast.BinOp(left=inside, op=ast.Sub(), right=outside)]),
            ops=[ast.Lt() | ast.LtE()],
            comparators=[bound],
        ):
            expected, tolerance = _literal(outside), _literal(bound)
            if isinstance(expected, int | float) and isinstance(tolerance, int | float):
                return value(inside, expected, float(tolerance))
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="math"), attr="isclose"), args=[inside, outside], keywords=words
        ):
            expected = _literal(outside)
            given = {word.arg: _literal(word.value) for word in words}
            if (
                isinstance(expected, int | float)
                and set(given) <= {"rel_tol", "abs_tol"}
                and _NONE not in given.values()
            ):
                tolerance = max(given.get("rel_tol", 1e-9) * abs(expected), given.get("abs_tol", 0.0))
                return value(inside, expected, tolerance)
        case ast.UnaryOp(op=ast.Not(), operand=ast.Call(func=ast.Name()) as call) if _has_plain_arguments(call):
            return value(_truth(call), False)
        case ast.Call(func=ast.Name()) as call if _has_plain_arguments(call):
            return value(_truth(call), True)
        case _:
            pass
    raise UnusableTests(test[:80])


def _literal(node: ast.expr) -> Any:
    """The value of a literal, also within set(), sorted(), list() or tuple(). `_NONE` where it is no literal."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1 and not node.keywords:
        build = {"set": set, "sorted": sorted, "list": list, "tuple": tuple}.get(node.func.id)
        inner = _literal(node.args[0])
        try:
            return build(inner) if build and inner is not _NONE else _NONE
        except TypeError:
            return _NONE
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _NONE


def _truth(call: ast.Call) -> ast.Call:
    return ast.Call(ast.Name("bool", ast.Load()), [call], [])


def _has_plain_arguments(call: ast.Call) -> bool:
    return all(_literal(node) is not _NONE for node in [*call.args, *(word.value for word in call.keywords)])
