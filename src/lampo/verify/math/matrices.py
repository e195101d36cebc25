r"""Sums and products of matrices and numbers as one matrix: `c_1 \begin{bmatrix}1\\2\end{bmatrix} e^t` is the matrix of its entries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .parts import has, signs_of
from .tree import Malformed, Node, TooLarge

_MAX_NODES = 20_000


def folded(node: Node) -> Node:
    """The tree with such sums and products written out; one of shapes that do not fit stays as it is."""
    if not has(node, "matrix") or node.op == "matrix":
        return node
    result = _folded(node)
    if _size(result) > _MAX_NODES:
        raise TooLarge("a product of matrices that is too large")
    return result


def _folded(node: Node) -> Node:
    if node.op == "matrix" or not node.args or (node.op == "call" and node.value == "det"):
        return node
    args = tuple(map(_folded, node.args))
    matrices = [arg for arg in args if arg.op == "matrix"]
    if not matrices:
        return replace(node, args=args)
    if node.op == "call" and node.value in ("cross", "dot"):
        return _of_vectors(str(node.value), *args)
    if node.op == "neg":
        return _each(matrices[0], lambda entry: Node("neg", (entry,)))
    if node.op == "div" and args[0].op == "matrix" and args[1].op != "matrix":
        return _each(args[0], lambda entry: Node("div", (entry, args[1])))
    if node.op == "add" and len({(arg.op, arg.value, len(arg.args)) for arg in args}) == 1:
        return replace(
            args[0], args=tuple(Node("add", entries) for entries in zip(*(a.args for a in args), strict=True))
        )
    if node.op == "mul" and len(args) == 2:
        if len(matrices) == 1:
            scalar = args[0] if args[1].op == "matrix" else args[1]
            return _each(matrices[0], lambda entry: Node("mul", (scalar, entry)))
        return _product(*args)
    return replace(node, args=args)


def _each(matrix: Node, change: Callable[[Node], Node]) -> Node:
    return replace(matrix, args=tuple(map(change, matrix.args)))


def _product(left: Node, right: Node) -> Node:
    inner, columns = left.value, right.value
    assert isinstance(inner, int)
    assert isinstance(columns, int)
    if inner * columns != len(right.args):
        raise Malformed("a product of matrices that do not fit")
    if _size(left) * columns + _size(right) * len(left.args) > _MAX_NODES:
        raise TooLarge("a product of matrices that is too large")
    entries = []
    for row in range(len(left.args) // inner):
        for column in range(columns):
            pairs = [(left.args[row * inner + k], right.args[k * columns + column]) for k in range(inner)]
            terms = tuple(Node("mul", pair) for pair in pairs)
            entries.append(terms[0] if inner == 1 else Node("add", terms))
    return Node("matrix", tuple(entries), columns)


def vector_product(sign: str, left: Node, right: Node) -> Node | None:
    """The cross product, or the scalar product of two columns or rows; None for a product of another kind."""
    if sign == "*" or not (_is_vector(left) and _is_vector(right)):
        return None
    if sign == r"\times":
        return Node("call", (left, right), "cross")
    shapes = [(len(side.args), side.value) for side in (left, right) if side.op == "matrix"]
    return Node("call", (left, right), "dot") if len(set(shapes)) == 1 else None


def _is_vector(node: Node) -> bool:
    """Whether this is a column or row of several entries, or a cross product."""
    if node.op == "call":
        return node.value == "cross"
    return node.op == "matrix" and len(node.args) > 1 and node.value in (1, len(node.args))


def _of_vectors(name: str, left: Node, right: Node) -> Node:
    a, b = left.args, right.args
    if left.op != "matrix" or right.op != "matrix" or len(a) != len(b) or (name == "cross" and len(a) != 3):
        raise Malformed("a product of vectors that do not fit")
    if name == "dot":
        return Node("add", tuple(Node("mul", pair) for pair in zip(a, b, strict=True)))
    entries = []
    for i, j in ((1, 2), (2, 0), (0, 1)):
        entries.append(Node("add", (Node("mul", (a[i], b[j])), Node("neg", (Node("mul", (a[j], b[i])),)))))
    return replace(left, args=tuple(entries))


def unread_sides(node: Node) -> tuple[Node, ...]:
    """The sides of a chain of equalities whose matrices cannot be multiplied out, such as the first of `A^{-1} = B`."""
    if set(signs_of(node)) != {"="} or not has(node, "matrix"):
        return ()
    return tuple(side for side in node.args if _is_unread(side))


def without_unread_sides(node: Node) -> Node:
    """A chain of equalities without the sides whose matrices cannot be multiplied out; a label if only one side is left."""
    unread = unread_sides(node)
    sides = tuple(side for side in node.args if side not in unread)
    if not unread or not sides:
        return node
    sides = sides if len(sides) > 1 else (Node("label"), *sides)
    return replace(node, args=sides, value=("=",) * (len(sides) - 1))


def _is_unread(side: Node) -> bool:
    try:
        return _holds_unread(folded(side))
    except Malformed:
        return True


def _holds_unread(node: Node) -> bool:
    """Whether a matrix is left where a value is expected."""
    if node.op in ("matrix", "sequence"):
        return False
    return any(arg.op == "matrix" or _holds_unread(arg) for arg in node.args if node.value != "det")


def _size(node: Node) -> int:
    return 1 + sum(map(_size, node.args))
