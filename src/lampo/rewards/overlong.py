"""DAPO's soft punishment of responses that come near the greatest length."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .reward import Responses, RewardOptions


class OverlongReward(RewardOptions):
    """0, falling to -1 over the last part of the greatest length (DAPO, arXiv 2503.14476).

    DAPO's weight is 1 for rewards of 1 and -1, which is 0.5 for rewards of 1 and 0.
    """

    name: Literal["overlong"] = "overlong"
    """Selects this reward."""
    share: float = Field(default=0.2, gt=0, le=1)
    """Share of the greatest length over which it falls (DAPO: 4,096 of 20,480 tokens)."""

    def values(self, responses: Responses) -> list[float | None]:
        """See `RewardOptions.values`."""
        return [-overlong(num_tokens, responses.max_new_tokens, self.share) for num_tokens in responses.num_tokens_G]


def overlong(num_tokens: int, max_new_tokens: int, share: float) -> float:
    """How far a response reaches into the last `share` of the greatest length: 0 before it, 1 at its end, linear between.

    DAPO's soft overlong punishment (arXiv 2503.14476, equation 13) is minus this number.

    >>> [overlong(num_tokens, 100, 0.2) for num_tokens in (50, 80, 90, 100)]
    [0.0, 0.0, 0.5, 1.0]
    """
    buffer = share * max_new_tokens
    return max(0.0, num_tokens - (max_new_tokens - buffer)) / buffer
