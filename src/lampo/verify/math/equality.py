r"""Whether two final answers are the same mathematics.

Answers are compared by value and by kind: numbers and expressions by their values, sets without order, tuples with it,
intervals with their ends, equations up to a constant factor, quantities with their units. Rational numbers are compared
exactly. Other values are computed with as many digits as it takes for no term to be lost (`Values.digits`), never by
floats; expressions with variables are compared at points drawn from a hash of both texts. No simplifier is involved,
so the time is bounded by the length of the texts and by the limits below.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

from .domains import without_domain
from .expressions import DOTS_SYMBOL, NAMED_SETS
from .labels import is_label, solutions
from .latex import read_answer
from .matrices import folded, unread_sides, without_unread_sides
from .parts import (
    EXPRESSIONS,
    has,
    has_symbols,
    infinite_sign,
    is_infinite,
    scaled_matrix,
    signs_of,
    symbols_of,
    with_each_sign,
)
from .points import BASE_DIGITS
from .prose import Sentence, read_sentence
from .regions import Regions
from .relations import Relations
from .tree import MAX_ITEMS, Malformed, Node, TooLarge, Undecided, Undefined, Unsupported, number
from .typesetting import clean_answer, words_of
from .unread import may_be_unread
from .values import Values, begin_work, close

MAX_COMPARED = 500_000
"""Digits that are looked at to find the repeats of a list, where each irrational member is compared with each."""


WRITTEN_SO = "the same expression, whose value is not computed"
SENTENCE = "the same sentence"


def equal(gold: str, answer: str, tolerance: float = 0.0) -> tuple[bool | None, str]:
    r"""Whether an answer is the gold answer, None where that cannot be told. And why, where that is not obvious.

    >>> equal(r"\frac{1}{3}", "0.333333")[0], equal(r"2\sqrt{3}", r"\sqrt{12}")[0], equal(r"\frac{1}{", "2")[0]
    (False, True, None)
    """
    begin_work()
    gold_tree = None
    try:
        gold_tree = read_answer(gold)
        if not _Comparison(gold, gold).same(gold_tree, gold_tree):
            raise Undecided("it is not equal to itself")
    except (Malformed, Unsupported, Undecided, TooLarge, Undefined) as error:
        if gold_tree is not None and not isinstance(error, Undefined) and _is_written_so(answer, gold_tree):
            return True, WRITTEN_SO  # 2013^{4025}
        if (sentence := read_sentence(gold)) is not None:
            return _same_sentence(sentence, answer)
        return None, f"the gold answer cannot be read: {error}"
    begin_work()
    try:
        answer_tree = read_answer(_with_unit_of(gold_tree, answer))
        dots = [DOTS_SYMBOL in symbols_of(tree) for tree in (gold_tree, answer_tree)]
        if dots == [False, True]:
            raise Unsupported("the dots of a sum")
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
    if not same and dots[0]:
        return None, "the gold answer is a series of which a part is written out"
    if not same and gold_tree.op == "text" and len(str(gold_tree.value).split()) > _MAX_WORDS:
        return None, "the gold answer is a sentence, and this is another one"
    return same, ""


def _is_written_so(answer: str, tree: Node) -> bool:
    """Whether an answer is read into this very tree, with no part that is passed over."""
    try:
        return not has(tree, "label") and read_answer(answer) == tree
    except (Malformed, Unsupported, TooLarge):
        return False


def _same_sentence(gold: Sentence, answer: str) -> tuple[bool | None, str]:
    """Whether an answer is the same sentence, with formulas of the same values."""
    try:
        formulas = list(map(read_answer, gold.formulas))
    except (Malformed, Unsupported, TooLarge) as error:
        return None, f"the gold answer cannot be read: in a sentence, {error}"
    given = read_sentence(answer)
    if given is None or given.words != gold.words:
        return None, "the gold answer is a sentence, and this is another one"
    begin_work()
    try:
        for formula, gold_text, text in zip(formulas, gold.formulas, given.formulas, strict=True):
            tree = read_answer(text)
            if not _Comparison(gold_text, text).same_form(formula, tree):
                return False, ""
            if has(tree, "label") and _bare(text) != _bare(gold_text):
                return None, "the gold answer is a sentence with a formula that is not read"
    except (Malformed, Unsupported, Undecided, TooLarge, Undefined) as error:
        return None, f"not decided: {error}"
    return True, SENTENCE


_OF_PARTS = frozenset(("family", "setof", "cases"))
_MAX_WORDS = 6
_SPEED = re.compile(r"(?<=[0-9}) ])([ckm]?m|mi|ft)\s*/\s*(s|sec|h|hr|min)(\^\{?2\}?)?\s*\Z")
_LONE_LETTERS = re.compile(r"(?<=[0-9}) ])([A-Za-z]{1,2})(\^\{?[0-9]\}?)?\s*\Z")


def _with_unit_of(gold: Node, answer: str) -> str:
    """Letters behind a number, such as the m in 5 m, are a unit and no variable where the gold answer has a unit."""
    if gold.op == "quantity" and (match := _LONE_LETTERS.search(answer)):
        return f"{answer[: match.start()]} \\text{{ {match[1]}}}{match[2] or ''}"
    if not has_symbols(gold) and (match := _SPEED.search(answer)):
        return f"{answer[: match.start()]} \\text{{ {match[1]}/{match[2]}}}{match[3] or ''}"
    return answer


class _Comparison(Relations, Regions):
    """Compares two answers by their kind."""

    def same(self, gold: Node, answer: Node) -> bool:
        """Whether two trees are the same answer."""
        same = self.same_by_kind(gold, answer)
        if same and "relation" in (gold.op, answer.op):
            unread = unread_sides(gold), unread_sides(answer)
            if unread[0] and unread[1] and unread[0] != unread[1]:
                raise Undecided("what is left of the equality sign is not read")
        return same

    def same_by_kind(self, gold: Node, answer: Node) -> bool:
        """See `same`, which also looks at sides that are passed over here."""
        gold, answer = (self.tidy(self.solved(self.simplified(node))) for node in (gold, answer))
        parts = without_domain(gold), without_domain(answer)
        if parts[0] is not None or parts[1] is not None:
            return self.same_where(gold, answer, *parts)
        if "text" in (gold.op, answer.op):
            return _plain_words(gold) == _plain_words(answer) != ""
        is_told_by_parts = {gold.op, answer.op} & _OF_PARTS and "relation" not in (gold.op, answer.op)
        if is_told_by_parts or (gold.op == "sequence" and has(gold, "ellipsis")):
            return self.same_parts(gold, answer)
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
        if (is_infinite(gold) or is_infinite(answer)) and infinite_sign(gold) is not None:
            return infinite_sign(gold) == infinite_sign(answer)
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

    def same_form(self, gold: Node, answer: Node) -> bool:
        """Whether two trees are the same with all sides of their relations, of which `same` may look at the last alone."""
        if gold == answer:
            return True
        if not has(gold, "relation") and not has(answer, "relation"):
            return self.is_same(gold, answer)
        if (gold.op, gold.value, len(gold.args)) != (answer.op, answer.value, len(answer.args)):
            return False
        return all(map(self.same_form, gold.args, answer.args))

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

    def simplified(self, node: Node) -> Node:
        """An answer with its matrices multiplied out, and an identity such as `(x+1)^2 = x^2+2x+1` as its last side."""
        node = folded(without_unread_sides(self.once(node)))
        if set(signs_of(node)) != {"="}:
            return node
        first, last = node.args[0], node.args[-1]
        if is_label(first) or is_label(last) or not (has_symbols(first) and has_symbols(last)):
            return node
        if not all(side.op in EXPRESSIONS for side in node.args) or is_infinite(first) or is_infinite(last):
            return node
        try:
            return last if all(self.same_value(side, last) for side in node.args[:-1]) else node
        except (Undefined, TooLarge):
            return node

    def same_parts(self, gold: Node, answer: Node) -> bool:
        """Compare what is told by its parts in one form only: sets by a rule, families of sets, cases, and lists with dots."""
        if gold == answer:
            return True
        same = False
        if gold.op == answer.op and gold.value == answer.value and len(gold.args) == len(answer.args):
            if gold.op == "cases":
                same = self.same_members(_branches(gold), _branches(answer))
            elif gold.op == "setof":
                same = self.is_same(gold.args[0], answer.args[0]) and self.same_members(gold.args[1:], answer.args[1:])
            else:
                same = all(
                    one == other or self.is_same(one, other) for one, other in zip(gold.args, answer.args, strict=True)
                )
        if not same and (gold.op in _OF_PARTS or has(gold, "ellipsis")):
            raise Undecided("the gold answer in another form")
        return same

    def solved(self, node: Node) -> Node:
        """A list p = 5, q = 2, p = 7, q = 2 as the tuples of its values. All else as it is."""
        is_list = node.op == "sequence" and node.value in ("", "and")
        return (solutions(node, self.stated) or node) if is_list else node

    def tidy(self, node: Node) -> Node:
        """Write out plus-minus signs, and leave out the repeats of a list. A list of one is its item."""
        if node.op == "quantity" and has(node, "pm"):
            inner = self.tidy(node.args[0])
            return Node("sequence", tuple(replace(node, args=(arg,)) for arg in inner.args), "")
        if node.op in ("pm", "relation") or node.op in EXPRESSIONS or node.value == "()":
            options = list(with_each_sign(node))
            if len(options) > 1:
                return self.tidy(Node("sequence", tuple(options), ""))
            if node.op == "mul" and (scaled := scaled_matrix(node)) is not None:
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
        plain = [item.op in EXPRESSIONS and not has_symbols(item) and not is_infinite(item) for item in items]
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
        return all(node.op in EXPRESSIONS - {"degree"} for node in bare) and self.same(bare[0], bare[1])

    def congruent(self, gold: Node, answer: Node, modulus: str) -> bool:
        """Whether 12 (mod 7) is 5 (mod 7)."""
        values = [Values(BASE_DIGITS, {}).of(node) for node in (gold, answer) if not has_symbols(node)]
        if len(values) < 2 or not modulus[4:].isdigit() or not all(isinstance(value, Fraction) for value in values):
            raise Undecided("two values that may be congruent")
        return int(modulus[4:]) > 0 and (values[0] - values[1]) % int(modulus[4:]) == 0


def _branches(node: Node) -> tuple[Node, ...]:
    """Each value with its condition as a tuple."""
    pairs = zip(node.args[::2], node.args[1::2], strict=True)
    return tuple(Node("sequence", pair, "()") for pair in pairs)


def _is_set(node: Node) -> bool:
    return str(node.value)[:1] in NAMED_SETS


def _bare(text: str) -> str:
    return re.sub(r"\s", "", clean_answer(text))


def _as_text(answer: str) -> Node:
    return Node("text", value=words_of(clean_answer(answer)))


def _plain_words(node: Node) -> str:
    if node.op == "text":
        words = re.sub(r"\s*(?:,| and )\s*(?:and )?", ",", str(node.value))
        words = re.sub(r"[\"'.!]|^the |^an? ", "", words.strip(), flags=re.IGNORECASE)
        words = re.sub(r"(?<=[(\[])\s+|\s+(?=[)\]])", "", words)
        match = re.fullmatch(r"\(?([A-Za-z])\)?", words)
        return match[1] if match else " ".join(words.split()).casefold()
    if node.op == "symbol":
        return str(node.value)
    if node.op == "constant" and node.value in ("e", "i"):
        return str(node.value)
    return ""
