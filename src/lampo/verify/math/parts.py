"""Parts of a tree: the symbols in it, its factors and denominators, and its signs that are still to be chosen."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

from .calculus import BOUND
from .tree import Node, TooLarge
from .units import vocabulary

EXPRESSIONS = vocabulary("number symbol constant add mul div pow neg degree call ratio") | BOUND
ORDER = frozenset(("<", ">", "<=", ">=", "!=", "in", "notin"))
"""Signs that say where a variable lies."""


def signs_of(node: Node) -> tuple[str, ...]:
    """The signs between the sides of a relation; none of all else."""
    return node.value if node.op == "relation" and isinstance(node.value, tuple) else ()


def symbols_of(node: Node) -> Iterator[str]:
    """The names of the symbols in a tree, but for those that a sum, integral or limit binds."""
    if node.op == "symbol":
        yield str(node.value)
    for arg in node.args:
        yield from (name for name in symbols_of(arg) if node.op not in BOUND or name != str(node.value).rstrip("+-"))


def has_symbols(node: Node) -> bool:
    """Whether a symbol is in a tree."""
    return next(symbols_of(node), None) is not None


def has(node: Node, *ops: str) -> bool:
    """Whether a tree holds a part of one of these kinds."""
    if node.op in ops:
        return True
    for arg in node.args:  # noqa: SIM110 (any takes twice as long, and this is asked of every part)
        if has(arg, *ops):
            return True
    return False


def has_i(node: Node) -> bool:
    """Whether the imaginary unit is in a tree."""
    return (node.op == "constant" and node.value == "i") or any(map(has_i, node.args))


def rebuild(node: Node, change: Callable[[Node], Node | None]) -> Node:
    """The tree with every part replaced for which `change` gives another."""
    changed = change(node)
    if changed is not None:
        return rebuild(changed, change)
    return replace(node, args=tuple(rebuild(arg, change) for arg in node.args)) if node.args else node


def with_each_sign(node: Node) -> Iterator[Node]:
    """An expression with each choice of its plus-minus signs. They are tied to each other if there is a minus-plus."""
    found = list(_plus_minus(node))
    if not found:
        yield node
        return
    if len(found) > 4:
        raise TooLarge("more than four plus-minus signs")
    tied = -1 in found
    for choice in itertools.product((1, -1), repeat=1 if tied else len(found)):
        signs = itertools.cycle(choice)

        def change(part: Node, signs: Iterator[int] = signs) -> Node | None:
            if part.op != "pm":
                return None
            sign = next(signs) * (part.value if isinstance(part.value, int) else 1)
            return part.args[0] if sign > 0 else Node("neg", part.args)

        yield rebuild(node, change)


def _plus_minus(node: Node) -> Iterator[int]:
    if node.op == "pm" and isinstance(node.value, int):
        yield node.value
    for arg in node.args:
        yield from _plus_minus(arg)


def scaled_matrix(node: Node) -> Node | None:
    """A product with one matrix as the matrix of its entries; None for all else."""
    flat = list(factors_of(node))
    matrices = [factor for factor in flat if factor.op == "matrix"]
    if len(matrices) != 1:
        return None
    scalars = tuple(factor for factor in flat if factor.op != "matrix")
    return replace(matrices[0], args=tuple(Node("mul", (*scalars, entry)) for entry in matrices[0].args))


def factors_of(node: Node) -> Iterator[Node]:
    """The factors of a product, and of the products in it."""
    if node.op == "mul":
        for arg in node.args:
            yield from factors_of(arg)
    else:
        yield node


def numerator_of(node: Node) -> Node:
    """An expression multiplied with the denominators of its terms."""
    terms: list[Node] = []

    def collect(part: Node, negative: bool) -> None:
        if part.op == "add":
            for arg in part.args:
                collect(arg, negative)
        elif part.op == "neg":
            collect(part.args[0], not negative)
        else:
            terms.append(Node("neg", (part,)) if negative else part)

    collect(node, False)
    denominators: list[Node] = []
    for term in terms:
        for factor in factors_of(term.args[0] if term.op == "neg" else term):
            if factor.op == "div" and has_symbols(factor.args[1]) and factor.args[1] not in denominators:
                denominators.append(factor.args[1])
    return Node("mul", (node, *denominators)) if denominators else node


def is_infinite(node: Node) -> bool:
    """Whether infinity is a part of an expression."""
    parts = node.args[-1:] if node.op in BOUND else node.args  # the end of a sum may be infinite
    return (node.op == "constant" and node.value == "oo") or (node.op in EXPRESSIONS and any(map(is_infinite, parts)))


def infinite_sign(node: Node) -> int | None:
    """1 or -1 of plain infinity, None of all else."""
    if node.op == "constant" and node.value == "oo":
        return 1
    if node.op == "neg" and node.args[0] == Node("constant", value="oo"):
        return -1
    return None


def members_of(node: Node) -> tuple[Node, ...]:
    """The members of a list without brackets; all else is its only member."""
    return node.args if node.op == "sequence" and node.value in ("", "and") else (node,)


def flipped(sign: str) -> str:
    """A sign of order as it reads from right to left."""
    return sign.translate(str.maketrans("<>", "><"))
