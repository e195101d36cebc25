r"""Final answers as mathematicians write them (LaTeX, or plain text) read into a small tree.

Nothing here is evaluated. Only known commands are read, so a tree holds nothing but mathematics, and its size is
bounded by the length of the text.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from .sentences import with_domain_as_set, without_lead_in
from .tree import MAX_DEPTH, MAX_ITEMS, MAX_LENGTH, Malformed, Node, TooLarge, Unsupported, number
from .typesetting import FUNCTIONS, GREEK, NUMBER_WORDS, clean_answer, is_words, mark_words, words_of
from .units import SCALES, Unit, read_unit, vocabulary


class _Token(NamedTuple):
    kind: str  # number, letter, command, text, or the character itself
    text: str
    spaced: bool = False  # whether white space comes before


_TOKEN = re.compile(
    r"(?P<space>\s*)(?:"
    r"(?P<number>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.(?=[0-9\\])[0-9]*)?|\.(?=[0-9\\])[0-9]*)"
    r"|(?P<command>\\[A-Za-z]+)|(?P<escape>\\\\|\\[{}|%$&#_])"
    r"|(?P<letter>[A-Za-z]'*)|(?P<sign>[<>!]=|[-+*/^_=<>()\[\]{}|,;:!&%\x00]))"
)
_ALIASES = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "leq": "le",
    "leqslant": "le", "geq": "ge", "geqslant": "ge", "neq": "ne", "lvert": "vert", "rvert": "vert", "mid": "vert",
    "lt": "less", "gt": "greater", "land": "and", "lor": "or", "wedge": "and", "vee": "or", "sim": "approx",
    "thickapprox": "approx", "simeq": "approx", "doteq": "approx", "asin": "arcsin", "acos": "arccos",
    "atan": "arctan", "varnothing": "emptyset", "backslash": "setminus", "degree": "circ", "ast": "times",
    "lbrace": "{", "rbrace": "}", "lbrack": "[", "rbrack": "]", "colon": ":", "percent": "%", "dollar": "$",
    "infinity": "infty", "inf": "infty", "bigcup": "cup", "equiv": "equals", "notin": "notin",
    "arsinh": "arcsinh", "arcosh": "arccosh", "artanh": "arctanh", "bigcap": "cap",
}  # fmt: skip
_RELATIONS = {
    "=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", r"\le": "<=", r"\ge": ">=", r"\ne": "!=",
    r"\less": "<", r"\greater": ">", r"\approx": "~", r"\in": "in", r"\equals": "=", r"\notin": "notin",
}  # fmt: skip
_SEPARATORS = frozenset((",", ";", r"\and", r"\or"))
_CLOSING = {")": "(", "]": "[", "}": "{"}
_ALL_REALS = frozenset(("all real numbers", "all reals", "real numbers", "the real numbers", "all real values"))
_NO_SOLUTION = frozenset(("no solution", "no solutions", "no real solutions", "no real solution", "empty set"))
_COMMAND = re.compile(r"\\[A-Za-z]+")
_CLOCK = re.compile(
    r"([0-9]{1,2})\s*:\s*([0-5][0-9])(?:\s*:\s*([0-5][0-9]))?\s*([ap])?\.?\s*(?:m\b\.?)?", re.IGNORECASE
)
_REPEATS = re.compile(r"([0-9]*\.[0-9]*?)([0-9]{1,3}?)\2{2,}")
"""0.333... and 1.2454545...: digits that stand three times and then go on."""
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
        return _Parser(_tokens(with_domain_as_set(without_lead_in(clean)))).whole()
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


def _tokens(clean: str) -> list[_Token]:
    texts: list[str] = []
    marked = mark_words(clean, texts)
    if scientific := re.fullmatch(r"([-+]?[0-9]*\.?[0-9]+)[eE]([-+]?[0-9]{1,4})", clean):
        marked = rf"{scientific[1]} * 10^{{{scientific[2]}}}"
    tokens: list[_Token] = []
    position, depth, opened = 0, 0, []
    marked = marked.rstrip()
    while position < len(marked):
        match = _TOKEN.match(marked, position)
        if match is None:
            raise Malformed(f"{marked[position : position + 10]!r} is not mathematics")
        kind, found, spaced = match.lastgroup, match[match.lastgroup or 0], bool(match["space"])
        position = match.end()
        if kind == "number":
            if "," in found and depth > 0:  # in brackets a comma separates
                first, _, rest = found.partition(",")
                position -= len(rest) + 1
                found = first
            tokens.append(_Token("number", found.replace(",", ""), spaced))
        elif kind == "letter":
            tokens.append(_Token("letter", found, spaced))
        elif kind == "escape":
            found = {r"\|": r"\vert", r"\%": "%", r"\&": r"\and", r"\#": "#"}.get(found, found)
            tokens.append(_Token(found, found, spaced))
        elif kind == "command":
            name = _ALIASES.get(found[1:], found[1:])
            found = f"\\{name}" if name.isalpha() else (f"\\{name}" if name in "{}$" else name)
            tokens.append(_Token(found, found, spaced))
        elif found == "\x00":
            end = marked.index("}", position)
            tokens.append(_Token("text", texts[int(marked[position + 1 : end])], spaced))
            position = end + 1
        else:
            tokens.append(_Token(r"\vert" if found == "|" else found, found, spaced))
        last = tokens[-1].kind
        if last in ("(", "[", r"\{", r"\langle", "{", r"\lfloor", r"\lceil"):
            opened.append(last)
        elif last in (")", "]", r"\}", r"\rangle", "}", r"\rfloor", r"\rceil"):
            if not opened:
                raise Malformed("a bracket is closed that was not opened")
            opened.pop()
        depth = sum(1 for bracket in opened if bracket != "{")
        if len(opened) > MAX_DEPTH:
            raise TooLarge("nested too deep")
    if opened:
        raise Malformed("a bracket is not closed")
    behind = [*(token.kind for token in tokens[1:]), ","]
    return [  # a secant of nothing is a second
        _Token("text", "sec") if token.kind == r"\sec" and (kind in _CLOSING or kind in _SEPARATORS) else token
        for token, kind in zip(tokens, behind, strict=False)
    ]


class _Parser:
    """Recursive descent over the tokens of one answer."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = [*tokens, _Token("end", ""), _Token("end", "")]
        self.position = 0
        self.in_bars = False
        self.in_set = False
        self.currency = ""
        self.bound: set[str] = set()
        """Variables of the sums that are read."""

    # Tokens

    @property
    def kind(self) -> str:
        return self.tokens[self.position].kind

    @property
    def token(self) -> _Token:
        return self.tokens[self.position]

    def take(self) -> _Token:
        self.position += 1
        return self.tokens[self.position - 1]

    def accept(self, *kinds: str) -> bool:
        if self.kind in kinds:
            self.position += 1
            return True
        return False

    def expect(self, kind: str) -> None:
        if not self.accept(kind):
            if self.kind[1:] in _OTHER_MATHEMATICS:
                raise Unsupported(f"the command {self.kind}")
            raise Malformed(f"{kind} expected instead of {self.token.text or 'the end'!r}")

    # Lists, relations and sets

    def whole(self) -> Node:
        if self.kind == "text" and _LEAD_IN.search(self.token.text):
            self.take()
        self.accept("=", r"\approx")
        answer = self.listing()
        if answer.op in ("relation", "sequence") and self.accept(":"):
            answer = Node("restated", (answer, self.listing()))
        self.expect("end")
        return answer

    def listing(self) -> Node:
        """Items between commas, "and" and "or": a sequence without brackets if there is more than one."""
        items, conjunction = [self.item()], True
        while self.kind in _SEPARATORS:
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
        start = self.position
        try:
            sides = [self.side()]
            if self.kind not in _RELATIONS and self.kind not in self.enders():
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
        return Node("relation", tuple(sides), tuple(signs)) if signs else sides[0]

    @staticmethod
    def enders() -> frozenset[str]:
        return _SEPARATORS | {"end", ")", "]", r"\}", "}", r"\rangle", r"\vert", ":", r"\not", "&", r"\\"}

    def label(self, start: int) -> Node:
        """A left-hand side that cannot be read, such as P(X > 1) or the word Area, up to its equality sign."""
        depth, self.position = 0, start
        while self.kind != "end":
            depth += (self.kind in ("(", "[", "{", r"\{")) - (self.kind in (")", "]", "}", r"\}"))
            if depth == 0 and self.kind in ("=", r"\approx") and self.position > start:
                first, last = self.tokens[start].kind, self.tokens[self.position - 1].kind
                if first in ("text", "letter", r"\mathbb") and last in ("text", ")", "]", "}"):
                    return Node("label")
                break
            if depth < 0 or (depth == 0 and self.kind in _SEPARATORS):
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
            if depth == 0 and self.kind in _SEPARATORS:
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
        if self.kind == "text" and self.tokens[self.position + 1].kind in ("end", *_SEPARATORS, ")", r"\}"):
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

    # Expressions

    def sum(self) -> Node:
        """Terms; or what stands above and below in the old notations of TeX, `1 \\over 2` and `5 \\choose 2`."""
        above = self.terms()
        if self.accept(r"\bmod"):
            above = Node("call", (above, self.product()), "mod")
            if above.args[0].op == "add" or self.kind in ("+", "-", r"\bmod"):
                raise Unsupported("a remainder within a sum")
        if self.accept(r"\over"):
            return Node("div", (above, self.terms()))
        if self.accept(r"\choose"):
            return Node("call", (above, self.terms()), "binom")
        return above

    def terms(self) -> Node:
        terms: list[Node] = []
        while True:
            sign = ""
            while self.kind in ("+", "-", r"\pm", r"\mp"):
                if sign and (sign not in "+-" or self.kind not in "+-"):
                    raise Malformed("two signs")
                sign = {"+-": "-", "-+": "-", "--": "+"}.get(sign + self.kind, self.kind)
                self.take()
            if terms and not sign:
                return terms[0] if len(terms) == 1 else Node("add", tuple(terms))
            term = self.product()
            if sign == "-":
                term = Node("neg", (term,)) if term.op != "degree" else Node("degree", (Node("neg", term.args),))
            elif sign in (r"\pm", r"\mp"):
                term = Node("pm", (term,), 1 if sign == r"\pm" else -1)
            terms.append(term)
            if self.kind not in ("+", "-", r"\pm", r"\mp"):
                return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def product(self) -> Node:
        result = last = self.factor()
        while True:
            if self.accept("*", r"\cdot", r"\times"):
                last = self.signed_factor()
                result = Node("mul", (result, last))
            elif self.accept("/", r"\div"):
                last = self.signed_factor()
                result = Node("div", (result, last))
            elif self.starts_factor():
                before, token = self.tokens[self.position - 1], self.token
                mixed = self.mixed(result, before)
                if mixed is not None:
                    result = mixed
                    continue
                if token.kind == "number" and (before.kind == "%" or last.op in _NO_NUMBER_BEHIND):
                    raise Malformed("two numbers side by side")
                last = self.factor()
                result = Node("mul", (result, last))
            else:
                return result

    def mixed(self, whole: Node, before: _Token) -> Node | None:
        """The mixed number 3 1/2, if a whole number is followed by a proper fraction of numerals."""
        if before.kind != "number" or whole.op != "number" or not _is_whole(whole):
            return None
        start = self.position
        if self.kind == r"\frac":
            part = self.atom()
        elif self.kind == "number" and self.tokens[start + 1].kind == "/" and self.tokens[start + 2].kind == "number":
            numerator = self.atom()
            self.take()
            part = Node("div", (numerator, self.atom()))
        else:
            return None
        if part.op == "div" and all(arg.op == "number" and _is_whole(arg) for arg in part.args):
            numerator, denominator = (arg.value for arg in part.args)
            if 0 < numerator < denominator and self.kind != "^":  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]
                return Node("add", (whole, part))
        self.position = start
        return None

    def starts_factor(self) -> bool:
        kind = self.kind
        if kind == r"\vert":
            return not self.in_bars and self.closing_bar()
        if kind in ("number", "letter", "(", "{", "[", *_CURRENCIES):
            return True
        return kind.startswith("\\") and kind[1:] in _ATOMS

    def closing_bar(self) -> bool:
        return any(token.kind == r"\vert" for token in self.tokens[self.position + 1 :])

    def signed_factor(self) -> Node:
        if self.accept("-"):
            return Node("neg", (self.signed_factor(),))
        self.accept("+")
        return self.factor()

    def factor(self) -> Node:
        """An atom with what is behind it: powers, factorials, percent and degree signs."""
        if self.kind in _CURRENCIES:
            self.currency = _CURRENCIES[self.take().kind]
        if self.kind in _FUNCTION_COMMANDS:
            return self.function()
        base = self.atom()
        while True:
            if self.accept("!"):
                base = Node("call", (base,), "factorial")
            elif self.accept("%"):
                base = Node("div", (base, number(100)))
            elif self.kind == r"\circ":
                self.take()
                base = Node("degree", (base,))
            elif self.kind == "^":
                base = Node("degree", (base,)) if self.accept_degree() else Node("pow", (base, self.script()))
            else:
                return base

    def accept_degree(self) -> bool:
        kinds = [token.kind for token in self.tokens[self.position : self.position + 4]]
        for pattern in (["^", r"\circ"], ["^", "{", r"\circ", "}"]):
            if kinds[: len(pattern)] == pattern:
                self.position += len(pattern)
                return True
        return False

    def script(self) -> Node:
        """What stands behind ^ or _."""
        self.take()
        if self.accept("{"):
            inner = self.sum()
            self.expect("}")
            return inner
        if self.kind in ("-", "+"):  # 10^-2 is plain text
            return self.signed_factor_atom()
        if self.kind == "number" and len(self.token.text) > 1 and "." not in self.token.text:
            return self.atom()  # 2^10 is plain text; TeX would raise the 1 only, and nobody means that
        return self.argument()

    def signed_factor_atom(self) -> Node:
        negative = self.take().kind == "-"
        inner = self.atom()
        return Node("neg", (inner,)) if negative else inner

    def argument(self) -> Node:
        r"""An argument of a command: a group, or a single token (`\frac12`)."""
        if self.accept("{"):
            inner = self.sum()
            self.expect("}")
            return inner
        if self.kind == "number" and len(self.token.text) > 1:
            token = self.token
            self.tokens[self.position : self.position + 1] = [
                _Token("number", token.text[0], token.spaced),
                _Token("number", token.text[1:], False),
            ]
        if self.kind in _FUNCTION_COMMANDS:
            return self.function()
        return self.atom()

    def function(self) -> Node:
        name = self.take().kind[1:]
        power: Node | None = None
        base: Node | None = None
        while self.kind in ("^", "_"):
            if self.kind == "^":
                power = self.script()
            else:
                base = self.script()
        if self.kind in ("(", "[", "{", r"\{"):
            close = {"(": ")", "[": "]", "{": "}", r"\{": r"\}"}[self.take().kind]
            bars, self.in_bars = self.in_bars, False
            args = [self.sum()]
            while self.accept(","):
                args.append(self.sum())
            self.in_bars = bars
            self.expect(close)
            if self.kind == "^" and power is None and not self.accept_degree():
                power = self.script()
        else:
            args = [self.function_argument()]
        if power is not None and name in _INVERSES and power == Node("neg", (number(1),)):
            return Node("call", tuple(args), f"arc{name}")
        if base is not None:
            if name != "log" or len(args) != 1:
                raise Unsupported(f"a subscript of {name}")
            args.append(base)
        many = name in ("gcd", "lcm", "max", "min")
        if len(args) != 1 + (base is not None) and not many:
            raise Malformed(f"{name} of {len(args)} arguments")
        call = Node("call", tuple(args), name)
        return call if power is None else Node("pow", (call, power))

    def function_argument(self) -> Node:
        r"""The argument of a function without brackets: `\sin 2x \cos x` is a product of two."""
        if self.kind == "-":
            return self.signed_factor()
        if self.kind in _FUNCTION_COMMANDS:
            return self.function()
        result = self.factor()
        while self.starts_factor() and self.kind not in _FUNCTION_COMMANDS and self.kind not in ("(", r"\vert"):
            result = Node("mul", (result, self.factor()))
        if self.kind == "/" and self.tokens[self.position + 1].kind == "number" and result.op != "number":
            self.take()  # cos pi/7
            result = Node("div", (result, self.factor()))
        return result

    def atom(self) -> Node:
        token = self.take()
        kind, text = token.kind, token.text
        if kind == "number":
            return self.numeral(text)
        if kind == "letter":
            return self.letter(text)
        if kind == "{":
            inner = self.listing()
            self.expect("}")
            return inner
        if kind in ("(", "[", "]"):
            return self.bracketed(kind)
        if kind == "text" and re.fullmatch(r"[A-Za-z0-9]+", text) and self.kind == "_":
            return self.in_base(text)
        if kind == r"\{":
            return self.braced_set()
        if kind == r"\langle":
            inner = self.items()
            self.expect(r"\rangle")
            return Node("sequence", inner, "()")
        if kind == r"\vert":
            bars, self.in_bars = self.in_bars, True
            inner = self.sum()
            self.in_bars = bars
            self.expect(r"\vert")
            return Node("call", (inner,), "det" if inner.op == "matrix" else "abs")
        if kind in (r"\lfloor", r"\lceil"):
            inner = self.sum()
            self.expect(r"\rfloor" if kind == r"\lfloor" else r"\rceil")
            return Node("call", (inner,), "floor" if kind == r"\lfloor" else "ceil")
        if kind.startswith("\\"):
            return self.command(kind[1:])
        raise Malformed(f"{text or 'the end'!r} is out of place")

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
            element = items[0].args[1] if items[0].value == ("in",) else items[0]
            if len(items) == 1 and conditions[0].value == ("=",) and conditions[0].args[0] == element:
                return Node("sequence", (conditions[0].args[1], *conditions[1:]), "{}")
            if len(items) == len(conditions) == 1 and (element.op == "symbol" or element.value == "R"):
                return conditions[0]
            raise Unsupported("a set of this form")
        self.expect(r"\}")
        return Node("sequence", items, "{}")

    def numeral(self, text: str) -> Node:
        if len(text) > 1000:
            raise TooLarge("a numeral of more than 1000 digits")
        if self.kind in (r"\overline", r"\dot", r"\bar") and "." in text:
            self.take()
            repeated = self.take()
            if repeated.kind == "{":
                repeated = self.take()
                self.expect("}")
            if repeated.kind != "number" or not repeated.text.isdigit():
                raise Malformed("a repeating decimal without digits")
            decimals = len(text.partition(".")[2])
            period = Fraction(int(repeated.text), 10 ** len(repeated.text) - 1) / 10**decimals
            return number(Fraction(f"{text}0" if text.endswith(".") or text == "." else text) + period)
        if (based := self.based(text)) is not None:
            return based
        if text.endswith("."):
            raise Malformed("a point without digits")
        if self.kind == r"\ldots" and (repeats := _REPEATS.fullmatch(text)):
            self.take()
            first, period = repeats[1], repeats[2]
            return number(
                Fraction(first + "0")
                + Fraction(int(period), 10 ** len(period) - 1) / 10 ** len(first.partition(".")[2])
            )
        return number(Fraction(text))

    def based(self, digits: str) -> Node | None:
        """A numeral with a base, 1F_16 or A5_{11}, of which the first digits are read; None if there is no base."""
        start = self.position
        while self.token.text in _LETTER_DIGITS or (self.kind == "number" and digits[-1] in _LETTER_DIGITS):
            digits += self.take().text
        if self.kind == "_" and not digits.isalpha():
            return self.in_base(digits)
        self.position = start
        return None

    def in_base(self, digits: str) -> Node:
        base = self.script()
        if base.op == "text" or base.op != "number" or not _is_whole(base):
            raise Malformed("a numeral with a strange subscript")
        assert isinstance(base.value, Fraction)
        try:
            return number(int(digits, int(base.value)) if 2 <= base.value <= 36 else int("no"))
        except ValueError:
            raise Malformed(f"{digits} is no numeral in base {base.value}") from None

    def letter(self, name: str) -> Node:
        if name in _LETTER_DIGITS and (based := self.based(name)) is not None:
            return based
        if self.kind == "_":
            name += f"_{self.subscript()}"
        elif name == "i" and name not in self.bound:
            return Node("constant", value="i")
        elif name == "e":
            return Node("constant", value="e")
        ahead = [token.text for token in self.tokens[self.position : self.position + 6]]
        if name in "fgh" and ahead == ["^", "{", "-", "1", "}", "("]:
            self.position += 5
            return self.application(f"{name}^-1")
        kinds = [token.kind for token in self.tokens[self.position : self.position + 5] if token.kind != "-"]
        names_function = kinds[:1] == ["("] and kinds[1:4] in (["letter", ")", "="], ["number", ")", "="])
        if names_function or (name[0] in "fghFGHPQ" and self.kind == "(" and len(name.rstrip("'")) == 1):
            return self.application(name)  # p(x) = ..., p(-1) = ..., f(x)
        return Node("symbol", value=name)

    def application(self, name: str) -> Node:
        """f(x): a function that is not known, unless what follows is a product such as P(1 + r)."""
        start = self.position
        self.take()
        args = self.items()
        self.expect(")")
        if name[0] in "PQFGH" and any(arg.op == "add" for arg in args):
            self.position = start
            return Node("symbol", value=name)
        return Node("call", args, f"?{name}")

    def subscript(self) -> str:
        self.take()
        return self.argument_text()

    def argument_text(self) -> str:
        if not self.accept("{"):
            return self.take().text
        depth, parts = 1, []
        while self.kind != "end":
            depth += (self.kind == "{") - (self.kind == "}")
            token = self.take()
            if depth == 0:
                return "".join(parts)
            parts.append(token.text)
        raise Malformed("a brace is not closed")

    def command(self, name: str) -> Node:
        if name == "frac":
            return Node("div", (self.argument(), self.argument()))
        if name == "binom":
            return Node("call", (self.argument(), self.argument()), "binom")
        if name == "sqrt":
            return self.root()
        if name in ("pi", "infty", "emptyset"):
            return Node("constant", value={"pi": "pi", "infty": "oo", "emptyset": "empty"}[name])
        if name in GREEK:
            return self.letter(f"\\{name}")
        if name == "mathbb":
            letter = self.argument_text()
            if letter in NAMED_SETS:
                sign = self.set_sign()
                if letter == "R" and sign in ("+", "-"):
                    zero, infinity = number(0), Node("constant", value="oo")
                    ends = (zero, infinity) if sign == "+" else (Node("neg", (infinity,)), zero)
                    return Node("sequence", ends, "()")
                return Node("constant", value=f"{letter}{sign}")
            if letter == "P":
                raise Malformed("a probability")
            raise Unsupported(f"the set {letter}")
        if name in ("vec", "hat", "overrightarrow", "overline", "bar", "widehat", "mathcal", "tilde", "dot"):
            return Node("symbol", value=f"{name} {self.argument_text()}")
        if name in ("angle", "triangle"):
            letters = ""
            while self.kind == "letter":
                letters += self.take().text
            return Node("symbol", value=f"{name} {letters}")
        if name == "begin":
            return self.matrix()
        if name in ("sum", "prod"):
            return self.sum_over(name)
        if name == "int":
            return self.integral()
        if name == "lim":
            return self.limit()
        if name == "det":
            return Node("call", (self.argument(),), "det")
        if name in _OTHER_MATHEMATICS:
            raise Unsupported(f"the command \\{name}")
        raise Malformed(f"the command \\{name} is out of place")

    def set_sign(self) -> str:
        """The sign of the positive or negative members of a set, as in \\mathbb{Z}^+ or \\mathbb{R}_{>0}."""
        sign = ""
        while self.kind in ("^", "_") and (found := _SET_SIGNS.get(self.ahead())) is not None:
            sign = found
            self.position += len(self.ahead())
        return sign

    def ahead(self) -> tuple[str, ...]:
        """The signs behind ^ or _, with the braces around them."""
        kinds = [token.kind if token.kind != "number" else token.text for token in self.tokens[self.position :]]
        return tuple(kinds[: kinds.index("}") + 1] if kinds[1:2] == ["{"] and "}" in kinds else kinds[:2])

    def sum_over(self, name: str) -> Node:
        """A sum or product over a range of whole numbers whose ends are plain numbers or infinite."""
        if self.kind != "_":
            raise Unsupported(f"a \\{name} without a range")
        self.take()
        if not self.accept("{"):
            raise Unsupported(f"a \\{name} of this form")
        index = self.bound_name()
        if not self.accept("="):
            raise Unsupported(f"a \\{name} of this form")
        low = self.sum()
        self.expect("}")
        if self.kind != "^":
            raise Unsupported(f"a \\{name} without an upper end")
        high = self.script()
        if not all(is_plain(end) for end in (low, high)):
            raise Unsupported(f"a \\{name} up to a variable")
        self.bound.add(index)
        body = self.product()
        self.bound.discard(index)
        return Node(name, (low, high, body), index)

    def integral(self) -> Node:
        """A definite integral: from, to, and an integrand that ends in the d of a variable."""
        ends: dict[str, Node] = {}
        while self.kind in ("^", "_"):
            place = self.kind
            ends[place] = self.script()
        if set(ends) != {"^", "_"}:
            raise Unsupported("an integral without limits")
        end = self.differential()
        variable = self.tokens[end + 1].text
        self.tokens[end] = _Token("d", "d")
        integrand = number(1) if self.kind == "d" else self.terms()
        self.expect("d")
        self.take()
        return Node("int", (ends["_"], ends["^"], integrand), variable)

    def differential(self) -> int:
        """Where the d of the next differential stands."""
        depth = 0
        for i in range(self.position, len(self.tokens) - 1):
            kind = self.tokens[i].kind
            depth += (kind in ("(", "[", "{", r"\{")) - (kind in (")", "]", "}", r"\}"))
            if depth < 0 or kind == r"\int":
                break
            if depth == 0 and self.tokens[i].text == "d" and self.tokens[i + 1].kind == "letter":
                return i
        raise Unsupported("an integral without a differential")

    def limit(self) -> Node:
        if self.kind != "_":
            raise Unsupported("a limit without a place")
        self.take()
        if not self.accept("{"):
            raise Unsupported("a limit of this form")
        variable = self.bound_name()
        if not self.accept(r"\to", r"\rightarrow"):
            raise Unsupported("a limit of this form")
        place = self.signed_infinity() or self.sum_to_side()
        side = ""
        if self.kind == "^":
            side = self.side_of_limit()
        self.expect("}")
        if not is_plain(place):
            raise Unsupported("a limit at a variable")
        return Node("lim", (place, self.product()), f"{variable}{side}")

    def signed_infinity(self) -> Node | None:
        for kinds, sign in ((["-", r"\infty"], -1), (["+", r"\infty"], 1), ([r"\infty"], 1)):
            if [token.kind for token in self.tokens[self.position : self.position + len(kinds)]] == kinds:
                self.position += len(kinds)
                infinity = Node("constant", value="oo")
                return infinity if sign > 0 else Node("neg", (infinity,))
        return None

    def sum_to_side(self) -> Node:
        """The place of a limit; a ^+ or ^- behind it is its side."""
        for i in range(self.position, len(self.tokens) - 1):
            if self.tokens[i].kind == "^" and self.tokens[i + 1].kind in ("+", "-", "{"):
                sided = self.tokens[i + 1].kind in ("+", "-") or self.tokens[i + 2].kind in ("+", "-")
                if sided and self.tokens[i + 2].kind == "}":
                    self.tokens[i] = _Token("side", "")
                    place = self.sum()
                    self.tokens[i] = _Token("^", "^")
                    return place
        return self.sum()

    def side_of_limit(self) -> str:
        self.take()
        braced = self.accept("{")
        sign = self.take().kind
        if sign not in ("+", "-"):
            raise Unsupported("a limit of this form")
        if braced:
            self.expect("}")
        return sign

    def bound_name(self) -> str:
        if self.kind != "letter":
            raise Unsupported("a bound variable of this form")
        return self.take().text

    def root(self) -> Node:
        degree: Node | None = None
        if self.accept("["):
            degree = self.sum()
            self.expect("]")
        radicand = self.numeral(self.take().text) if self.kind == "number" else self.argument()
        return Node("call", (radicand, degree or number(2)), "root")

    def matrix(self) -> Node:
        name = self.argument_text()
        if name not in ("pmatrix", "bmatrix", "matrix", "smallmatrix", "array", "Bmatrix", "vmatrix"):
            raise Unsupported(f"the environment {name}")
        if name == "array":
            self.argument_text()
        rows: list[list[Node]] = [[]]
        while True:
            rows[-1].append(self.sum())
            if self.accept("&"):
                continue
            if self.accept(r"\\") and self.kind != r"\end":
                rows.append([])
                continue
            self.expect(r"\end")
            self.argument_text()
            break
        if len({len(row) for row in rows}) != 1:
            raise Malformed("a matrix with rows of different lengths")
        matrix = Node("matrix", tuple(entry for row in rows for entry in row), len(rows[0]))
        return Node("call", (matrix,), "det") if name == "vmatrix" else matrix


