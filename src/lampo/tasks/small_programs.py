"""Generated specifications of a function, a line a case, for programs that a tiny model can write and the sandbox can test."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from ..types import LampoError, Problem
from ..verify import CodeOptions
from ..verify.code.tests import ProgramTests
from .split import shuffled, split_candidates, stable_hash
from .task import Task, TaskOptions

INPUTS = range(10)
"""What a program may be tested on. Every case has at least one of these numbers."""
DIGITS = range(1, 10)
WORDS = {"+": "add", "-": "minus", "*": "times"}
Step = tuple[str, int]
STEPS: list[Step] = [(symbol, number) for symbol in WORDS for number in DIGITS]


@dataclass(frozen=True, slots=True)
class Program:
    """A function of a number: the first bound above it says which step is done, and beyond all bounds it is the last.

    >>> program = Program((3, 6), (("+", 7), ("*", 2), ("-", 4)))
    >>> print(program.specification())
    below 3 add 7
    below 6 times 2
    else minus 4
    >>> program.source(), program.value(5)
    ('f=lambda x:x+7 if x<3 else x*2 if x<6 else x-4', 10)
    """

    bounds: tuple[int, ...]
    steps: tuple[Step, ...]

    def specification(self) -> str:
        """What it does, a line a case."""
        cases = [*(f"below {bound}" for bound in self.bounds), "else"]
        return "\n".join(
            f"{case} {WORDS[symbol]} {number}" for case, (symbol, number) in zip(cases, self.steps, strict=True)
        )

    def source(self) -> str:
        """It as Python."""
        steps = [f"x{symbol}{number}" for symbol, number in self.steps]
        return (
            "f=lambda x:"
            + "".join(f"{step} if x<{bound} else " for step, bound in zip(steps, self.bounds, strict=False))
            + steps[-1]
        )

    def value(self, x: int) -> int:
        """What it makes of a number."""
        symbol, number = self.steps[sum(x >= bound for bound in self.bounds)]
        return {"+": x + number, "-": x - number, "*": x * number}[symbol]

    def mistaken(self, probability: float, random_numbers: random.Random) -> Program:
        """It with another number or operation in each bound and step, each with this probability."""

        def another(part: int | Step, choices: Sequence[int | Step]) -> int | Step:
            if random_numbers.random() >= probability:
                return part
            return random_numbers.choice([choice for choice in choices if choice != part])

        bounds = tuple(another(bound, DIGITS) for bound in self.bounds)
        return Program(bounds, tuple(another(step, STEPS) for step in self.steps))  # pyright: ignore[reportArgumentType]


class SmallProgramsOptions(TaskOptions):
    """Generated specifications of small Python functions, judged by tests. Needs the sandbox."""

    name: Literal["small_programs"] = "small_programs"
    """Selects this task."""
    cases: int = Field(default=3, ge=1, le=6)
    """Cases of each function. A program that has one of them wrong passes the tests of the others."""
    tests: int = Field(default=10, ge=1, le=len(INPUTS))
    """Tests of each program: different numbers from 0 to 9."""
    hidden_tests: int = Field(default=0, ge=0)
    """Tests of the problems to train on that the reward does not see. Held-out problems are judged by all tests."""
    num_train: int = Field(default=20_000, gt=0)
    """Problems to train on, or fewer if there are not so many."""
    num_heldout: int = Field(default=500, gt=0)
    """Problems to measure on, from the tenth that is never trained on. Fewer if there are not so many."""
    demonstration_noise: float = Field(default=0.0, ge=0, le=1)
    """Probability of a mistake in each bound and each step of the programs that the warm start imitates. The references stay right."""
    seed: int = 0
    """Chooses the problems, their tests, and the mistakes."""

    @model_validator(mode="after")
    def _reward_sees_a_test(self) -> SmallProgramsOptions:
        if self.hidden_tests >= self.tests:
            raise ValueError(
                f"hidden_tests is {self.hidden_tests} of {self.tests} tests, and the reward needs one at least"
            )
        return self

    def load(self) -> Task:
        """Generate the problems: all different.

        Raises:
            LampoError: there are so few problems that one side is empty.
        """
        keyed = ((program.specification(), program) for program in self._programs())
        train, heldout = split_candidates(keyed, self.num_train, self.num_heldout)
        if not train or not heldout:
            raise LampoError(
                f"There are too few problems with task.cases={self.cases} for a training and a held-out side. Raise task.cases."
            )
        num_seen = self.tests - self.hidden_tests
        return Task(
            [self._problem(program, num_seen) for program in train],
            [self._problem(program, self.tests) for program in heldout],
        )

    def _programs(self) -> Iterator[Program]:
        """All programs in random order."""
        bounds = _increasing(self.cases - 1)
        random_numbers = random.Random(stable_hash(f"{self.seed} programs"))
        for index in shuffled(len(bounds) * len(STEPS) ** self.cases, random_numbers):
            index, which = divmod(index, len(bounds))
            steps: list[Step] = []
            for _ in range(self.cases):
                index, step = divmod(index, len(STEPS))
                steps.append(STEPS[step])
            yield Program(bounds[which], tuple(steps))

    def _problem(self, program: Program, num_tests: int) -> Problem:
        specification = program.specification()
        random_numbers = random.Random(stable_hash(f"{self.seed} {specification}"))
        inputs = random_numbers.sample(INPUTS, self.tests)[:num_tests]
        tests = ProgramTests(
            type="function", fn_name="f", inputs=[[x] for x in inputs], outputs=[program.value(x) for x in inputs]
        )
        mistaken = program.mistaken(self.demonstration_noise, random_numbers)
        return Problem(
            id=f"small_programs/{program.source()}",
            prompt=f"{specification}\n",
            answer=tests.dump(),
            reference=_block(program),
            demonstration=_block(mistaken) if self.demonstration_noise > 0 else None,
            verifier=CodeOptions(one_process=True),
        )


def _block(program: Program) -> str:
    return f"```\n{program.source()}\n```"


def _increasing(count: int, first: int = 1) -> list[tuple[int, ...]]:
    """All tuples of increasing bounds.

    >>> len(_increasing(2)), _increasing(9)
    (36, [(1, 2, 3, 4, 5, 6, 7, 8, 9)])
    """
    if count == 0:
        return [()]
    return [(bound, *rest) for bound in range(first, DIGITS.stop) for rest in _increasing(count - 1, bound + 1)]
