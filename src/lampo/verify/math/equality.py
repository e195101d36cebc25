r"""Whether two final answers are the same mathematics.

Answers are compared by value and by kind: numbers and expressions by their values, sets without order, tuples with it,
intervals with their ends, equations up to a constant factor, quantities with their units. Rational numbers are compared
exactly. Other values are computed with as many digits as it takes for no term to be lost (`Values.digits`), never by
floats; expressions with variables are compared at points drawn from a hash of both texts. No simplifier is involved,
so the time is bounded by the length of the texts and by the limits below.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from typing import Any

from .calculus import BOUND
from .domains import without_domain
from .labels import is_asked_for, is_label, may_be_an_equation, solutions
from .latex import NAMED_SETS, read_answer
from .matrices import folded
from .tree import MAX_ITEMS, Malformed, Node, TooLarge, Undecided, Undefined, Unsupported, number
from .typesetting import clean_answer, words_of
from .units import vocabulary
from .unread import may_be_unread
from .values import Values, begin_work, close

NUM_POINTS = 10
"""Points at which expressions with variables are compared."""
BASE_DIGITS = 60
"""Digits of the first comparison. The second one has at least twice as many."""
MAX_COMPARED = 500_000
"""Digits that are looked at to find the repeats of a list, where each irrational member is compared with each."""


def equal(gold: str, answer: str, tolerance: float = 0.0) -> tuple[bool | None, str]:
    r"""Whether an answer is the gold answer, None where that cannot be told. And why, where that is not obvious.

    >>> equal(r"\frac{1}{3}", "0.333333")[0], equal(r"2\sqrt{3}", r"\sqrt{12}")[0], equal(r"\frac{1}{", "2")[0]
    (False, True, None)
    """
    begin_work()
    try:
        gold_tree = read_answer(gold)
        if not _Comparison(gold, gold).same(gold_tree, gold_tree):
            return None, "the gold answer is not equal to itself"
    except (Malformed, Unsupported, Undecided, TooLarge, Undefined) as error:
        return None, f"the gold answer cannot be read: {error}"
    begin_work()
    try:
        answer_tree = read_answer(_with_unit_of(gold_tree, answer))
        if (gold_tree.op == "text") != (answer_tree.op == "text"):  # letters may have been taken for a product
            same = _plain_words(_as_text(gold)) == _plain_words(_as_text(answer))
        else:
            same = _Comparison(gold, answer, tolerance).same(gold_tree, answer_tree)
    except Unsupported as error:
        return (None if may_be_unread(gold_tree, answer) else False), f"not supported: {error}"
    except Undecided as error:
        return None, f"not decided: {error}"
    except (Malformed, TooLarge, Undefined) as error:
        return False, f"no answer that can be evaluated: {error}"
    if not same and gold_tree.op == "text" and len(str(gold_tree.value).split()) > _MAX_WORDS:
        return None, "the gold answer is a sentence, and this is another one"
    return same, ""


_MAX_WORDS = 6
_SPEED = re.compile(r"(?<=[0-9}) ])([ckm]?m|mi|ft)\s*/\s*(s|sec|h|hr|min)(\^\{?2\}?)?\s*\Z")
_LONE_LETTERS = re.compile(r"(?<=[0-9}) ])([A-Za-z]{1,2})(\^\{?[0-9]\}?)?\s*\Z")


def _with_unit_of(gold: Node, answer: str) -> str:
    """Letters behind a number, such as the m in 5 m, are a unit and no variable where the gold answer has a unit."""
    if gold.op == "quantity" and (match := _LONE_LETTERS.search(answer)):
        return f"{answer[: match.start()]} \\text{{ {match[1]}}}{match[2] or ''}"
    if not _has_symbols(gold) and (match := _SPEED.search(answer)):
        return f"{answer[: match.start()]} \\text{{ {match[1]}/{match[2]}}}{match[3] or ''}"
    return answer


def _symbols(node: Node) -> Iterator[str]:
    if node.op == "symbol":
        yield str(node.value)
    for arg in node.args:
        yield from (name for name in _symbols(arg) if node.op not in BOUND or name != str(node.value).rstrip("+-"))


def _has_symbols(node: Node) -> bool:
    return next(_symbols(node), None) is not None


def _has(node: Node, *ops: str) -> bool:
    return node.op in ops or any(_has(arg, *ops) for arg in node.args)


def _has_i(node: Node) -> bool:
    return (node.op == "constant" and node.value == "i") or any(map(_has_i, node.args))


def _rebuild(node: Node, change: Callable[[Node], Node | None]) -> Node:
    """The tree with every part replaced for which `change` gives another."""
    changed = change(node)
    if changed is not None:
        return _rebuild(changed, change)
    return replace(node, args=tuple(_rebuild(arg, change) for arg in node.args)) if node.args else node


# Sets of real numbers


@dataclass(frozen=True, slots=True)
class _End:
    node: Node | None  # None: infinite
    order: Any  # a number of mpmath, or a float infinity
    closed: bool


_Piece = tuple[_End, _End]
_EXPRESSIONS = vocabulary("number symbol constant add mul div pow neg degree call ratio") | BOUND


class _Comparison:
    """Compares two answers, and holds what both need."""

    def __init__(self, gold: str, answer: str, tolerance: float = 0.0) -> None:
        self.seed = f"{gold}\x00{answer}"
        self.tolerance = tolerance

    # By kind

    def same(self, gold: Node, answer: Node) -> bool:
        """Whether two trees are the same answer."""
        gold, answer = (self.tidy(self.solved(folded(self.once(node)))) for node in (gold, answer))
        parts = without_domain(gold), without_domain(answer)
        if parts[0] is not None or parts[1] is not None:
            return self.same_where(gold, answer, *parts)
        if "text" in (gold.op, answer.op):
            return _plain_words(gold) == _plain_words(answer) != ""
        if gold.op == "relation" and answer.op == "relation":
            return self.same_relation(gold, answer)
        if gold.op == "relation" and answer.op != "relation" and (asked := self.asked_for(gold)) is not None:
            return self.same_as_asked_for(*asked, answer)
        for one, other in ((gold, answer), (answer, gold)):
            if one.op == "relation" and (stated := self.stated(one, of_value=one is answer)) is not None:
                value, other = stated[1], self.tidy(other)
                return self.same(value, other) if one is gold else self.same(other, value)
        if any(self.is_region(node) for node in (gold, answer)):
            return self.same_region(gold, answer)
        if "sequence" in (gold.op, answer.op) or "matrix" in (gold.op, answer.op):
            return self.same_sequence(gold, answer)
        if "relation" in (gold.op, answer.op):
            return False
        if "quantity" in (gold.op, answer.op):
            return self.same_quantity(gold, answer)
        if gold.op == answer.op == "ratio" and len(gold.args) == len(answer.args):
            pairs = zip(gold.args[1:], answer.args[1:], strict=True)
            return all(
                self.same_value(Node("mul", (gold.args[0], b)), Node("mul", (answer.args[0], a))) for a, b in pairs
            )
        if gold.op == answer.op == "constant" and (gold.value in ("oo", "empty") or _is_set(gold)):
            if {gold.value, answer.value} == {"N", "Z+"}:
                raise Undecided("whether zero is a natural number")
            return gold.value == answer.value
        if (is_infinite(gold) or is_infinite(answer)) and _infinite_sign(gold) is not None:
            return _infinite_sign(gold) == _infinite_sign(answer)
        if is_infinite(answer) or answer.value == "empty" or gold.value == "empty":
            return False
        return self.same_angle_or_value(gold, answer)

    def once(self, node: Node) -> Node:
        """An answer that is given twice, x > 2 : (2, oo), as its first form."""
        if node.op != "restated":
            return node
        if not self.same(*node.args):
            raise Malformed("an answer in two forms that are not the same")
        return node.args[0]

    def same_where(self, gold: Node, answer: Node, *parts: tuple[Node, tuple[Node, ...]] | None) -> bool:
        """Compare what holds on a domain: 3k, k in Z; f(t) = 3t, t >= 0. Members of a named set may be left unsaid."""
        (gold, gold_domain), (answer, answer_domain) = (
            part or (node, ()) for node, part in zip((gold, answer), parts, strict=True)
        )
        if not self.same(gold, answer):
            return False
        if gold_domain and answer_domain:
            return self.same_members(gold_domain, answer_domain)
        if all(domain.value == ("in",) for domain in (*gold_domain, *answer_domain)):
            return True
        raise Undecided("only one of the two says where it holds")

    def solved(self, node: Node) -> Node:
        """A list p = 5, q = 2, p = 7, q = 2 as the tuples of its values. All else as it is."""
        is_list = node.op == "sequence" and node.value in ("", "and")
        return (solutions(node, self.stated) or node) if is_list else node

    def tidy(self, node: Node) -> Node:
        """Write out plus-minus signs, and leave out the repeats of a list. A list of one is its item."""
        if node.op == "quantity" and _has(node, "pm"):
            inner = self.tidy(node.args[0])
            return Node("sequence", tuple(replace(node, args=(arg,)) for arg in inner.args), "")
        if node.op in ("pm", "relation") or node.op in _EXPRESSIONS or node.value == "()":
            options = list(_signs(node))
            if len(options) > 1:
                return self.tidy(Node("sequence", tuple(options), ""))
            if node.op == "mul" and (scaled := _scaled_matrix(node)) is not None:
                return scaled
            if node.op == "neg" and node.args[0].op in ("matrix", "sequence"):
                inner = node.args[0]
                return replace(inner, args=tuple(Node("neg", (arg,)) for arg in inner.args))
        if node.op == "sequence" and node.value in ("", "and", "{}"):
            items: list[Node] = []
            for arg in node.args:
                tidied = self.tidy(arg)
                items += tidied.args if tidied.op == "sequence" and tidied.value in ("", "and") else (tidied,)
            if len(items) > MAX_ITEMS:
                raise TooLarge(f"more than {MAX_ITEMS} items")
            different: list[Node] = []
            for item in items:
                if item not in different:
                    different.append(item)
            if node.value != "{}" and len(different) > 1:
                different = self.without_repeats(different)
            if node.value != "{}" and len(different) == 1:
                return different[0]
            return replace(node, args=tuple(different))
        return node

    def without_repeats(self, items: list[Node]) -> list[Node]:
        """Numbers of the same value count once, so 5 and 5.0 are one answer."""
        plain = [item.op in _EXPRESSIONS and not _has_symbols(item) and not is_infinite(item) for item in items]
        numbers = [item for item, is_number in zip(items, plain, strict=True) if is_number]
        digits = max((digits for item in numbers for digits, _ in self.points(item)), default=BASE_DIGITS)
        num_irrational = sum(not isinstance(Values(BASE_DIGITS, {}).of(item), Fraction) for item in numbers)
        if num_irrational**2 * digits > MAX_COMPARED:
            raise TooLarge("a list of too many numbers with too many digits")
        kept: list[Node] = []
        known: list[Any] = []
        for item, is_number in zip(items, plain, strict=True):
            if is_number:
                value = Values(digits, {}).of(item)
                if any(close(Values(digits, {}), value, other) for other in known):
                    continue
                known.append(value)
            kept.append(item)
        return kept

    # Relations

    def stated(self, node: Node, of_value: bool = False) -> tuple[Node, Node] | None:
        """(label, value) of a relation that only says what something is: x = 5, x = 2 * 5 = 10, AB = 5, x in S, 2 + 3 = 5.

        With `of_value` also m + n = 5, |z| = 5, cos A = 5, which answer a question for a value; where an equation is the
        gold answer they are equations. None for other relations. A chain of numbers that are not equal states nothing.
        """
        sides, signs = list(node.args), list(node.value if isinstance(node.value, tuple) else ())
        while signs and signs[-1] == "~" and not (len(sides) == 2 and is_label(sides[0])):
            sides.pop()  # 1/3, which is about 0.33
            signs.pop()
        while len(sides) > 1 and sides[-1].op == "label":  # 15 = \sum_{k=1}^5 k, of which the sum is not read
            sides.pop()
            signs.pop()
        if not signs:
            return Node("label"), sides[0]
        if signs == ["in"] and is_label(sides[0]):
            return sides[0], sides[1]
        if set(signs) - {"=", "~"}:
            return None
        label, value = sides[0], sides[-1]
        is_named = [is_label(side) or (of_value and is_asked_for(side)) for side in (label, value)]
        if len(sides) == 2 and is_named == [False, True] and not _has_symbols(label):
            label, value, is_named = value, label, [True, False]  # 5 = x
        elif not is_named[0] and (_has_symbols(label) or label.op not in _EXPRESSIONS | {"quantity", "matrix"}):
            return None
        if is_named[0] and set(_symbols(label)) & set(_symbols(value)) and not str(label.value).startswith("?"):
            return None
        if value == number(0) and is_named[0] and label.op != "call" and not is_label(label):
            return None  # x^2 + xy = 0 is an equation
        numbers = [side for side in sides if side.op in _EXPRESSIONS and not _has_symbols(side)]
        numbers = [side for side in numbers if side is not label or not is_named[0]]
        matrices = [side for side in map(folded, sides) if side.op == "matrix"]
        if not all(self.same(matrices[-1], other) for other in matrices[:-1]):
            raise Malformed("a chain of matrices that are not equal")
        if value.op in _EXPRESSIONS and not all(self.same(value, other) for other in numbers if other is not value):
            raise Malformed("a chain of numbers that are not equal")
        return label, value

    def asked_for(self, gold: Node) -> tuple[Node, Node] | None:
        """(label, value) of a gold answer such as m + n = 5 or |AB| = 1, whose value may be all that was asked for."""
        sides = gold.args
        if gold.value != ("=",) * (len(sides) - 1) or not _has_symbols(sides[0]) or is_label(sides[0]):
            return None
        is_value = sides[-1].op in _EXPRESSIONS and not _has_symbols(sides[-1]) and sides[-1] != number(0)
        return (sides[0], sides[-1]) if is_value else None

    def same_as_asked_for(self, label: Node, value: Node, answer: Node) -> bool:
        """Whether the bare value is given. That of x + y = 5, which may be a line, cannot be told."""
        if not self.same(value, answer):
            return False
        if not is_asked_for(label) or may_be_an_equation(label):
            raise Undecided("the gold answer is an equation, or the value of its left-hand side")
        return True

    def same_relation(self, gold: Node, answer: Node) -> bool:
        stated = self.stated(gold), self.stated(answer)
        if stated[0] is not None and stated[1] is not None:
            (gold_label, gold_value), (answer_label, answer_value) = stated[0], stated[1]
            if _same_label(gold_label, answer_label):
                return self.same(gold_value, answer_value)
            if _has(gold_label, "label") or _has(answer_label, "label"):
                return self.same(gold_value, answer_value)
        signs = [node.value for node in (gold, answer)]
        if signs[0] == signs[1] == ("=",):
            if stated[0] is not None and not _has_symbols(stated[0][1]) and not _is_solved(answer):
                return False  # x = 11 - 2x + 4 says the problem again, it does not say x = 5
            return self.same_equation(gold, answer)
        variables = [set(_symbols(node)) for node in (gold, answer)]
        regions = self.region(gold), self.region(answer)
        if regions[0] is not None and regions[1] is not None:
            return variables[0] == variables[1] and self.same_pieces(regions[0], regions[1])
        if ("=",) in signs or regions[0] is not None:  # 2x > 4 is the problem of which x > 2 is the answer
            return False
        return self.same_inequality(gold, answer)

    def same_equation(self, gold: Node, answer: Node) -> bool:
        """Whether one is a constant multiple of the other, or of its product with denominators."""
        if not all(side.op in _EXPRESSIONS for side in (*gold.args, *answer.args)):
            pairs = zip(gold.args, answer.args, strict=True)
            return all(self.same(one, other) for one, other in pairs)
        forms = [Node("add", (node.args[0], Node("neg", (node.args[1],)))) for node in (gold, answer)]
        factor = self.constant_factor(*forms)
        if factor is not None:
            return True
        cleared = [_numerator(form) for form in forms]
        return cleared != forms and self.constant_factor(*cleared) is not None

    def same_inequality(self, gold: Node, answer: Node) -> bool:
        """One inequality with several variables is a positive multiple of the other."""
        forms, signs = [], []
        if len(gold.args) == len(answer.args) > 2:
            flipped = replace(answer, args=answer.args[::-1], value=tuple(map(_flipped, answer.value[::-1])))  # pyright: ignore
            return any(
                gold.value == other.value and all(map(self.is_same, gold.args, other.args))
                for other in (answer, flipped)
            )
        for node in (gold, answer):
            sign = node.value[0] if isinstance(node.value, tuple) and len(node.value) == 1 else ""
            if sign not in ("<", "<=", ">", ">=", "!="):
                raise Undecided("relations that are not compared")
            left, right = node.args if sign[0] != ">" else node.args[::-1]
            signs.append(sign.replace(">", "<"))
            forms.append(Node("add", (left, Node("neg", (right,)))))
        factor = self.constant_factor(forms[0], forms[1])
        if signs[0] != signs[1] or factor is None:
            return False
        return signs[0] == "!=" or (getattr(factor, "imag", 0) == 0 and factor.real > 0)

    def constant_factor(self, one: Node, other: Node) -> Any:
        """The number that one is of the other. None if there is none, or both are zero everywhere."""
        ratio: Any = None
        count = 0
        for digits, point in self.points(one, other):
            values = Values(digits, point)
            try:
                first, second = values.of(one), values.of(other)
                if values.is_zero(first) or values.is_zero(second):
                    return None
                found = values.divide(first, second)
            except Undefined:
                continue
            if values.left_the_reals and not (_has_i(one) or _has_i(other)):
                continue
            count += 1
            if ratio is not None and not close(values, ratio, found):
                return None
            ratio = found
        return ratio if count > 1 or not (set(_symbols(one)) | set(_symbols(other))) else None

    # Sets of reals

    def is_region(self, node: Node) -> bool:
        if node.op in ("union", "minus", "intersection") or (node.op == "constant" and node.value == "R"):
            return True
        if node.op == "relation":
            return self.stated(node) is None and isinstance(node.value, tuple) and "=" not in node.value
        if node.op == "sequence" and node.value in ("", "and"):
            return all(arg.op == "relation" or arg.op == "sequence" for arg in node.args) and any(
                self.is_region(arg) for arg in node.args
            )
        return False

    def same_region(self, gold: Node, answer: Node) -> bool:
        regions = self.region(gold), self.region(answer)
        if regions[0] is not None and regions[1] is not None:
            return self.same_pieces(regions[0], regions[1])
        unread = [node for node, region in zip((gold, answer), regions, strict=True) if region is None]
        if not all(map(self.is_region, unread)) or not _has_symbols(answer):
            return False
        raise Undecided("a set of reals of a strange form")

    def region(self, node: Node) -> list[_Piece] | None:
        """A set of reals as its pieces in order. None if it is none of those that are understood."""
        node = self.tidy(node)
        match node.op:
            case "constant" if node.value == "R":
                return [(_End(None, float("-inf"), False), _End(None, float("inf"), False))]
            case "constant" if node.value == "empty":
                return []
            case "union" | "intersection" | "minus":
                return self.combined(node.op, [self.region(arg) for arg in node.args])
            case "sequence" if node.value == "{}":
                ends = [self.end(arg, True) for arg in node.args]
                return None if None in ends else _merged([(end, end) for end in ends if end])
            case "sequence" if node.value in ("", "and"):
                if len({frozenset(_symbols(arg)) for arg in node.args if arg.op == "relation"}) > 1:
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

    def combined(self, op: str, regions: list[list[_Piece] | None]) -> list[_Piece] | None:
        if any(region is None for region in regions):
            return None
        known = [region for region in regions if region is not None]
        if op == "union":
            return _merged([piece for region in known for piece in region])
        if op == "minus":
            known = [known[0], *map(_complement, known[1:])]
        return reduce(_intersection, known)

    def interval(self, low: Node, high: Node, low_closed: bool, high_closed: bool) -> list[_Piece] | None:
        ends = self.end(low, low_closed), self.end(high, high_closed)
        if ends[0] is None or ends[1] is None or ends[0].order > ends[1].order:
            return None
        if ends[0].order == float("inf") or ends[1].order == float("-inf"):
            return None
        return [(ends[0], ends[1])]

    def end(self, node: Node, closed: bool) -> _End | None:
        sign = _infinite_sign(node)
        if sign is not None:
            return _End(None, sign * float("inf"), False)
        if node.op not in _EXPRESSIONS or _has_symbols(node):
            return None
        values = Values(BASE_DIGITS, {})
        value = values.real(values.of(node))
        return None if isinstance(value, values.mp.mpc) else _End(node, value, closed)

    def solution(self, node: Node) -> list[_Piece] | None:
        """The set of a chain of relations of one variable that stands alone: 1 < x <= 2, x != 3."""
        variable = {*_symbols(node)}
        sides, signs = node.args, node.value if isinstance(node.value, tuple) else ()
        if len(variable) != 1:
            return None
        regions: list[list[_Piece] | None] = []
        infinity = Node("constant", value="oo")
        for left, sign, right in zip(sides, signs, sides[1:], strict=False):
            if right.op == "symbol" and left.op != "symbol":
                left, right = right, left
                sign = _flipped(sign)
            if left.op != "symbol" or _has_symbols(right):
                return None
            if sign == "in":
                regions.append(self.region(right))
            elif sign in ("<", "<="):
                regions.append(self.interval(Node("neg", (infinity,)), right, False, sign == "<="))
            elif sign in (">", ">="):
                regions.append(self.interval(right, infinity, sign == ">=", False))
            elif sign in ("=", "!=", "notin"):
                points = self.region(right if sign == "notin" else Node("sequence", _members(self.tidy(right)), "{}"))
                regions.append(points if sign == "=" else None if points is None else _complement(points))
            else:
                return None
        return self.combined("intersection", regions)

    def same_pieces(self, gold: list[_Piece], answer: list[_Piece]) -> bool:
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

    # Sequences and matrices

    def same_sequence(self, gold: Node, answer: Node) -> bool:
        matrices = [node.op == "matrix" for node in (gold, answer)]
        if all(matrices):
            return gold.value == answer.value and self.same_in_order(gold, answer)
        if any(matrices):
            matrix, other = (gold, answer) if matrices[0] else (answer, gold)
            is_column = matrix.value == 1 and other.op == "sequence" and other.value == "()"
            return is_column and self.same_in_order(gold, answer)
        kinds = [str(node.value).replace("and", "") if node.op == "sequence" else None for node in (gold, answer)]
        if kinds == ["()", ""] and (named := self.values_by_name(answer)) is not None:
            return self.same_in_order(gold, named)
        if kinds == ["", "()"] and (named := self.values_by_name(gold)) is not None:
            return self.same_in_order(named, answer)
        loose = [kind in ("", "{}") for kind in kinds]
        if all(loose):
            return self.same_members(gold.args, answer.args)
        if kinds[0] is None or kinds[1] is None:
            if "{}" in kinds and len((gold if kinds[0] else answer).args) == 1:  # the only solution
                sides = [node.args[0] if node.op == "sequence" else node for node in (gold, answer)]
                return sides[1].op not in ("sequence", "relation") and self.same(sides[0], sides[1])
            return False
        return kinds[0] == kinds[1] and self.same_in_order(gold, answer)

    def same_in_order(self, gold: Node, answer: Node) -> bool:
        if len(gold.args) != len(answer.args):
            return False
        return all(self.same(one, other) for one, other in zip(gold.args, answer.args, strict=True))

    def same_members(self, gold: tuple[Node, ...], answer: tuple[Node, ...]) -> bool:
        """Whether each has its equal on the other side."""
        found: set[int] = set()
        for member in answer:
            equals = [i for i, other in enumerate(gold) if self.is_same(other, member)]
            if not equals:
                return False
            found.update(equals)
        return len(found) == len(gold)

    def is_same(self, gold: Node, answer: Node) -> bool:
        try:
            return self.same(gold, answer)
        except (Undefined, Malformed):
            return False

    def values_by_name(self, node: Node) -> Node | None:
        """The list x = 1, y = 2 as the tuple of its values, if the names are different and in alphabetical order."""
        names, values = [], []
        for arg in node.args:
            stated = self.stated(arg) if arg.op == "relation" else None
            if stated is None or stated[0].op != "symbol":
                return None
            names.append(str(stated[0].value))
            values.append(stated[1])
        return Node("sequence", tuple(values), "()") if names == sorted(set(names)) else None

    # Numbers and expressions

    def same_quantity(self, gold: Node, answer: Node) -> bool:
        """With a unit on both sides the amounts are compared, with one on one side the bare numbers."""
        if gold.op == answer.op == "quantity":
            gold_unit, answer_unit = gold.value, answer.value
            if not gold_unit.measures_the_same_as(answer_unit):  # pyright: ignore
                return False
            sides = [Node("mul", (node.args[0], number(node.value.factor))) for node in (gold, answer)]  # pyright: ignore
            modulus = next((name for name, _ in gold_unit.powers if name.startswith("mod ")), None)  # pyright: ignore
            return self.same_value(sides[0], sides[1]) or (
                modulus is not None and self.congruent(sides[0], sides[1], modulus)
            )
        bare = [node.args[0] if node.op == "quantity" else node for node in (gold, answer)]
        return all(node.op in _EXPRESSIONS - {"degree"} for node in bare) and self.same(bare[0], bare[1])

    def congruent(self, gold: Node, answer: Node, modulus: str) -> bool:
        """Whether 12 (mod 7) is 5 (mod 7)."""
        values = [Values(BASE_DIGITS, {}).of(node) for node in (gold, answer) if not _has_symbols(node)]
        if len(values) < 2 or not modulus[4:].isdigit() or not all(isinstance(value, Fraction) for value in values):
            raise Undecided("two values that may be congruent")
        return int(modulus[4:]) > 0 and (values[0] - values[1]) % int(modulus[4:]) == 0

    def same_angle_or_value(self, gold: Node, answer: Node) -> bool:
        if self.same_value(gold, answer):
            return True
        with_degrees = [_has(node, "degree") and not _has(node, "call") for node in (gold, answer)]
        if with_degrees[0] == with_degrees[1]:
            return False
        bare = [_rebuild(node, lambda part: part.args[0] if part.op == "degree" else None) for node in (gold, answer)]
        return self.same_value(bare[0], bare[1])

    def same_value(self, gold: Node, answer: Node) -> bool:
        """Whether two expressions have the same values, wherever both are real, or where no such point is found."""
        if gold == answer and not _has_symbols(gold):
            Values(BASE_DIGITS, {}).of(gold)
            return True
        num_real, complex_same, num_complex = 0, True, 0
        with_i = _has_i(gold) or _has_i(answer)
        problem: Exception = Undefined("no value at any point")
        enough = 4 if _has(gold, *BOUND) or _has(answer, *BOUND) else -1
        for digits, point in self.points(gold, answer):
            values = Values(digits, point)
            try:
                pair = values.of(gold), values.of(answer)
            except (Undefined, TooLarge) as error:
                if not point:
                    raise
                problem = error
                continue
            same = close(values, *pair) or self.within_tolerance(values, *pair)
            if values.left_the_reals and not with_i:
                num_complex, complex_same = num_complex + 1, complex_same and same
                continue
            if not same:
                return False
            num_real += 1
            if gold == answer or num_real == enough:
                return True
        if num_real == num_complex == 0:
            raise problem
        return num_real > 0 or complex_same

    def within_tolerance(self, values: Values, gold: Any, answer: Any) -> bool:
        return self.tolerance > 0 and bool(
            abs(values.real(gold) - values.real(answer)) <= self.tolerance * abs(values.real(gold))
        )

    def points(self, *nodes: Node) -> Iterator[tuple[int, dict[str, Fraction]]]:
        """Where to compare, and with how many digits: coarsely first, then with so many that no term is lost."""
        names = sorted({name for node in nodes for name in _symbols(node)})
        generator = random.Random(self.seed)
        has_series = any(_has(node, *BOUND) for node in nodes)
        for i in range(NUM_POINTS if names else 1):
            low, high = ((200, 4000), (50, 950), (-4000, 4000))[min(i // 2, 2)]
            point = {name: Fraction(generator.randint(low, high), 1000 + generator.randint(1, 97)) for name in names}
            yield BASE_DIGITS, point
            largest = BASE_DIGITS // 2
            for node in nodes:
                values = Values(BASE_DIGITS, point)
                try:
                    value = values.of(node)
                except (Undefined, TooLarge):
                    continue
                if not isinstance(value, Fraction):
                    largest = max(largest, values.log10)
            if not names or i == 0 or (has_series and i == 2):
                yield 2 * BASE_DIGITS + 2 * largest, point


# Trees


def _signs(node: Node) -> Iterator[Node]:
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

        yield _rebuild(node, change)


def _plus_minus(node: Node) -> Iterator[int]:
    if node.op == "pm" and isinstance(node.value, int):
        yield node.value
    for arg in node.args:
        yield from _plus_minus(arg)


def _scaled_matrix(node: Node) -> Node | None:
    flat = list(_factors(node))
    matrices = [factor for factor in flat if factor.op == "matrix"]
    if len(matrices) != 1:
        return None
    scalars = tuple(factor for factor in flat if factor.op != "matrix")
    return replace(matrices[0], args=tuple(Node("mul", (*scalars, entry)) for entry in matrices[0].args))


def _factors(node: Node) -> Iterator[Node]:
    if node.op == "mul":
        for arg in node.args:
            yield from _factors(arg)
    else:
        yield node


def _numerator(node: Node) -> Node:
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
        for factor in _factors(term.args[0] if term.op == "neg" else term):
            if factor.op == "div" and _has_symbols(factor.args[1]) and factor.args[1] not in denominators:
                denominators.append(factor.args[1])
    return Node("mul", (node, *denominators)) if denominators else node


def is_infinite(node: Node) -> bool:
    """Whether infinity is a part of an expression."""
    parts = node.args[-1:] if node.op in BOUND else node.args  # the end of a sum may be infinite
    return (node.op == "constant" and node.value == "oo") or (node.op in _EXPRESSIONS and any(map(is_infinite, parts)))


def _infinite_sign(node: Node) -> int | None:
    if node.op == "constant" and node.value == "oo":
        return 1
    if node.op == "neg" and node.args[0] == Node("constant", value="oo"):
        return -1
    return None


def _is_set(node: Node) -> bool:
    return str(node.value)[:1] in NAMED_SETS


def _flipped(sign: str) -> str:
    return sign.translate(str.maketrans("<>", "><"))


def _members(node: Node) -> tuple[Node, ...]:
    return node.args if node.op == "sequence" and node.value in ("", "and") else (node,)


def _is_solved(node: Node) -> bool:
    """Whether an equation with one symbol says its value: x = 5, 5 = x, x - 5 = 0."""
    for one, other in (node.args, node.args[::-1]):
        if one.op == "symbol" and not _has_symbols(other):
            return True
        symbols = [part for part in one.args if _has_symbols(part)] if one.op == "add" else []
        if other == Node("number", value=other.value) and other.value == 0 and len(symbols) == 1:
            return symbols[0].op == "symbol"
    return False


def _same_label(one: Node, other: Node) -> bool:
    if one == other:
        return True
    return {one.op, other.op} == {"symbol", "call"} and "y" in (one.value, other.value)


def _as_text(answer: str) -> Node:
    return Node("text", value=words_of(clean_answer(answer)))


def _plain_words(node: Node) -> str:
    if node.op == "text":
        words = re.sub(r"\s*(?:,| and )\s*(?:and )?", ",", str(node.value))
        words = re.sub(r"[\"'.!]|^the |^an? ", "", words.strip(), flags=re.IGNORECASE)
        match = re.fullmatch(r"\(?([A-Za-z])\)?", words)
        return match[1] if match else " ".join(words.split()).casefold()
    if node.op == "symbol":
        return str(node.value)
    if node.op == "constant" and node.value in ("e", "i"):
        return str(node.value)
    return ""


def _order(piece: _Piece) -> tuple[Any, bool]:
    return piece[0].order, not piece[0].closed


def _merged(pieces: list[_Piece]) -> list[_Piece]:
    """The union of pieces: in order, and joined where they touch."""
    merged: list[_Piece] = []
    for low, high in sorted(pieces, key=_order):
        if merged:
            last = merged[-1][1]
            gap = low.order - last.order if low.node and last.node else (1 if low.order > last.order else -1)
            touches = abs(gap) < 1e-40 and (low.closed or last.closed)
            if gap < -1e-40 or touches:
                longer = high.order > last.order or (high.order == last.order and high.closed)
                merged[-1] = (merged[-1][0], high if longer else last)
                continue
        merged.append((low, high))
    return merged


def _complement(pieces: list[_Piece]) -> list[_Piece]:
    low = _End(None, float("-inf"), False)
    gaps: list[_Piece] = []
    for first, last in _merged(pieces):
        if first.node is not None:
            gaps.append((low, replace(first, closed=not first.closed)))
        low = replace(last, closed=not last.closed) if last.node is not None else last
    if low.order != float("inf"):
        gaps.append((low, _End(None, float("inf"), False)))
    return gaps


def _intersection(one: list[_Piece], other: list[_Piece]) -> list[_Piece]:
    found: list[_Piece] = []
    for (a, b), (c, d) in itertools.product(one, other):
        low = max(a, c, key=lambda end: (end.order, not end.closed))
        high = min(b, d, key=lambda end: (end.order, end.closed))
        if low.order < high.order or (low.order == high.order and low.closed and high.closed):
            found.append((low, high))
    return _merged(found)
