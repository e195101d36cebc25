"""What comparisons of one kind of answer ask of those of the others."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .parts import has, rebuild
from .pieces import Piece
from .points import Points
from .tree import Malformed, Node, Undefined


class Comparing(Points, ABC):
    """A gold answer and an answer, compared part by part."""

    @abstractmethod
    def same(self, gold: Node, answer: Node) -> bool:
        """Whether two trees are the same answer."""

    @abstractmethod
    def tidy(self, node: Node) -> Node:
        """Write out plus-minus signs, and leave out the repeats of a list."""

    @abstractmethod
    def stated(self, node: Node, of_value: bool = False) -> tuple[Node, Node] | None:
        """(label, value) of a relation that only says what something is."""

    @abstractmethod
    def region(self, node: Node) -> list[Piece] | None:
        """A set of reals as its pieces in order."""

    @abstractmethod
    def same_pieces(self, gold: list[Piece], answer: list[Piece]) -> bool:
        """Whether two sets of reals are the same."""

    def is_same(self, gold: Node, answer: Node) -> bool:
        """Whether two trees are the same answer; not so where one has no value."""
        try:
            return self.same(gold, answer)
        except (Undefined, Malformed):
            return False

    def same_angle_or_value(self, gold: Node, answer: Node) -> bool:
        """Whether two expressions have the same value, where one may leave its degree sign out."""
        if self.same_value(gold, answer):
            return True
        with_degrees = [has(node, "degree") and not has(node, "call") for node in (gold, answer)]
        if with_degrees[0] == with_degrees[1]:
            return False
        bare = [rebuild(node, lambda part: part.args[0] if part.op == "degree" else None) for node in (gold, answer)]
        return self.same_value(bare[0], bare[1])
