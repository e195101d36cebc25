"""How an unknown reward travels through verl, which has numbers only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

UNKNOWN = 2.0**-100
"""The reward of a response that nobody could judge: 7.9e-31, which no sum of rewards gives.

NaN would say it more plainly, but verl averages rewards for its log, and its own estimators would pass NaN on to the weights. This
number is exact in float32, bfloat16 and JSON, and is 0 in every average. An estimator that does not know it takes it for 0.
"""


def unknown_rows(scores_NT: Tensor, rewards_NT: Tensor) -> Tensor:
    """(N,) rows whose score is UNKNOWN or NaN, whatever has been taken off since for a KL term."""
    return (scores_NT == UNKNOWN).any(1) | scores_NT.isnan().any(1) | rewards_NT.isnan().any(1)
