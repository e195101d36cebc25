"""What gives responses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...types import Problem, Response


@dataclass(frozen=True, slots=True)
class Asked:
    """One problem with the text that is asked, and the seed of its responses."""

    problem: Problem
    text: str
    seed: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A problem that got no responses, and why; asking again may help."""

    reason: str


class Responder(Protocol):
    """Gives responses of a model."""

    def respond(self, asked: Sequence[Asked], samples: int) -> Iterator[tuple[Asked, list[Response] | Failed]]:
        """The responses to each problem, as soon as they are complete, in any order.

        Args:
            asked: the problems.
            samples: responses to each; the same seed gives the same ones, as far as the backend can.
        """
        ...
