"""Correctness: the verdict of the verifier."""

from __future__ import annotations

from typing import ClassVar, Literal

from .reward import Responses, RewardOptions


class VerifierReward(RewardOptions):
    """1 for a right response, 0 for a wrong one, by the verifier. The score itself, where an own verifier gives one."""

    none_is_unknown: ClassVar[bool] = True

    name: Literal["verifier"] = "verifier"
    """Selects this reward."""

    def values(self, responses: Responses) -> list[float | None]:
        """See `RewardOptions.values`; None where the verdict is unknown."""
        return [verdict.value for verdict in responses.verdicts_G]
