"""What the parts of the grammar ask of each other, and how much of the answer is around what they read."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .tokens import Cursor, Token
from .tree import Node


class Grammar(Cursor, ABC):
    """Recursive descent: each method reads what it is named by, and leaves the cursor behind it."""

    def __init__(self, tokens: list[Token]) -> None:
        super().__init__(tokens)
        self.in_bars = False
        self.in_set = False
        self.currency = ""
        self.bound: set[str] = set()
        """Variables of the sums that are read."""

    @abstractmethod
    def listing(self) -> Node:
        """Items between commas, "and" and "or"."""

    @abstractmethod
    def item(self) -> Node:
        """A chain of relations, or a single side of one."""

    @abstractmethod
    def items(self) -> tuple[Node, ...]:
        """The items of a listing inside of brackets."""

    @abstractmethod
    def bracketed(self, kind: str) -> Node:
        """What stands in round and square brackets."""

    @abstractmethod
    def braced_set(self) -> Node:
        """A set in braces."""

    @abstractmethod
    def sum(self) -> Node:
        """Terms."""

    @abstractmethod
    def terms(self) -> Node:
        """Terms between plus and minus signs."""

    @abstractmethod
    def product(self) -> Node:
        """Factors."""

    @abstractmethod
    def atom(self) -> Node:
        """The smallest part that has a value."""

    @abstractmethod
    def script(self) -> Node:
        """What stands behind ^ or _."""
