"""Several tasks in one, in given proportions."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..options import Options
from ..types import Problem
from ..verify import AnyVerifier
from .columns import drop_overlap
from .task import Task, TaskOptions

if TYPE_CHECKING:
    from . import AnyTask

logger = logging.getLogger("lampo")


class MixPart(Options):
    """A task in a mixture."""

    task: AnyTask
    """The task, as it would stand in a recipe."""
    weight: float = Field(default=1.0, gt=0)
    """Its share of the training problems, relative to the other parts'."""
    verifier: AnyVerifier | None = None
    """Who decides on its problems. Unset: the task itself."""


class MixOptions(TaskOptions):
    """Several tasks in one, in given proportions, each with a verifier of its own."""

    name: Literal["mix"] = "mix"
    """Selects this task."""
    parts: list[MixPart] = Field(min_length=1)
    """The tasks: a list of {task: {name: ...}, weight: 2, verifier: {name: ...}}. Weight and verifier may be left out."""

    def load(self) -> Task:
        """Load all parts, and take as many training problems as there are in these proportions without repeating any.

        The part that is smallest for its weight is used whole. How many each gives is reported. All problems that are
        held out in a part stay held out, and none of them is trained on in another. An id is mix/number of the part/id.

        Raises:
            LampoError: a part cannot be loaded.
        """
        tasks = [self._load(number) for number in range(len(self.parts))]
        heldout = list(interleaved([task.heldout for task in tasks], self._weights))
        trains = [
            drop_overlap(task.train, heldout, f"mix, part {number}") for number, task in enumerate(tasks, start=1)
        ]
        weights = [weight if train else 0.0 for weight, train in zip(self._weights, trains, strict=True)]
        scale = min((len(train) / weight for train, weight in zip(trains, weights, strict=True) if weight), default=0.0)
        taken = [train[: round(scale * weight)] for train, weight in zip(trains, weights, strict=True)]
        for number, (part, train, kept, task) in enumerate(zip(self.parts, trains, taken, tasks, strict=True), start=1):
            logger.info(
                "mix, part %d (%s): %d of its %d problems to train on, %d to measure on",
                *(number, part.task.name, len(kept), len(train), len(task.heldout)),
            )
        return Task(list(interleaved(taken, self._weights)), heldout)

    @property
    def _weights(self) -> list[float]:
        return [part.weight for part in self.parts]

    def _load(self, number: int) -> Task:
        part = self.parts[number]
        task = part.task.load()

        def ours(problem: Problem) -> Problem:
            verifier = problem.verifier if part.verifier is None else part.verifier
            return dataclasses.replace(problem, id=f"mix/{number + 1}/{problem.id}", verifier=verifier)

        return Task(list(map(ours, task.train)), list(map(ours, task.heldout)))


def interleaved(parts: Sequence[Sequence[Problem]], weights: Sequence[float]) -> Iterator[Problem]:
    """All problems of all parts. Wherever one stops, the parts have been drawn on by their weights, while they last.

    >>> parts = [[Problem(f"{name}{n}", "?", "") for n in range(4)] for name in "ab"]
    >>> " ".join(problem.id for problem in interleaved(parts, [3, 1]))
    'a0 a1 b0 a2 a3 b1 b2 b3'
    """
    order = sorted(
        ((index + 0.5) / weight, number, index)
        for number, (part, weight) in enumerate(zip(parts, weights, strict=True))
        for index in range(len(part))
    )
    return (parts[number][index] for _, number, index in order)
