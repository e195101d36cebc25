"""Which problems are held out: decided by the problem itself, so that training and measuring cannot overlap."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TypeVar

from ..types import Problem

Candidate = TypeVar("Candidate")

HELDOUT_FRACTION = 0.1
"""Share of all possible problems that a generated task holds out."""


def stable_hash(text: str) -> int:
    """64 bits that depend on the text alone: not on the process, the platform or the seed (BLAKE2b).

    >>> hex(stable_hash("2+3"))
    '0xed9651c54749706e'
    """
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def is_heldout(key: str, fraction: float = HELDOUT_FRACTION) -> bool:
    """Whether what this key stands for is measured on, and never trained on: stable_hash(key) / 2^64 < fraction.

    >>> sum(is_heldout(str(key)) for key in range(10_000))
    1029
    """
    return stable_hash(key) < fraction * 2**64


def split_candidates(
    keyed: Iterable[tuple[str, Candidate]], num_train: int, num_heldout: int, fraction: float = HELDOUT_FRACTION
) -> tuple[list[Candidate], list[Candidate]]:
    """The first `num_train` and `num_heldout` candidates of either side, or as many as there are.

    Candidates with equal keys are on the same side.
    """
    train: list[Candidate] = []
    heldout: list[Candidate] = []
    for key, candidate in keyed:
        side, room = (heldout, num_heldout) if is_heldout(key, fraction) else (train, num_train)
        if len(side) < room:
            side.append(candidate)
        elif len(train) >= num_train and len(heldout) >= num_heldout:
            break
    return train, heldout


def subset(problems: Sequence[Problem], count: int | None, skip: int = 0) -> Sequence[Problem]:
    """`count` problems that stand for all, after the first `skip`, in the order of a hash of their ids.

    Not those at the beginning: in files neighbours are alike, as in MATH, which is sorted by subject. Where all are wanted they stay
    as they are. A larger subset holds the smaller one.
    """
    if skip == 0 and (count is None or count >= len(problems)):
        return problems
    return sorted(problems, key=lambda problem: stable_hash(problem.id))[skip:][:count]


def shuffled(size: int, random_numbers: random.Random) -> Iterator[int]:
    """All of range(size) once, in random order. Only what is taken is computed (a sparse Fisher-Yates shuffle).

    >>> sorted(shuffled(5, random.Random(0)))
    [0, 1, 2, 3, 4]
    """
    moved: dict[int, int] = {}
    for last in range(size - 1, -1, -1):
        index = random_numbers.randrange(last + 1)
        yield moved.get(index, index)
        moved[index] = moved.pop(last, last)


def alternate(streams: Iterable[Iterable[Candidate]]) -> Iterator[Candidate]:
    """One item of every stream in turn. A stream that has ended is passed over.

    >>> list(alternate(["abc", "x"]))
    ['a', 'x', 'b', 'c']
    """
    absent = object()
    for turn in zip_longest(*streams, fillvalue=absent):
        yield from (item for item in turn if item is not absent)  # pyright: ignore[reportReturnType]
