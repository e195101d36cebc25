"""One-step arithmetic asked in words: what a small chat model can almost do, and learns fast."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from ..types import LampoError, Problem
from .split import alternate, shuffled, split_candidates, stable_hash
from .task import Task, TaskOptions

Operation = Literal["add", "subtract", "multiply"]

WORDS: dict[Operation, tuple[str, str]] = {
    "add": ("plus", "+"),
    "subtract": ("minus", "-"),
    "multiply": ("times", "*"),
}
PHRASINGS = (
    "What is {a} {word} {b}? Answer with just the number.",
    "How much is {a} {word} {b}? Reply with the number only.",
    "Compute {a} {word} {b}. Give only the result.",
    "{a} {word} {b} equals what? Just the number, please.",
)


class WordArithmeticOptions(TaskOptions):
    """One-step arithmetic with small numbers, asked in words, for pretrained chat models."""

    name: Literal["word_arithmetic"] = "word_arithmetic"
    """Selects this task."""
    operations: list[Operation] = Field(default=["add", "multiply"], min_length=1)
    """What is asked, in equal shares while there are problems left: add, subtract (never below 0), multiply."""
    largest: int = Field(default=20, ge=2, le=10_000)
    """Largest operand of sums and differences. The smallest is 1."""
    largest_factor: int = Field(default=12, ge=2, le=10_000)
    """Largest operand of products. The smallest is 1."""
    num_train: int = Field(default=2_000, gt=0)
    """Problems to train on, or fewer if there are not so many."""
    num_heldout: int = Field(default=200, gt=0)
    """Problems to measure on, from the tenth that is never trained on. Fewer if there are not so many."""
    seed: int = 0
    """Chooses the problems."""

    def load(self) -> Task:
        """Generate the problems: all different, the two orders of the operands and all phrasings on the same side.

        Raises:
            LampoError: there are so few problems that one side is empty.
        """
        streams = [self._questions(operation) for operation in dict.fromkeys(self.operations)]
        keyed: Iterator[tuple[str, tuple[Operation, int, int, int]]] = (
            (f"{min(a, b)} {WORDS[operation][0]} {max(a, b)}", (operation, a, b, phrasing))
            for operation, a, b, phrasing in alternate(streams)
        )
        train, heldout = split_candidates(keyed, self.num_train, self.num_heldout)
        if not train or not heldout:
            raise LampoError(
                f"There are too few problems with task.largest={self.largest} and "
                f"task.largest_factor={self.largest_factor} for a training and a held-out side. Raise them."
            )
        return Task([_problem(*item) for item in train], [_problem(*item) for item in heldout])

    def _questions(self, operation: Operation) -> Iterator[tuple[Operation, int, int, int]]:
        """All operands in all phrasings, in random order."""
        largest = self.largest_factor if operation == "multiply" else self.largest
        random_numbers = random.Random(stable_hash(f"{self.seed} {operation}"))
        for index in shuffled(largest * largest * len(PHRASINGS), random_numbers):
            pair, phrasing = divmod(index, len(PHRASINGS))
            a, b = pair // largest + 1, pair % largest + 1
            if operation != "subtract" or a >= b:
                yield operation, a, b, phrasing


def _problem(operation: Operation, a: int, b: int, phrasing: int) -> Problem:
    word, symbol = WORDS[operation]
    result = {"add": a + b, "subtract": a - b, "multiply": a * b}[operation]
    return Problem(
        id=f"word_arithmetic/{a}{symbol}{b}/{phrasing}",
        prompt=PHRASINGS[phrasing].format(a=a, b=b, word=word),
        answer=str(result),
        reference=f"{a} {symbol} {b} = {result}",
    )
