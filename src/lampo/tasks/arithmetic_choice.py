"""Sums with four answers to choose from: the third kind of question beside numbers and programs, for a tiny model."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from ..types import Problem
from ..verify import ChoiceOptions, lettered
from .arithmetic import slips, worked_solution
from .split import shuffled, split_candidates, stable_hash
from .task import Task, TaskOptions

NUM_WRONG = 3


class ArithmeticChoiceOptions(TaskOptions):
    """Sums of whole numbers with four answers to choose from, worked column by column."""

    name: Literal["arithmetic_choice"] = "arithmetic_choice"
    """Selects this task."""
    digits: int = Field(default=3, ge=2, le=100)
    """Digits of both summands: exactly this many."""
    num_train: int = Field(default=20_000, gt=0)
    """Problems to train on, or fewer if there are not so many."""
    num_heldout: int = Field(default=500, gt=0)
    """Problems to measure on, from the tenth that is never trained on. Fewer if there are not so many."""
    demonstration_noise: float = Field(default=0.0, ge=0, le=1)
    """Probability of a mistake in each column of the solutions that the warm start imitates. One that ends in none of the answers
    chooses any. The references stay right."""
    seed: int = 0
    """Chooses the problems, their answers, and the mistakes."""

    def load(self) -> Task:
        """Generate the problems: all different, a + b and b + a on the same side."""
        keyed = ((f"{min(pair)}+{max(pair)}", pair) for pair in self._pairs())
        train, heldout = split_candidates(keyed, self.num_train, self.num_heldout)
        return Task([self._problem(*pair) for pair in train], [self._problem(*pair) for pair in heldout])

    def _pairs(self) -> Iterator[tuple[int, int]]:
        """All pairs of summands in random order."""
        least = 10 ** (self.digits - 1)
        random_numbers = random.Random(stable_hash(f"{self.seed} choice"))
        for index in shuffled((9 * least) ** 2, random_numbers):
            yield least + index // (9 * least), least + index % (9 * least)

    def _problem(self, a: int, b: int) -> Problem:
        question = f"{a}+{b}"
        random_numbers = random.Random(stable_hash(f"{self.seed} choice {question}"))
        offered = [a + b, *_near_misses(a + b, self.digits, random_numbers)]
        options, answer = lettered([str(number) for number in offered], 0, key=f"{self.seed} {question}")
        mistaken = slips(self.demonstration_noise, random_numbers)
        right, said = worked_solution("add", a, b), worked_solution("add", a, b, mistaken)
        texts: list[str] = json.loads(answer)["options"]

        def chosen(working: str) -> str:
            result = working.rpartition("=")[2]
            index = texts.index(result) if result in texts else random_numbers.randrange(len(texts))
            return f"{working}\n{'ABCD'[index]}"

        return Problem(
            id=f"arithmetic_choice/{question}",
            prompt=f"{question}=\n{options}\n",
            answer=answer,
            reference=chosen(right),
            demonstration=chosen(said) if self.demonstration_noise > 0 else None,
            verifier=ChoiceOptions(),
        )


def _near_misses(result: int, digits: int, random_numbers: random.Random) -> list[int]:
    """Three numbers that differ from the result by one in one digit's place, as after a mistake in a column."""
    near = [result + sign * 10**place for place in range(digits) for sign in (1, -1)]
    return random_numbers.sample([number for number in near if number > 0], NUM_WRONG)
