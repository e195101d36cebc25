"""What a reward has to offer, and what it may look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ..options import Options
from ..types import Likelihood, Problem, Verdict

LABEL = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"


@dataclass(frozen=True, slots=True)
class Responses:
    """All responses to one problem, as a reward sees them.

    Attributes:
        problem: with its answer, and a reference solution if there is one.
        texts_G: the responses.
        verdicts_G: what the verifier says of them.
        num_tokens_G: their lengths.
        max_new_tokens: the greatest length that they could have had.
        likelihoods_G: how much likelier they make the reference answer. None where no reward asks for it.
    """

    problem: Problem
    texts_G: Sequence[str]
    verdicts_G: Sequence[Verdict]
    num_tokens_G: Sequence[int]
    max_new_tokens: int
    likelihoods_G: Sequence[Likelihood] | None = None


class RewardOptions(Options):
    """A reward: its settings, and the pure function of responses that they make. The total is the sum of weight times value."""

    none_is_unknown: ClassVar[bool] = False
    """Whether None means that the reward cannot tell, and the rollout is left out of the update. Else it adds nothing."""

    if TYPE_CHECKING:
        name: Any  # a Literal in each reward: what a recipe selects it by

    weight: float = 1.0
    """Its factor in the total. 0: it is not computed."""
    label: str = Field(default="", pattern=rf"{LABEL}|^$")
    """What it is called in logs, charts and the viewer. Unset: its name."""

    @property
    def title(self) -> str:
        """What it is called."""
        return self.label or self.name

    def values(self, responses: Responses) -> list[float | None]:
        """One value a response.

        Raises:
            LampoError: a function of the user's own raised, or returned something else than numbers.
        """
        raise NotImplementedError

    def prepare(self, problems: Sequence[Problem]) -> None:
        """Refuse before the first step what could not work later. Called once, with the problems to train on.

        Raises:
            LampoError: says what is missing and what to do.
        """
