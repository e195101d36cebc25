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
    """A problem that got no responses.

    Attributes:
        reason: why, in the words of what was asked.
        hopeless: no other problem will get any either, as with a wrong key.
    """

    reason: str
    hopeless: bool = False


class Responder(Protocol):
    """Gives responses of a model."""

    def probe(self) -> None:
        """Find out in one short request whether there is something to ask. Nothing where the model is in this process.

        Raises:
            LampoError: there is not, in its own words.
        """
        ...

    def respond(self, asked: Sequence[Asked], samples: int) -> Iterator[tuple[Asked, list[Response] | Failed]]:
        """The responses to each problem, as soon as they are complete, in any order.

        Args:
            asked: the problems.
            samples: responses to each; the same seed gives the same ones, as far as the backend can.
        """
        ...
