r"""Expressions: terms, factors, functions and the commands of LaTeX, down to numerals and letters."""

from __future__ import annotations

import re

from .big_signs import BigSigns
from .matrices import vector_product
from .numerals import LETTER_DIGITS, Numerals
from .tokens import DOTS, OTHER_MATHEMATICS, Token
from .tree import Malformed, Node, Unsupported, number
from .typesetting import FUNCTIONS, GREEK
from .units import vocabulary

DOTS_SYMBOL = r"\ldots"
"""The rest of a series: a symbol like others, so all that is written out has to be the same."""
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
    **{("^", power): f"^{power}" for power in "23456789n"},
    **{("^", "{", power, "}"): f"^{power}" for power in "23456789n"},
    ("^", "*"): "*",
    ("^", "{", "*", "}"): "*",
}


class Expressions(Numerals, BigSigns):
    """Reads expressions."""

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
        """Terms between plus and minus signs."""
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
            term = Node("symbol", value=DOTS_SYMBOL) if sign and self.accept(*DOTS) else self.product()
            if sign == "-":
                term = Node("neg", (term,)) if term.op != "degree" else Node("degree", (Node("neg", term.args),))
            elif sign in (r"\pm", r"\mp"):
                term = Node("pm", (term,), 1 if sign == r"\pm" else -1)
            terms.append(term)
            if self.kind not in ("+", "-", r"\pm", r"\mp"):
                return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def product(self) -> Node:
        """Factors, with a sign between them or none."""
        result = last = self.factor()
        while True:
            if self.kind in ("*", r"\cdot", r"\times"):
                sign, last = self.take().kind, self.signed_factor()
                result = vector_product(sign, result, last) or Node("mul", (result, last))
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

    def starts_factor(self) -> bool:
        """Whether a factor begins here without a sign before it."""
        kind = self.kind
        if kind == r"\vert":
            return not self.in_bars and self.closing_bar()
        if kind == "text":  # 2 Var(X)
            return (
                self.token.text.isalpha() and self.token.text.istitle() and self.tokens[self.position + 1].kind == "("
            )
        if kind in ("number", "letter", "(", "{", "[", *_CURRENCIES):
            return True
        return kind.startswith("\\") and kind[1:] in _ATOMS

    def closing_bar(self) -> bool:
        """Whether there is another bar ahead, inside of the same brackets."""
        depth = 0
        for token in self.tokens[self.position + 1 :]:
            depth += (token.kind in ("(", "[", "{", r"\{")) - (token.kind in (")", "]", "}", r"\}"))
            if depth < 0:
                return False
            if token.kind == r"\vert":
                return True
        return False

    def signed_factor(self) -> Node:
        """A factor, perhaps with a sign of its own: 2 * -3."""
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
        """Take a degree sign that is written as a power."""
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
        """The -2 of 10^-2."""
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
                Token("number", token.text[0], token.spaced),
                Token("number", token.text[1:], False),
            ]
        if self.kind in _FUNCTION_COMMANDS:
            return self.function()
        return self.atom()

    def function(self) -> Node:
        """A function with its power, its base and its arguments."""
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
        """The smallest part that has a value: a numeral, a letter, a bracket, a command."""
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
        if kind == "text" and re.fullmatch(r"[A-Za-z0-9]+", text):
            return self.name_or_numeral(text)
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

    def name_or_numeral(self, text: str) -> Node:
        r"""What stands in `\text{...}` where a value is expected: 2A with its base, Var(X), or a product of letters."""
        if text.isalpha() and self.kind == "(":
            return self.application(text)
        if self.kind == "_" and not (text.isalpha() and set(text) - LETTER_DIGITS):
            return self.in_base(text)
        if not text.isalpha() or len(text) > 3:
            raise Malformed(f"{text!r} is out of place")
        self.position -= 1
        self.tokens[self.position : self.position + 1] = [Token("letter", letter) for letter in text]
        return self.atom()

    def letter(self, name: str) -> Node:
        """A letter: a constant, a symbol with its subscript, or a function that is not known."""
        if name in LETTER_DIGITS and (based := self.based(name)) is not None:
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
        if self.kind == "(" and (name[0].isupper() or name[0] == "\\") and self.comma_ahead():
            return self.application(name)  # N(0, 1)
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
        if name[0] in "PQFGH" and not name[1:2].isalpha() and len(args) == 1 and args[0].op == "add":
            self.position = start
            return Node("symbol", value=name)
        return Node("call", args, f"?{name}")

    def comma_ahead(self) -> bool:
        """Whether there is a comma in the brackets that begin here."""
        depth = 0
        for token in self.tokens[self.position :]:
            depth += (token.kind in ("(", "[", "{", r"\{")) - (token.kind in (")", "]", "}", r"\}"))
            if depth <= 0 or (depth == 1 and token.kind == ","):
                return depth == 1
        return False

    def subscript(self) -> str:
        """The text of a subscript."""
        self.take()
        return self.argument_text()

    def command(self, name: str) -> Node:
        """What a command of LaTeX stands for."""
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
            accented = f"{name} {self.argument_text()}"
            return Node("symbol", value=f"{accented}_{self.subscript()}" if self.kind == "_" else accented)
        if name in ("cup", "cap") and self.kind == "_":
            return self.family(name)
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
        if name in OTHER_MATHEMATICS:
            raise Unsupported(f"the command \\{name}")
        raise Malformed(f"the command \\{name} is out of place")

    def set_sign(self) -> str:
        """The sign of the positive or negative members of a set, as in \\mathbb{Z}^+ or \\mathbb{R}_{>0}."""
        sign = ""
        while self.kind in ("^", "_") and (found := _SET_SIGNS.get(self.ahead())) is not None:
            sign = found
            self.position += len(self.ahead())
        return sign

    def root(self) -> Node:
        """A root, perhaps with a degree."""
        degree: Node | None = None
        if self.accept("["):
            degree = self.sum()
            self.expect("]")
        radicand = self.numeral(self.take().text) if self.kind == "number" else self.argument()
        return Node("call", (radicand, degree or number(2)), "root")
