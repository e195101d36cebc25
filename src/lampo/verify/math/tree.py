"""What answers are read into, and what can be wrong with them: the tree between latex.py, which makes it, and its readers."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from .units import Unit

MAX_LENGTH = 2000
"""Characters of an answer. A longer one is not read."""
MAX_DEPTH = 40
"""How deep brackets may be nested."""
MAX_ITEMS = 100
"""Members of a list, set or tuple."""


class Malformed(Exception):
    """The text is not a mathematical answer."""


class Unsupported(Exception):
    """The text may be an answer, but holds something that is not read here."""


class Undefined(Exception):
    """An expression has no value, such as 1/0."""


class Undecided(Exception):
    """Two answers are read, and whether they are the same cannot be told here."""


class TooLarge(Exception):
    """The answer is too long, too deep, or its value too large."""


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an answer.

    `op` says what it is. It also says what `args` are and, in brackets here, what `value` is:

    - number (its Fraction), symbol (its name), constant (pi, e, i, oo, empty, the sets R, Z, N, Q, C), text (its words)
    - add, mul, div, pow, neg, pm, degree and call (name of the function): expressions of args
    - sum, prod, int and lim (the bound variable): from, to and what is summed, or where and what the limit is of
    - quantity (a Unit): an expression with a unit
    - ratio: parts of a ratio
    - sequence (its brackets: "()", "[)", "{}", ..., or "" and "and" for a list without any)
    - matrix (number of columns)
    - relation (its signs, one fewer than args)
    - union, intersection, minus: of sets
    - set: of the reals that fulfil a relation or all of a sequence of them; setof: any other set of what stands before the bar, under
      the conditions behind it; family ("cup" or "cap" and the bound variable): ends of a range, or a set, and the sets in it
    - ellipsis: the dots of a list
    - cases: a value, its condition, the next value, ...
    - restated: an answer in two forms
    - label (the digits in it, None where they do not matter): a left-hand side that is not read
    """

    op: str
    args: tuple[Node, ...] = ()
    value: Fraction | str | int | tuple[str, ...] | Unit | None = None


def number(value: int | Fraction) -> Node:
    """The node of a number."""
    return Node("number", value=Fraction(value))
