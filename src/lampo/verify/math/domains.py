r"""What an answer says about where it holds: the `k \in \mathbb{Z}` of `3k, k \in \mathbb{Z}`, the `t \ge 0` of `f(t) = 3t, t \ge 0`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .tree import Node


def without_domain(node: Node) -> tuple[Node, tuple[Node, ...]] | None:
    """What holds, and where; None for an answer that does not say where."""
    if node.op != "sequence" or node.value not in ("", "and", "{}"):
        return None
    domain = tuple(arg for arg in node.args if _restricts(arg))
    rest = tuple(arg for arg in node.args if not _restricts(arg))
    if not domain or not rest or not all(_name(arg) in _values(rest) for arg in domain):
        return None
    is_function = all(arg.op == "relation" and arg.value == ("=",) for arg in rest)
    if not is_function and any(arg.value != ("in",) for arg in domain):
        return None  # a > 0, a + 1 may be two answers
    return rest[0] if len(rest) == 1 and node.value != "{}" else replace(node, args=rest), domain


def _restricts(node: Node) -> bool:
    """Whether this is a membership in a named set, or an inequality, of one symbol alone."""
    if node.op != "relation" or len(set(_symbols(node))) != 1 or node.value == ("=",):
        return False
    if node.value == ("in",):
        return node.args[0].op == "symbol" and node.args[1].op in ("constant", "sequence")
    return any(arg.op == "symbol" for arg in node.args)


def _name(node: Node) -> str:
    return next(_symbols(node))


def _values(nodes: tuple[Node, ...]) -> set[str]:
    """The symbols of what is said, but for the name on the left of x = 2k."""
    values = [node.args[1] if node.op == "relation" and node.args[0].op == "symbol" else node for node in nodes]
    return {name for value in values for name in _symbols(value)}


def _symbols(node: Node) -> Iterator[str]:
    if node.op == "symbol":
        yield str(node.value)
    for arg in node.args:
        yield from _symbols(arg)
