"""Word problems of two steps and more, made of templates, each with a worked solution: between one-step arithmetic and GSM8K."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from ..types import Problem
from .split import alternate, split_candidates, stable_hash
from .task import Task, TaskOptions

Symbol = Literal["+", "-", "*", "/"]
Chain = tuple[int, tuple[tuple[Symbol, int], ...]]
"""The number at the beginning, and what happens to it."""

NAMES = ("Ada", "Ben", "Chen", "Dora", "Emil", "Fay", "Gus", "Hana")
THINGS = ("apples", "books", "coins", "marbles", "pens", "shells", "stamps", "stickers")
EVENTS: dict[Symbol, tuple[str, ...]] = {
    "+": ("{name} buys {b} more.", "{name} finds {b} more.", "A friend gives {name} {b} more."),
    "-": ("{name} gives away {b}.", "{name} loses {b}.", "{name} sells {b}."),
    "*": ("A week later {name} has {b} times as many.", "Then {name} trades each of them for {b}."),
    "/": (
        "{name} makes {b} equal piles and keeps one of them.",
        "{name} shares them equally among {b} people, {name} too.",
    ),
}
FIRST, CHANGE, LARGEST = range(4, 31), range(2, 21), 100
"""Numbers to begin with, numbers that come or go, and the largest that there ever is."""
FACTORS = range(2, 6)
MOST_REPEATED = 1_000
"""So many in a row that were given before: there are hardly any others."""


class WordProblemsOptions(TaskOptions):
    """Generated word problems of several steps, in words, for pretrained chat models."""

    name: Literal["word_problems"] = "word_problems"
    """Selects this task."""
    steps: list[Annotated[int, Field(ge=1, le=10)]] = Field(default=[2, 3], min_length=1)
    """Steps of the problems, in equal shares while there are problems left."""
    num_train: int = Field(default=6_000, gt=0)
    """Problems to train on, or fewer if there are not so many."""
    num_heldout: int = Field(default=500, gt=0)
    """Problems to measure on, from the tenth that is never trained on. Fewer if there are not so many."""
    seed: int = 0
    """Chooses the problems."""

    def load(self) -> Task:
        """Generate the problems: all calculations differ, and those with equal ones are on the same side."""
        chains = alternate([self._chains(steps) for steps in dict.fromkeys(self.steps)])
        train, heldout = split_candidates(
            ((_written(chain), chain) for chain in chains), self.num_train, self.num_heldout
        )
        return Task([self._problem(chain) for chain in train], [self._problem(chain) for chain in heldout])

    def _chains(self, steps: int) -> Iterator[Chain]:
        """Different calculations of so many steps in random order, until nearly all were given."""
        random_numbers = random.Random(stable_hash(f"{self.seed} word problems {steps}"))
        asked: set[Chain] = set()
        repeated = 0
        while repeated < MOST_REPEATED:
            first = value = random_numbers.choice(FIRST)
            changes: list[tuple[Symbol, int]] = []
            for _ in range(steps):
                symbol, b = random_numbers.choice(_possible(value))
                value = _result(value, symbol, b)
                changes.append((symbol, b))
            chain = first, tuple(changes)
            repeated = repeated + 1 if chain in asked else 0
            if not repeated:
                asked.add(chain)
                yield chain

    def _problem(self, chain: Chain) -> Problem:
        written = _written(chain)
        random_numbers = random.Random(stable_hash(f"{self.seed} {written}"))
        name, things = random_numbers.choice(NAMES), random_numbers.choice(THINGS)
        value, changes = chain
        sentences, lines = [f"{name} has {value} {things}."], list[str]()
        for symbol, b in changes:
            sentences.append(random_numbers.choice(EVENTS[symbol]).format(name=name, b=b))
            before, value = value, _result(value, symbol, b)
            lines.append(f"{before} {symbol} {b} = {value}")
        sentences.append(f"How many {things} does {name} have now?")
        return Problem(
            id=f"word_problems/{written}",
            prompt=" ".join(sentences),
            answer=str(value),
            reference="\n".join([*lines, f"The answer is {value}."]),
        )


def _possible(value: int) -> list[tuple[Symbol, int]]:
    """What can happen to a number, each of the four as often as the others as far as it can happen."""
    kinds: list[list[tuple[Symbol, int]]] = [
        [("+", b) for b in CHANGE if value + b <= LARGEST],
        [("-", b) for b in CHANGE if value - b >= 2],
        [("*", b) for b in FACTORS if value * b <= LARGEST],
        [("/", b) for b in FACTORS if value % b == 0 and value // b >= 2],
    ]
    longest = max(map(len, kinds))
    return [each for kind in kinds if kind for each in (kind * longest)[:longest]]


def _result(value: int, symbol: Symbol, b: int) -> int:
    """The number after a step.

    >>> [_result(12, symbol, 4) for symbol in ("+", "-", "*", "/")]
    [16, 8, 48, 3]
    """
    return {"+": value + b, "-": value - b, "*": value * b, "/": value // b}[symbol]


def _written(chain: Chain) -> str:
    """A calculation as text.

    >>> _written((12, (("+", 3), ("/", 5))))
    '12 + 3 / 5'
    """
    first, changes = chain
    return " ".join([str(first), *(f"{symbol} {b}" for symbol, b in changes)])
