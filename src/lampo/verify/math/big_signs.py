"""Signs that bind a variable or hold rows: sums, products, integrals, limits and matrices."""

from __future__ import annotations

from .grammar import Grammar
from .tokens import Token
from .tree import MAX_ITEMS, Malformed, Node, TooLarge, Unsupported, number
from .units import vocabulary

_IF = vocabulary("if for when where")
_OTHERWISE = frozenset(("otherwise", "else", "elsewhere", "if otherwise"))


class BigSigns(Grammar):
    """Reads them from behind their command on."""

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
        return Node(name, (low, high, _known(self.body(index))), index)

    def body(self, index: str) -> Node:
        """What stands behind a sign that binds a variable."""
        self.bound.add(index)
        body = self.product()
        self.bound.discard(index)
        return body

    def family(self, name: str) -> Node:
        r"""A union or intersection of many sets: `\bigcup_{k=0}^\infty (2k, 2k+1)`, `\bigcup_{k \in \mathbb{Z}} \{k\pi\}`."""
        self.take()
        if not self.accept("{"):
            raise Unsupported(f"a \\big{name} of this form")
        index = self.bound_name()
        if self.accept(r"\in"):
            ends = [self.sum()]
            self.expect("}")
        else:
            self.expect("=")
            ends = [self.signed_infinity() or self.sum()]
            self.expect("}")
            if self.kind != "^":
                raise Unsupported(f"a \\big{name} without an upper end")
            ends.append(self.script())
        return Node("family", (*ends, self.body(index)), f"{name} {index}")

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
        self.tokens[end] = Token("d", "d")
        integrand = number(1) if self.kind == "d" else self.terms()
        self.expect("d")
        self.take()
        return Node("int", (ends["_"], ends["^"], _known(integrand)), variable)

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
        """A limit, at a place that holds no variable."""
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
        return Node("lim", (place, _known(self.product())), f"{variable}{side}")

    def signed_infinity(self) -> Node | None:
        """Infinity with its sign, None if something else stands here."""
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
                    self.tokens[i] = Token("side", "")
                    place = self.sum()
                    self.tokens[i] = Token("^", "^")
                    return place
        return self.sum()

    def side_of_limit(self) -> str:
        """The sign behind the place of a limit from one side."""
        self.take()
        braced = self.accept("{")
        sign = self.take().kind
        if sign not in ("+", "-"):
            raise Unsupported("a limit of this form")
        if braced:
            self.expect("}")
        return sign

    def bound_name(self) -> str:
        """The name of a variable that a sign binds."""
        if self.kind != "letter":
            raise Unsupported("a bound variable of this form")
        return self.take().text

    def matrix(self) -> Node:
        """A matrix or determinant, row by row."""
        name = self.argument_text()
        if name == "cases":
            return self.branches()
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

    def branches(self) -> Node:
        """Values with the conditions under which they hold; relations without conditions are a list."""
        rows: list[tuple[Node, ...]] = []
        while True:
            value = self.item()
            self.accept(",")
            condition = self.condition()
            rows.append((value,) if condition is None else (value, condition))
            if len(rows) > MAX_ITEMS:
                raise TooLarge(f"more than {MAX_ITEMS} rows")
            if self.accept(r"\\") and self.kind != r"\end":
                continue
            self.expect(r"\end")
            self.argument_text()
            break
        if len(rows) > 1 and all(len(row) == 2 for row in rows):
            return Node("cases", tuple(part for row in rows for part in row))
        if len(rows) > 1 and all(len(row) == 1 and row[0].op == "relation" for row in rows):
            return Node("sequence", tuple(row[0] for row in rows), "")
        raise Unsupported("cases of this form")

    def condition(self) -> Node | None:
        """What stands behind "if" or "otherwise", None if nothing does."""
        while self.kind == "&" or (self.kind == "text" and self.token.text.casefold().strip(" ,") in _IF):
            self.take()
        if self.kind == "text" and self.token.text.casefold().strip(" ,.") in _OTHERWISE:
            self.take()
            self.accept("&")
            return Node("text", value="otherwise")
        return None if self.kind in (r"\\", r"\end") else self.listing()


def is_plain(node: Node) -> bool:
    """Whether an expression holds no variable."""
    return node.op != "symbol" and all(map(is_plain, node.args))


def _known(body: Node) -> Node:
    """What a sign is applied to, unless it holds a function that is not known."""
    if body.op == "call" and str(body.value).startswith("?"):
        raise Unsupported("a sum, integral or limit of a function that is not known")
    for arg in body.args:
        _known(arg)
    return body
