"""The tokens of an answer, and the place in them up to which it is read."""

from __future__ import annotations

import re
from typing import NamedTuple

from .tree import MAX_DEPTH, Malformed, TooLarge, Unsupported
from .typesetting import mark_words
from .units import vocabulary


class Token(NamedTuple):
    """A piece of an answer that is read as one."""

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
    "oslash": "emptyset", "arsinh": "arcsinh", "arcosh": "arccosh", "artanh": "arctanh", "bigcap": "cap",
}  # fmt: skip
SEPARATORS = frozenset((",", ";", r"\and", r"\or"))
DOTS = frozenset((r"\ldots", r"\dots", r"\cdots", r"\dotsc", r"\dotsb"))
CLOSING = {")": "(", "]": "[", "}": "{"}
OTHER_MATHEMATICS = vocabulary(
    "iint iiint oint limsup liminf sup inf ldots cdots dots dotsc dotsb vdots ddots partial nabla "
    "forall exists subset subseteq supset supseteq to rightarrow Rightarrow implies iff "
    "Pr dim ker deg hom nmid oplus otimes circ mapsto prime therefore because star dagger underbrace overbrace "
    "stackrel overset underset substack aleph complement cong propto bullet square top bot"
)


def tokens_of(clean: str) -> list[Token]:
    """The tokens of a cleaned answer. All brackets in it are closed, though not each by its own kind."""
    texts: list[str] = []
    marked = mark_words(clean, texts)
    if scientific := re.fullmatch(r"([-+]?[0-9]*\.?[0-9]+)[eE]([-+]?[0-9]{1,4})", clean):
        marked = rf"{scientific[1]} * 10^{{{scientific[2]}}}"
    tokens: list[Token] = []
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
            tokens.append(Token("number", found.replace(",", ""), spaced))
        elif kind == "letter":
            tokens.append(Token("letter", found, spaced))
        elif kind == "escape":
            found = {r"\|": r"\vert", r"\%": "%", r"\&": r"\and", r"\#": "#"}.get(found, found)
            tokens.append(Token(found, found, spaced))
        elif kind == "command":
            name = _ALIASES.get(found[1:], found[1:])
            found = f"\\{name}" if name.isalpha() else (f"\\{name}" if name in "{}$" else name)
            tokens.append(Token(found, found, spaced))
        elif found == "\x00":
            end = marked.index("}", position)
            tokens.append(Token("text", texts[int(marked[position + 1 : end])], spaced))
            position = end + 1
        else:
            tokens.append(Token(r"\vert" if found == "|" else found, found, spaced))
        last = tokens[-1].kind
        if last in ("(", "[", r"\{", r"\langle", "{", r"\lfloor", r"\lceil"):
            opened.append(last)
            depth += last != "{"
        elif last in (")", "]", r"\}", r"\rangle", "}", r"\rfloor", r"\rceil"):
            if not opened:
                raise Malformed("a bracket is closed that was not opened")
            depth -= opened.pop() != "{"
        if len(opened) > MAX_DEPTH:
            raise TooLarge("nested too deep")
    if opened:
        raise Malformed("a bracket is not closed")
    behind = [*(token.kind for token in tokens[1:]), ","]
    return [  # a secant of nothing is a second
        Token("text", "sec") if token.kind == r"\sec" and (kind in CLOSING or kind in SEPARATORS) else token
        for token, kind in zip(tokens, behind, strict=False)
    ]


class Cursor:
    """The tokens of one answer, and the next one to be read."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = [*tokens, Token("end", ""), Token("end", "")]
        self.position = 0

    @property
    def kind(self) -> str:
        """The kind of the next token."""
        return self.tokens[self.position].kind

    @property
    def token(self) -> Token:
        """The next token."""
        return self.tokens[self.position]

    def take(self) -> Token:
        """The next token, which is passed."""
        self.position += 1
        return self.tokens[self.position - 1]

    def accept(self, *kinds: str) -> bool:
        """Whether the next token is of one of these kinds; then it is passed."""
        if self.kind in kinds:
            self.position += 1
            return True
        return False

    def expect(self, kind: str) -> None:
        """Pass a token of this kind.

        Raises:
            Unsupported, Malformed: the next one is of another.
        """
        if not self.accept(kind):
            if self.kind[1:] in OTHER_MATHEMATICS:
                raise Unsupported(f"the command {self.kind}")
            raise Malformed(f"{kind} expected instead of {self.token.text or 'the end'!r}")

    def argument_text(self) -> str:
        """The text of an argument: a token, or all between braces."""
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

    def ahead(self) -> tuple[str, ...]:
        """The signs behind ^ or _, with the braces around them."""
        kinds = [t.text if t.kind in ("number", "letter") else t.kind for t in self.tokens[self.position :]]
        return tuple(kinds[: kinds.index("}") + 1] if kinds[1:2] == ["{"] and "}" in kinds else kinds[:2])
