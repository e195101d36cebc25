r"""Sums and products of matrices and numbers as one matrix: `c_1 \begin{bmatrix}1\\2\end{bmatrix} e^t` is the matrix of its entries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .tree import Malformed, Node, TooLarge

_MAX_NODES = 20_000


def folded(node: Node) -> Node:
    """The tree with such sums and products written out; one of shapes that do not fit stays as it is."""
    if not _holds_matrix(node) or node.op == "matrix":
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


def _holds_matrix(node: Node) -> bool:
    return node.op == "matrix" or any(map(_holds_matrix, node.args))


def _size(node: Node) -> int:
    return 1 + sum(map(_size, node.args))
