"""MaxRL: the reward above the mean of its group, over that mean."""

from __future__ import annotations

import torch
from torch import Tensor

from .groups import centred, check_not_negative, check_rows, estimate_by_group


@torch.no_grad()
def maxrl_advantages(rewards_N: Tensor, group_ids_N: Tensor, *, valid_N: Tensor | None = None) -> Tensor:
    r"""How far a reward lies above the mean of its group, in units of that mean.

        A_i = (R_i - mean(R)) / mean(R)        0 where the mean is 0

    MaxRL (Maximum Likelihood Reinforcement Learning), arXiv 2602.02710. With rewards of 0 and 1, and K right responses of G, the step
    is the mean of the score functions of the right ones minus that of all:

        1/G sum_i A_i grad log pi(o_i) = 1/K sum_{right} grad log pi(o_i) - 1/G sum_i grad log pi(o_i)

    In expectation it is the gradient of a sum of pass@k / k over k < G, which nears that of log p(right): hard problems weigh more.

    Args:
        rewards_N: (N,) rewards, at least 0; rows that are not valid may hold NaN.
        group_ids_N: (N,) integers, in any order; groups may differ in size.
        valid_N: (N,) bool; None means that every row is valid.

    Returns:
        (N,) advantages, float64 for float64 rewards and float32 for all others. They sum to 0 in each group; they are exactly 0 for a
        group without reward spread, for a rollout without a peer, and for rows that are not valid.

    Raises:
        ValueError: shapes that differ, ids that are not integers, a valid reward that is not finite or below 0.

    >>> maxrl_advantages(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([0, 0, 0, 0]))
    tensor([ 3., -1., -1., -1.])
    """

    def over_mean(rewards_BG: Tensor) -> Tensor:
        mean_B1 = rewards_BG.mean(1, keepdim=True)
        return torch.where(mean_B1 > 0, centred(rewards_BG) / mean_B1, 0.0)

    valid_N, rewards_N = check_rows(group_ids_N, valid_N, rewards_N=rewards_N)
    check_not_negative("rewards_N", rewards_N, valid_N, "MaxRL divides by the mean, so no reward may be negative")
    return estimate_by_group(over_mean, group_ids_N, valid_N, rewards_N)
