r"""Final answers as mathematicians write them (LaTeX, or plain text) read into a small tree.

Nothing here is evaluated. Only known commands are read, so a tree holds nothing but mathematics, and its size is
bounded by the length of the text.
"""

from __future__ import annotations

import re
from fractions import Fraction

from .expressions import Expressions
from .sentences import with_domain_as_set, without_lead_in
from .tokens import DOTS, SEPARATORS, tokens_of
from .tree import MAX_ITEMS, MAX_LENGTH, Malformed, Node, TooLarge, Unsupported, number
from .typesetting import NUMBER_WORDS, clean_answer, is_words, words_of
from .units import SCALES, Unit, read_unit

_RELATIONS = {
    "=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", r"\le": "<=", r"\ge": ">=", r"\ne": "!=",
    r"\less": "<", r"\greater": ">", r"\approx": "~", r"\in": "in", r"\equals": "=", r"\notin": "notin",
    r"\leftrightarrow": "<->", r"\perp": "perp", r"\parallel": "parallel",
}  # fmt: skip
_ALL_REALS = frozenset(("all real numbers", "all reals", "real numbers", "the real numbers", "all real values"))
_NO_SOLUTION = frozenset(("no solution", "no solutions", "no real solutions", "no real solution", "empty set"))
_COMMAND = re.compile(r"\\[A-Za-z]+")
_CLOCK = re.compile(
    r"([0-9]{1,2})\s*:\s*([0-5][0-9])(?:\s*:\s*([0-5][0-9]))?\s*([ap])?\.?\s*(?:m\b\.?)?", re.IGNORECASE
)
_ENDERS = frozenset(
    ("end", ")", "]", r"\}", "}", r"\rangle", r"\vert", ":", r"\not", "&", r"\\", r"\end", *SEPARATORS, *_RELATIONS)
)
"""What may stand behind a side."""
_NAMED_POINT = re.compile(r"\?[A-Z]'*(?:_[A-Za-z0-9]+)?")
_LEAD_IN = re.compile(
    r"(?:\A|\s)(?:is|are|be|answer|equals|gives|get|answers|thus|so|hence|therefore|approximately)\s*:?\s*\Z|:\s*\Z",
    re.IGNORECASE,
)


def read_answer(text: str) -> Node:
    r"""The tree of a final answer.

    Raises:
        Malformed, Unsupported, TooLarge: see there.

    >>> read_answer(r"\frac12").args[1].value, read_answer(r"x \in [0, 1)").args[1].value
    (Fraction(2, 1), '[)')
    """
    if len(text) > MAX_LENGTH:
        raise TooLarge(f"more than {MAX_LENGTH} characters")
    clean = clean_answer(text)
    if "\x00" in text:
        raise Malformed("a zero byte")
    if not clean:
        raise Malformed("nothing is there")
    words = words_of(clean)
    if (clock := _CLOCK.fullmatch(words)) and (":" in words):
        hour, minute, second, half = clock.groups()
        return Node("text", value=f"{int(hour)}:{minute}:{second or '00'} {(half or '').lower()}".strip())
    if is_words(clean, words):
        return _text_node(words)
    try:
        return _Answer(tokens_of(with_domain_as_set(without_lead_in(clean)))).whole()
    except RecursionError:  # of bars and commands, which are not counted as brackets are
        raise TooLarge("nested too deep") from None
    except Malformed:
        if re.search(r"[A-Za-z]{3}", words) and re.fullmatch(r"[\w\s.,'&()-]+", words) and not _COMMAND.search(words):
            return _text_node(words)
        raise


def is_readable(text: str) -> bool:
    """Whether `read_answer` reads a text."""
    try:
        read_answer(text)
    except (Malformed, Unsupported, TooLarge):
        return False
    return True


def _text_node(words: str) -> Node:
    key = words.casefold()
    if key in NUMBER_WORDS:
        return number(NUMBER_WORDS[key])
    if key in _ALL_REALS:
        return Node("constant", value="R")
    if key in _NO_SOLUTION:
        return Node("constant", value="empty")
    return Node("text", value=words)


