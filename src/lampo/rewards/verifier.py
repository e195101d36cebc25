"""Correctness: the verdict of the verifier, and made-up errors of it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ..seeds import derive_seed
from ..types import Verdict
from .reward import Responses, RewardOptions


class VerifierReward(RewardOptions):
    """1 for a right response, 0 for a wrong one, by the verifier. The score itself, where an own verifier gives one."""

    none_is_unknown: ClassVar[bool] = True

    name: Literal["verifier"] = "verifier"
    """Selects this reward."""
    false_positives: float = Field(default=0.0, ge=0, le=1)
    """Share of the wrong answers that are rewarded as right: made-up errors, for studies. The verdicts, and so accuracies, stay true."""
    false_negatives: float = Field(default=0.0, ge=0, le=1)
    """Share of the right answers that are rewarded as wrong."""
    errors: Literal["persistent", "independent"] = "persistent"
    """persistent: an answer of a problem is always judged alike, as by a wrong verifier. independent: each response for itself."""

    def values(self, responses: Responses) -> list[float | None]:
        """See `RewardOptions.values`. None where the verdict is unknown."""
        if not self.false_positives and not self.false_negatives:
            return [verdict.value for verdict in responses.verdicts_G]
        return [
            self._mistaken(responses.problem.id, text, verdict)
            for text, verdict in zip(responses.texts_G, responses.verdicts_G, strict=True)
        ]

    def _mistaken(self, problem_id: str, text: str, verdict: Verdict) -> float | None:
        """The value of a verdict, or of its opposite: a function of the problem and its answer, or response, alone."""
        rate = {"wrong": self.false_positives, "right": self.false_negatives, "unknown": 0.0}[verdict.status]
        answer = verdict.extracted if self.errors == "persistent" and verdict.extracted is not None else text
        if derive_seed(0, "verifier's error", problem_id, answer) / 2**63 >= rate:
            return verdict.value
        return 1.0 if verdict.status == "wrong" else 0.0
