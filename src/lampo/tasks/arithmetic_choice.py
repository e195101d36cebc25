"""Which of four numbers a divisor divides: the third kind of question beside numbers and programs, for a tiny model."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from ..types import Problem
from ..verify import ChoiceOptions, lettered
from .split import split_candidates, stable_hash
from .task import Task, TaskOptions

DIVISORS = range(2, 10)
NUMBERS = range(10, 100)
LETTERS = "ABCD"
Question = tuple[int, list[int]]
"""A divisor, and four numbers of which it divides the first alone."""


class ArithmeticChoiceOptions(TaskOptions):
    """Multiple choice: which of four numbers a divisor divides, worked number by number."""

    name: Literal["arithmetic_choice"] = "arithmetic_choice"
    """Selects this task."""
    num_train: int = Field(default=20_000, gt=0)
    """Problems to train on."""
    num_heldout: int = Field(default=500, gt=0)
    """Problems to measure on, from the tenth that is never trained on."""
    demonstration_noise: float = Field(default=0.0, ge=0, le=1)
    """Probability of a wrong remainder in each line of the solutions that the warm start imitates. The references stay right."""
    seed: int = 0
    """Chooses the problems, the order of their answers, and the mistakes."""

    def load(self) -> Task:
        """Generate the problems: all different."""
        keyed = ((f"{divisor} {sorted(numbers)}", (divisor, numbers)) for divisor, numbers in self._questions())
        train, heldout = split_candidates(keyed, self.num_train, self.num_heldout)
        return Task([self._problem(*each) for each in train], [self._problem(*each) for each in heldout])

    def _questions(self) -> Iterator[Question]:
        """Different questions without end, in random order."""
        random_numbers = random.Random(stable_hash(f"{self.seed} choice"))
        asked: set[tuple[int, ...]] = set()
        while True:
            divisor = random_numbers.choice(DIVISORS)
            right = random_numbers.choice([number for number in NUMBERS if number % divisor == 0])
            wrong = random_numbers.sample([number for number in NUMBERS if number % divisor != 0], len(LETTERS) - 1)
            key = (divisor, right, *sorted(wrong))
            if key not in asked:
                asked.add(key)
                yield divisor, [right, *wrong]

    def _problem(self, divisor: int, numbers: list[int]) -> Problem:
        name = f"{divisor} of {' '.join(map(str, numbers))}"
        options, answer = lettered([str(number) for number in numbers], 0, key=f"{self.seed} {name}")
        offered = [int(number) for number in json.loads(answer)["options"]]
        random_numbers = random.Random(stable_hash(f"{self.seed} choice {name}"))
        mistaken = _working(divisor, offered, self.demonstration_noise, random_numbers)
        return Problem(
            id=f"arithmetic_choice/{name}",
            prompt=f"{divisor}?\n{options}\n",
            answer=answer,
            reference=_working(divisor, offered, 0.0, random_numbers),
            demonstration=mistaken if self.demonstration_noise > 0 else None,
            verifier=ChoiceOptions(),
        )


def _working(divisor: int, offered: list[int], noise: float, random_numbers: random.Random) -> str:
    r"""The remainder of each number in turn, until one leaves none. Where all leave one, any is chosen.

    A line is as long as that of the option it is about, so that a small model finds the digits by their distance.

    >>> _working(7, [22, 35, 40, 61], 0.0, random.Random(0))
    'A22=1\nB35=0\nB'
    """
    lines: list[str] = []
    for letter, number in zip(LETTERS, offered, strict=True):
        remainder = number % divisor
        if random_numbers.random() < noise:
            remainder = random_numbers.choice([other for other in range(divisor) if other != remainder])
        lines.append(f"{letter}{number}={remainder}")
        if remainder == 0:
            return "\n".join([*lines, letter])
    return "\n".join([*lines, random_numbers.choice(LETTERS)])