class _Answer(Expressions):
    """Lists, relations, sets and quantities: what an answer may be as a whole."""

    def whole(self) -> Node:
        if self.kind == "text" and _LEAD_IN.search(self.token.text):
            self.take()
        self.accept("=", r"\approx")
        answer = self.listing()
        if answer.op == "set":  # alone it says no more than its condition
            answer = answer.args[0]
        if answer.op in ("relation", "sequence") and self.accept(":"):
            answer = Node("restated", (answer, self.listing()))
        self.expect("end")
        return answer

    def listing(self) -> Node:
        """Items between commas, "and" and "or": a sequence without brackets if there is more than one."""
        items, conjunction = [self.item()], True
        while self.kind in SEPARATORS:
            conjunction = conjunction and self.kind == r"\and"
            self.take()
            if self.accept(r"\and", r"\or"):  # ", and"
                pass
            if self.kind in ("end", ")", r"\}", "}", "]"):
                break
            items.append(self.item())
            if len(items) > MAX_ITEMS:
                raise TooLarge(f"more than {MAX_ITEMS} items")
        if len(items) == 1:
            return items[0]
        return Node("sequence", tuple(items), "and" if conjunction else "")

    def item(self) -> Node:
        """A chain of relations, or a single side of one."""
        if self.kind in DOTS and self.tokens[self.position + 1].kind in (*SEPARATORS, ")", r"\}"):
            self.take()
            return Node("ellipsis")
        start = self.position
        try:
            sides = [self.side()]
            if self.kind not in _ENDERS:
                self.expect("end")
        except Malformed:
            sides = [self.label(start)]
        except Unsupported:
            sides = [self.unread_side(start)]
        signs: list[str] = []
        while self.kind in _RELATIONS or self.kind == r"\not":
            negated = self.accept(r"\not")
            sign = _RELATIONS.get(self.take().kind, "")
            signs.append({"=": "!=", "in": "notin"}.get(sign, "") if negated else sign)
            start = self.position
            try:
                sides.append(self.side())
            except Unsupported:
                sides.append(self.unread_side(start, is_last=signs[-1] == "="))
        if (
            not signs
            and sides[0].op == "call"
            and _NAMED_POINT.fullmatch(str(sides[0].value))
            and len(sides[0].args) > 1
        ):
            point = Node("symbol", value=str(sides[0].value)[1:]), Node("sequence", sides[0].args, "()")
            return Node("relation", point, ("=",))  # A(1, 2)
        return Node("relation", tuple(sides), tuple(signs)) if signs else sides[0]

    def label(self, start: int) -> Node:
        """A left-hand side that cannot be read, such as P(X > 1) or the word Area, up to its equality sign."""
        depth, self.position, digits = 0, start, ""
        while self.kind != "end":
            if self.kind == "number":
                if depth == 0 and self.tokens[self.position - 1].kind != "_":
                    break  # "the length is 10 cos 5 = 9.96" names nothing
                digits += self.token.text
            depth += (self.kind in ("(", "[", "{", r"\{")) - (self.kind in (")", "]", "}", r"\}"))
            if depth == 0 and self.kind in ("=", r"\approx") and self.position > start:
                first, last = self.tokens[start].kind, self.tokens[self.position - 1].kind
                if first in ("text", "letter", "[", r"\mathbb") and last in ("text", ")", "]", "}"):
                    return Node("label", value=digits)
                break
            if depth < 0 or (depth == 0 and self.kind in SEPARATORS):
                break
            self.take()
        self.position = start
        return self.side()  # says again what is wrong

    def unread_side(self, start: int, is_last: bool = False) -> Node:
        """A side of mathematics that is not read, such as a sum, where a value follows an equality sign or came before."""
        depth, self.position = 0, start
        while self.kind != "end" and depth >= 0:
            depth += (self.kind in ("(", "[", "{", r"\{")) - (self.kind in (")", "]", "}", r"\}"))
            if depth == 0 and self.kind == "=" and self.position > start:
                return Node("label")
            if depth == 0 and self.kind in SEPARATORS:
                break
            self.take()
        if is_last and depth == 0 and self.kind == "end":
            return Node("label")
        return self.label(start)

    def side(self) -> Node:
        """Sets joined by union, intersection and difference; a single expression, perhaps with a unit, is the rule."""
        left = self.quantity()
        while self.kind in (r"\cup", r"\cap", r"\setminus"):
            op = {r"\cup": "union", r"\cap": "intersection", r"\setminus": "minus"}[self.take().kind]
            left = Node(op, (left, self.quantity()))
        return left

    def quantity(self) -> Node:
        outer, self.currency = self.currency, ""
        if self.kind == "text" and self.tokens[self.position + 1].kind in ("end", *SEPARATORS, ")", r"\}"):
            return _text_node(self.take().text)
        expression = self.ratio()
        if self.accept(r"\pmod", r"\mod"):
            modulus = self.atom()
            if modulus.op not in ("number", "symbol"):
                raise Unsupported("a modulus that is neither a number nor a letter")
            return Node("quantity", (expression,), Unit(Fraction(1), frozenset({(f"mod {modulus.value}", 1)})))
        words = ""
        while self.kind == "text" or (words and self.kind in ("^", "/", "*", r"\cdot")):
            if self.kind == "^":
                words += f"^{self.unit_power()}"
            else:
                words += f" {self.take().text}"
                if words.endswith("/") and self.kind == "letter":
                    words += self.take().text  # km/h
        scale_words, unit_words = [], words.split()
        while unit_words and unit_words[0].casefold().removesuffix("s") in SCALES:
            scale_words.append(SCALES[unit_words.pop(0).casefold().removesuffix("s")])
        for scale in scale_words:
            expression = Node("mul", (expression, number(scale)))
        words = " ".join(unit_words)
        if self.currency:
            if words.startswith(("per ", "/")):
                words = f"{self.currency} {words}"
            elif words.casefold().removesuffix("s") not in ("", self.currency):
                raise Malformed("two units")
            words, self.currency = words or self.currency, outer
        if not words:
            return expression
        unit = read_unit(words, singular=expression == number(1))
        if unit is None:
            raise Malformed(f"{words!r} is no unit")
        return Node("quantity", (expression,), unit)

    def unit_power(self) -> str:
        self.expect("^")
        braced = self.accept("{")
        power = self.take()
        if power.kind != "number" or len(power.text) > 1:
            raise Malformed("a unit with a strange power")
        if braced:
            self.expect("}")
        return power.text

    def ratio(self) -> Node:
        parts = [self.sum()]
        while (
            self.kind == ":"
            and not self.in_set
            and parts[0].op not in ("sequence", "matrix")
            and self.tokens[self.position + 1].kind not in ("=", "(", "[", r"\{")
        ):
            self.take()
            parts.append(self.sum())
        return Node("ratio", tuple(parts)) if len(parts) > 1 else parts[0]

    def items(self) -> tuple[Node, ...]:
        bars, self.in_bars = self.in_bars, False
        currency = self.currency
        inner = self.listing()
        self.in_bars, self.currency = bars, currency
        return inner.args if inner.op == "sequence" and inner.value in ("", "and") else (inner,)

    def bracketed(self, kind: str) -> Node:
        if kind == "]":  # ]1, 2[ is the open interval of some countries
            raise Unsupported("an interval with its brackets turned")
        if self.kind == ")" and kind == "(":
            raise Malformed("nothing in the brackets")
        items = self.items()
        close = self.kind
        if not self.accept("]"):
            self.expect(")")
        if len(items) == 1 and kind + close in ("()", "[]"):
            if items[0].op in ("relation", "sequence"):
                return items[0]
            if kind + close == "()" or items[0].op != "sequence":
                return items[0]
        return Node("sequence", items, kind + close)

    def braced_set(self) -> Node:
        if self.accept(r"\}"):
            return Node("constant", value="empty")
        outer, self.in_set = self.in_set, True
        items = self.items()
        self.in_set = outer
        if self.accept(r"\vert", ":"):
            conditions = self.items()
            self.expect(r"\}")
            return _set_of(items, conditions)
        self.expect(r"\}")
        return Node("sequence", items, "{}")


def _set_of(items: tuple[Node, ...], conditions: tuple[Node, ...]) -> Node:
    r"""A set of what stands before the bar, under the conditions behind it."""
    element = items[0].args[1] if items[0].value == ("in",) else items[0]
    if len(items) == 1 and conditions[0].value == ("=",) and conditions[0].args[0] == element:
        return Node("sequence", (conditions[0].args[1], *conditions[1:]), "{}")
    of_reals = len(items) == 1 and (element.op == "symbol" or element.value == "R")
    if of_reals and all(condition.op == "relation" for condition in conditions):
        return Node("set", (conditions[0] if len(conditions) == 1 else Node("sequence", conditions, "and"),))
    if of_reals and len(conditions) == 1:
        return conditions[0]
    if len(items) == 1 and all(c.value == ("in",) and c.args[1].op == "constant" for c in conditions):
        return Node("sequence", (element, *conditions), "{}")  # {3k | k in Z}
    return Node("setof", (items[0] if len(items) == 1 else Node("sequence", items, ""), *conditions))
