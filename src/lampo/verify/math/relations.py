r"""Answers with signs between their sides: `x = 5`, which only states a value, equations, and inequalities of several variables."""

from __future__ import annotations

from dataclasses import replace

from .comparing import Comparing
from .labels import is_asked_for, is_label, may_be_an_equation
from .matrices import folded
from .parts import EXPRESSIONS, flipped, has, has_symbols, numerator_of, signs_of, symbols_of
from .tree import Malformed, Node, Undecided, Unsupported, number

_TURNABLE = frozenset(("<->", "perp", "parallel"))


class Relations(Comparing):
    """Compares relations, and finds the value that one states."""

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
        if not signs and is_label(sides[0]) and len(node.args) > 1:
            raise Unsupported("a name whose value is not read")  # y = x(1 + x + \cdots)
        if not signs:
            return Node("label"), sides[0]
        if signs == ["in"] and is_label(sides[0]):
            return sides[0], sides[1]
        if set(signs) - {"=", "~"}:
            return None
        label, value = sides[0], sides[-1]
        is_named = [is_label(side) or (of_value and is_asked_for(side)) for side in (label, value)]
        if len(sides) == 2 and is_named == [False, True] and not has_symbols(label):
            label, value, is_named = value, label, [True, False]  # 5 = x
        elif not is_named[0] and (has_symbols(label) or label.op not in EXPRESSIONS | {"quantity", "matrix"}):
            return None
        if is_named[0] and set(symbols_of(label)) & set(symbols_of(value)) and not str(label.value).startswith("?"):
            return None
        if value == number(0) and is_named[0] and label.op != "call" and not is_label(label):
            return None  # x^2 + xy = 0 is an equation
        numbers = [side for side in sides if side.op in EXPRESSIONS and not has_symbols(side)]
        numbers = [side for side in numbers if side is not label or not is_named[0]]
        matrices = [side for side in map(folded, sides) if side.op == "matrix"]
        if not all(self.same(matrices[-1], other) for other in matrices[:-1]):
            raise Malformed("a chain of matrices that are not equal")
        if value.op in EXPRESSIONS and not all(self.same(value, other) for other in numbers if other is not value):
            raise Malformed("a chain of numbers that are not equal")
        return label, value

    def asked_for(self, gold: Node) -> tuple[Node, Node] | None:
        """(label, value) of a gold answer such as m + n = 5 or |AB| = 1, whose value may be all that was asked for."""
        sides = gold.args
        if gold.value != ("=",) * (len(sides) - 1) or not has_symbols(sides[0]) or is_label(sides[0]):
            return None
        is_value = sides[-1].op in EXPRESSIONS and not has_symbols(sides[-1]) and sides[-1] != number(0)
        return (sides[0], sides[-1]) if is_value else None

    def same_as_asked_for(self, label: Node, value: Node, answer: Node) -> bool:
        """Whether the bare value is given. That of x + y = 5, which may be a line, cannot be told."""
        if not self.same(value, answer):
            return False
        if not is_asked_for(label) or may_be_an_equation(label):
            raise Undecided("the gold answer is an equation, or the value of its left-hand side")
        return True

    def same_relation(self, gold: Node, answer: Node) -> bool:
        """Whether two relations say the same: the same value, a multiple of one equation, the same set."""
        stated = self.stated(gold), self.stated(answer)
        if stated[0] is not None and stated[1] is not None:
            (gold_label, gold_value), (answer_label, answer_value) = stated[0], stated[1]
            if _same_label(gold_label, answer_label):
                return self.same(gold_value, answer_value)
            if has(gold_label, "label") or has(answer_label, "label"):
                if gold_label.op == answer_label.op and None not in (gold_label.value, answer_label.value):
                    return gold_label.value == answer_label.value and self.same(gold_value, answer_value)
                return self.same(gold_value, answer_value)
        signs = [node.value for node in (gold, answer)]
        if signs[0] == signs[1] == ("=",):
            if stated[0] is not None and not has_symbols(stated[0][1]) and not _is_solved(answer):
                return False  # x = 11 - 2x + 4 says the problem again, it does not say x = 5
            return self.same_equation(gold, answer)
        if any(sign in _TURNABLE for node in (gold, answer) for sign in signs_of(node)):
            return self.same_sides(gold, answer)
        variables = [set(symbols_of(node)) for node in (gold, answer)]
        regions = self.region(gold), self.region(answer)
        if regions[0] is not None and regions[1] is not None:
            return variables[0] == variables[1] and self.same_pieces(regions[0], regions[1])
        if ("=",) in signs or regions[0] is not None:  # 2x > 4 is the problem of which x > 2 is the answer
            return False
        return self.same_inequality(gold, answer)

    def same_sides(self, gold: Node, answer: Node) -> bool:
        """Whether two relations that are not solved, such as `AB \\perp CD`, have the same sides. Their sides may be turned."""
        if gold.value != answer.value or len(gold.args) != len(answer.args):
            return False
        turned = answer.args[::-1] if set(signs_of(gold)) <= _TURNABLE else answer.args
        return gold == answer or any(all(map(self.is_same, gold.args, args)) for args in (answer.args, turned))

    def same_equation(self, gold: Node, answer: Node) -> bool:
        """Whether one is a constant multiple of the other, or of its product with denominators."""
        if not all(side.op in EXPRESSIONS for side in (*gold.args, *answer.args)):
            pairs = zip(gold.args, answer.args, strict=True)
            return all(self.same(one, other) for one, other in pairs)
        forms = [Node("add", (node.args[0], Node("neg", (node.args[1],)))) for node in (gold, answer)]
        factor = self.constant_factor(*forms)
        if factor is not None:
            return True
        cleared = [numerator_of(form) for form in forms]
        return cleared != forms and self.constant_factor(*cleared) is not None

    def same_inequality(self, gold: Node, answer: Node) -> bool:
        """One inequality with several variables is a positive multiple of the other."""
        forms, signs = [], []
        if len(gold.args) == len(answer.args) > 2:
            turned = replace(answer, args=answer.args[::-1], value=tuple(map(flipped, answer.value[::-1])))  # pyright: ignore
            return any(
                gold.value == other.value and all(map(self.is_same, gold.args, other.args))
                for other in (answer, turned)
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


def _is_solved(node: Node) -> bool:
    """Whether an equation with one symbol says its value: x = 5, 5 = x, x - 5 = 0."""
    for one, other in (node.args, node.args[::-1]):
        if one.op == "symbol" and not has_symbols(other):
            return True
        symbols = [part for part in one.args if has_symbols(part)] if one.op == "add" else []
        if other == Node("number", value=other.value) and other.value == 0 and len(symbols) == 1:
            return symbols[0].op == "symbol"
    return False


def _same_label(one: Node, other: Node) -> bool:
    if one == other:
        return True
    return {one.op, other.op} == {"symbol", "call"} and "y" in (one.value, other.value)
