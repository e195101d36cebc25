"""Generated sums and products with a worked solution: nothing to download, and a tiny model learns it in minutes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Literal

from pydantic import Field

from ..types import LampoError, Problem
from .split import alternate, shuffled, split_candidates, stable_hash
from .task import Task, TaskOptions

Operation = Literal["add", "multiply"]
SYMBOLS: dict[Operation, str] = {"add": "+", "multiply": "*"}

LARGEST_SUM_COLUMN = 9 + 9 + 1
LARGEST_PRODUCT_COLUMN = 9 * 9 + 8

Write = Callable[[int, int], tuple[int, int]]
"""(result of a column, largest possible result of such a column) -> the result that is written down, and what is carried."""


class ArithmeticOptions(TaskOptions):
    """Generated sums and products of whole numbers, worked column by column."""

    name: Literal["arithmetic"] = "arithmetic"
    """Selects this task."""
    operations: list[Operation] = Field(default=["add"], min_length=1)
    """What is asked, in equal shares: add, multiply."""
    digits: int = Field(default=3, ge=1, le=100)
    """Digits of both summands, and of the first factor: exactly this many."""
    multiplier_digits: int = Field(default=1, ge=1, le=100)
    """Digits of the second factor: exactly this many."""
    num_train: int = Field(default=20_000, gt=0)
    """Problems to train on, or fewer if there are not so many."""
    num_heldout: int = Field(default=500, gt=0)
    """Problems to measure on, from the tenth that is never trained on. Fewer if there are not so many."""
    demonstration_noise: float = Field(default=0.0, ge=0, le=1)
    """Probability of a mistake in each column of the solutions that the warm start imitates. The references stay right."""
    demonstration_mistake: Literal["slip", "forgotten_carry"] = "slip"
    """slip: any other result. forgotten_carry: nothing is carried where something should be. Above 1/2 the mistake is the likelier."""
    seed: int = 0
    """Chooses the problems, and the mistakes."""

    def load(self) -> Task:
        """Generate the problems: all different, a + b and b + a on the same side.

        Raises:
            LampoError: there are so few problems that one side is empty.
        """
        streams = [self._pairs(operation) for operation in dict.fromkeys(self.operations)]
        keyed: Iterator[tuple[str, tuple[Operation, int, int]]] = (
            (f"{min(a, b)}{SYMBOLS[operation]}{max(a, b)}", (operation, a, b)) for operation, a, b in alternate(streams)
        )
        train, heldout = split_candidates(keyed, self.num_train, self.num_heldout)
        if not train or not heldout:
            raise LampoError(
                f"There are too few problems with task.digits={self.digits} for a training and a held-out side. "
                "Raise task.digits."
            )
        return Task([self._problem(*item) for item in train], [self._problem(*item) for item in heldout])

    def _pairs(self, operation: Operation) -> Iterator[tuple[Operation, int, int]]:
        """All pairs of operands in random order."""
        first = _numbers(self.digits)
        second = _numbers(self.multiplier_digits if operation == "multiply" else self.digits)
        num_second = second.stop - second.start
        random_numbers = random.Random(stable_hash(f"{self.seed} {operation}"))
        for index in shuffled((first.stop - first.start) * num_second, random_numbers):
            yield operation, first.start + index // num_second, second.start + index % num_second

    def _problem(self, operation: Operation, a: int, b: int) -> Problem:
        question = f"{a}{SYMBOLS[operation]}{b}"
        make_mistakes = _slips if self.demonstration_mistake == "slip" else _forgotten_carries
        mistaken = make_mistakes(self.demonstration_noise, random.Random(stable_hash(f"{self.seed} {question}")))
        return Problem(
            id=f"arithmetic/{question}",
            prompt=f"{question}=",
            answer=str(a + b if operation == "add" else a * b),
            reference=worked_solution(operation, a, b),
            demonstration=worked_solution(operation, a, b, mistaken) if self.demonstration_noise > 0 else None,
        )


def _as_is(result: int, largest: int) -> tuple[int, int]:
    return result, result // 10


def worked_solution(operation: Operation, a: int, b: int, write: Write = _as_is) -> str:
    r"""The working of a sum or product, a line for each column from the right, the carry first. The answer alone comes last.

    A product is a partial product for each digit of b, its value, and its sum with those before it.
    `write` may put down another result for a column, or carry another digit: all that follows then builds on that.

    >>> worked_solution("add", 347, 685)
    '0+7+5=12\n1+4+8=13\n1+3+6=10\n=1032'
    >>> worked_solution("multiply", 47, 36)
    '0+7*6=42\n4+4*6=28\n=282\n0+7*3=21\n2+4*3=14\n=1410\n0+2+0=02\n0+8+1=09\n0+2+4=06\n0+0+1=01\n=1692'
    >>> worked_solution("add", 47, 35, lambda result, largest: (result, 0))  # forgets to carry
    '0+7+5=12\n0+4+3=07\n=72'
    """
    lines, result = _add(a, b, write) if operation == "add" else _multiply(a, b, write)
    return "\n".join([*lines, f"={result}"])


def _add(a: int, b: int, write: Write) -> tuple[list[str], int]:
    width = max(len(str(a)), len(str(b)))
    columns = zip(reversed(str(a).zfill(width)), reversed(str(b).zfill(width)), strict=True)
    return _work([(f"{x}+{y}", int(x) + int(y)) for x, y in columns], LARGEST_SUM_COLUMN, write)


def _multiply(a: int, b: int, write: Write) -> tuple[list[str], int]:
    lines: list[str] = []
    result = 0
    for position, y in enumerate(reversed(str(b))):
        columns = [(f"{x}*{y}", int(x) * int(y)) for x in reversed(str(a))]
        partial_lines, partial = _work(columns, LARGEST_PRODUCT_COLUMN, write)
        partial *= 10**position
        lines += partial_lines
        if len(str(b)) > 1:
            lines.append(f"={partial}")
        sum_lines, result = _add(result, partial, write) if position > 0 else ([], partial)
        lines += sum_lines
        if 0 < position < len(str(b)) - 1:
            lines.append(f"={result}")
    return lines, result


def _work(columns: list[tuple[str, int]], largest: int, write: Write) -> tuple[list[str], int]:
    """Columns (text, value without the carry) from the right -> a line for each, and the number their digits form.

    Every line has the same width, carry and two-digit result included, so that a small model finds the digits by their distance.
    """
    lines: list[str] = []
    carry = result = 0
    for position, (text, value) in enumerate(columns):
        written, carried = write(carry + value, largest)
        lines.append(f"{carry}+{text}={written:02d}")
        result += written % 10 * 10**position
        carry = carried
    return lines, result + carry * 10 ** len(columns)


def _slips(probability: float, random_numbers: random.Random) -> Write:
    """Write a wrong result with this probability: any other that such a column can have."""

    def write(result: int, largest: int) -> tuple[int, int]:
        if random_numbers.random() >= probability:
            return _as_is(result, largest)
        return _as_is((result + random_numbers.randint(1, largest)) % (largest + 1), largest)

    return write


def _forgotten_carries(probability: float, random_numbers: random.Random) -> Write:
    """Carry nothing with this probability, where there is something to carry."""

    def write(result: int, largest: int) -> tuple[int, int]:
        return result, 0 if result > 9 and random_numbers.random() < probability else result // 10

    return write


def _numbers(digits: int) -> range:
    """All whole numbers with exactly this many digits.

    >>> _numbers(1), _numbers(3)
    (range(0, 10), range(100, 1000))
    """
    return range(10 ** (digits - 1) if digits > 1 else 0, 10**digits)
