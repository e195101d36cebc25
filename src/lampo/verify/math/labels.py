r"""What stands left of an equality sign and only says what the value right of it is: `x = 5`, `|AB| = 1`, `m + n = 5`, `f(2) = 42`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .tree import Node
from .units import vocabulary

_MEASURES = vocabulary("abs sin cos tan cot sec csc")
_COORDINATES = frozenset("xyz")


def is_label(node: Node) -> bool:
    """Whether this names something: a symbol, a product of some (AB), f(x), a tuple of symbols, a text."""
    if node.op in ("symbol", "text", "label"):
        return True
    if node.op == "constant":
        return node.value == "e"
    if node.op == "call":
        return str(node.value).startswith("?") or (node.value == "det" and node.args[0].op == "symbol")
    return (node.op == "mul" or node.value == "()") and all(map(is_label, node.args))


def is_asked_for(node: Node) -> bool:
    """Whether a value is asked for by this, as by m + n, AB^2, |z| and cos A; 3x, x + 1 and x^2 belong to equations."""
    names = list(_names(node))
    return None not in names and (names == [node] or len(set(names)) > 1)


def may_be_an_equation(node: Node) -> bool:
    """Whether this may as well be the side of an equation: x + y = 5 is a line and sin x = 1/2 an equation, m + n = 5 a value."""
    return any(name is None or _is_coordinate(name) for name in _names(node))


def _is_coordinate(name: Node) -> bool:
    """Whether this is x, y or z, or of x or y, as sin x and |x|; a modulus |z| and cos A are values."""
    if name.op == "symbol":
        return str(name.value) in _COORDINATES
    return any(arg.op == "symbol" and arg.value in ("x", "y") for arg in name.args)


def _names(node: Node) -> Iterator[Node | None]:
    """What a sum, product, quotient or power is made of: m, f(2), |z|, cos A; None for all else, such as numbers."""
    if node.op in ("add", "mul", "div", "neg"):
        for arg in node.args:
            yield from _names(arg)
    elif node.op == "pow" and node.args[1].op == "number":
        yield from _names(node.args[0])
    elif node.op == "call" and node.value in _MEASURES:
        yield node if all(name is not None for arg in node.args for name in _names(arg)) else None
    else:
        yield node if node.op == "symbol" or (node.op == "call" and str(node.value).startswith("?")) else None


def solutions(node: Node, stated: Callable[[Node], tuple[Node, Node] | None]) -> Node | None:
    """The list p = 5, q = 2, p = 7, q = 2 as the tuples of its values, (5, 2), (7, 2); None if it is no such list."""
    names, values = [], []
    for arg in node.args:
        found = stated(arg) if arg.op == "relation" else None
        if found is None or found[0].op != "symbol":
            return None
        names.append(str(found[0].value))
        values.append(found[1])
    cycle = names[: names.index(names[0], 1)] if names.count(names[0]) > 1 else names
    if cycle != sorted(set(cycle)) or len(cycle) < 2 or len(names) == len(cycle) or len(names) % len(cycle):
        return None
    if names != cycle * (len(names) // len(cycle)):
        return None
    rows = [values[start : start + len(cycle)] for start in range(0, len(values), len(cycle))]
    return Node("sequence", tuple(Node("sequence", tuple(row), "()") for row in rows), "")
