r"""Answers that are sets of real numbers: intervals, unions, inequalities of one variable, `\{x \mid x > 2\}`."""

from __future__ import annotations

import itertools
from functools import reduce

from .comparing import Comparing
from .parts import EXPRESSIONS, ORDER, flipped, has_symbols, infinite_sign, members_of, signs_of, symbols_of
from .pieces import End, Piece, complement, intersection, merged
from .points import BASE_DIGITS
from .tree import Node, Undecided
from .values import Values


class Regions(Comparing):
    """Compares sets of reals by their pieces."""

    def is_region(self, node: Node) -> bool:
        """Whether an answer is a set of reals, and no list of points."""
        if node.op in ("union", "minus", "intersection", "set") or (node.op == "constant" and node.value == "R"):
            return True
        if node.op == "relation":
            return set(signs_of(node)) <= ORDER and self.stated(node) is None
        if node.op == "sequence" and node.value in ("", "and"):
            return all(arg.op == "relation" or arg.op == "sequence" for arg in node.args) and any(
                self.is_region(arg) for arg in node.args
            )
        return False

    def same_region(self, gold: Node, answer: Node) -> bool:
        """Whether two sets of reals are the same."""
        regions = self.region(gold), self.region(answer)
        if regions[0] is not None and regions[1] is not None:
            return self.same_pieces(regions[0], regions[1])
        bare = [node.args[0] if node.op == "set" else node for node in (gold, answer)]
        if (bare[0], bare[1]) != (gold, answer):
            return self.same(bare[0], bare[1])
        unread = [node for node, region in zip((gold, answer), regions, strict=True) if region is None]
        if not all(map(self.is_region, unread)) or not has_symbols(answer):
            return False
        raise Undecided("a set of reals of a strange form")

    def region(self, node: Node) -> list[Piece] | None:
        """A set of reals as its pieces in order. None if it is none of those that are understood."""
        node = self.tidy(node)
        match node.op:
            case "constant" if node.value == "R":
                return [(End(None, float("-inf"), False), End(None, float("inf"), False))]
            case "constant" if node.value == "empty":
                return []
            case "set":
                return self.region(node.args[0])
            case "union" | "intersection" | "minus":
                return self.combined(node.op, [self.region(arg) for arg in node.args])
            case "sequence" if node.value == "{}":
                ends = [self.end(arg, True) for arg in node.args]
                return None if None in ends else merged([(end, end) for end in ends if end])
            case "sequence" if node.value in ("", "and"):
                if any(arg.op == "set" for arg in node.args):
                    return None  # {x | x > 3}, {x | x > 0} are two sets
                if len({frozenset(symbols_of(arg)) for arg in node.args if arg.op == "relation"}) > 1:
                    return None
                together = "intersection" if node.value == "and" else "union"
                if all(arg.value == ("!=",) for arg in node.args):  # x != 1, 2
                    together = "intersection"
                return self.combined(together, [self.region(arg) for arg in node.args])
            case "sequence" if len(node.args) == 2:
                return self.interval(node.args[0], node.args[1], str(node.value)[0] == "[", str(node.value)[1] == "]")
            case "relation":
                return self.solution(node)
        return None

    def combined(self, op: str, regions: list[list[Piece] | None]) -> list[Piece] | None:
        """The union, intersection or difference of sets, None if one of them is not understood."""
        if any(region is None for region in regions):
            return None
        known = [region for region in regions if region is not None]
        if op == "union":
            return merged([piece for region in known for piece in region])
        if op == "minus":
            known = [known[0], *map(complement, known[1:])]
        return reduce(intersection, known)

    def interval(self, low: Node, high: Node, low_closed: bool, high_closed: bool) -> list[Piece] | None:
        """The interval between two ends, None if it is none."""
        ends = self.end(low, low_closed), self.end(high, high_closed)
        if ends[0] is None or ends[1] is None or ends[0].order > ends[1].order:
            return None
        if ends[0].order == float("inf") or ends[1].order == float("-inf"):
            return None
        return [(ends[0], ends[1])]

    def end(self, node: Node, closed: bool) -> End | None:
        """An end of an interval, None if it has no value."""
        sign = infinite_sign(node)
        if sign is not None:
            return End(None, sign * float("inf"), False)
        if node.op not in EXPRESSIONS or has_symbols(node):
            return None
        values = Values(BASE_DIGITS, {})
        value = values.real(values.of(node))
        return None if isinstance(value, values.mp.mpc) else End(node, value, closed)

    def solution(self, node: Node) -> list[Piece] | None:
        """The set of a chain of relations of one variable that stands alone: 1 < x <= 2, x != 3."""
        variable = {*symbols_of(node)}
        sides, signs = node.args, node.value if isinstance(node.value, tuple) else ()
        if len(variable) != 1:
            return None
        regions: list[list[Piece] | None] = []
        infinity = Node("constant", value="oo")
        for left, sign, right in zip(sides, signs, sides[1:], strict=False):
            if right.op == "symbol" and left.op != "symbol":
                left, right = right, left
                sign = flipped(sign)
            if left.op != "symbol" or has_symbols(right):
                return None
            if sign == "in":
                regions.append(self.region(right))
            elif sign in ("<", "<="):
                regions.append(self.interval(Node("neg", (infinity,)), right, False, sign == "<="))
            elif sign in (">", ">="):
                regions.append(self.interval(right, infinity, sign == ">=", False))
            elif sign in ("=", "!=", "notin"):
                points = self.region(right if sign == "notin" else Node("sequence", members_of(self.tidy(right)), "{}"))
                regions.append(points if sign == "=" else None if points is None else complement(points))
            else:
                return None
        return self.combined("intersection", regions)

    def same_pieces(self, gold: list[Piece], answer: list[Piece]) -> bool:
        """Whether the ends of all pieces are the same."""
        if len(gold) != len(answer):
            return False
        ends = zip(itertools.chain(*gold), itertools.chain(*answer), strict=True)
        return all(
            one.closed == other.closed
            and (
                one.order == other.order
                if one.node is None or other.node is None
                else self.same_angle_or_value(one.node, other.node)
            )
            for one, other in ends
        )