_OTHER_MATHEMATICS = vocabulary(
    "iint iiint oint limsup liminf sup inf ldots cdots dots dotsc dotsb vdots ddots partial nabla "
    "forall exists subset subseteq supset supseteq perp parallel to rightarrow Rightarrow implies iff "
    "Pr dim ker deg hom nmid oplus otimes circ mapsto prime therefore because star dagger underbrace overbrace "
    "stackrel overset underset substack aleph complement cong propto bullet square top bot"
)
_LETTER_DIGITS = frozenset("ABCDEF")
_CURRENCIES = {r"\$": "dollar", r"\euro": "euro", r"\pounds": "pound"}
_NO_NUMBER_BEHIND = vocabulary("number neg symbol degree")
"""Factors that a numeral behind is not multiplied with: 5 6, x2; but 3!7!, 2^3 3^2."""
_INVERSES = vocabulary("sin cos tan cot sec csc sinh cosh tanh")
_FUNCTION_COMMANDS = frozenset(f"\\{name}" for name in FUNCTIONS)
_ATOMS = frozenset(
    ("frac", "binom", "sqrt", "pi", "infty", "emptyset", "mathbb", "vec", "hat", "overrightarrow", "overline", "bar",
     "widehat", "mathcal", "angle", "triangle", "begin", "lfloor", "lceil", "tilde", "sum", "prod", "int", "lim",
     "det")
) | GREEK | FUNCTIONS  # fmt: skip


NAMED_SETS = frozenset("RZNQC")
_SET_SIGNS = {
    **{("^", sign): sign for sign in "+-"},
    **{(place, "{", sign, "}"): sign for sign in "+-" for place in "^_"},
    **{("_", sign): sign for sign in "+-"},
    ("_", "{", ">", "0", "}"): "+",
    ("_", "{", "<", "0", "}"): "-",
    ("^", "*"): "*",
    ("^", "{", "*", "}"): "*",
}


def is_plain(node: Node) -> bool:
    """Whether an expression holds no variable."""
    return node.op != "symbol" and all(map(is_plain, node.args))


def _is_whole(node: Node) -> bool:
    return isinstance(node.value, Fraction) and node.value.denominator == 1
