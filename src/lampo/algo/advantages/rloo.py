"""RLOO: the reward against the mean of the other rollouts."""

from __future__ import annotations

import torch
from torch import Tensor

from .groups import centred, check_rows, estimate_by_group


@torch.no_grad()
def rloo_advantages(rewards_N: Tensor, group_ids_N: Tensor, *, valid_N: Tensor | None = None) -> Tensor:
    r"""How far a reward lies above the mean reward of the other rollouts of its group.

        A_i = R_i - 1/(G-1) sum_{j != i} R_j = G/(G-1) (R_i - mean(R)) = 1/(G-1) sum_{j != i} (R_i - R_j)

    RLOO, arXiv 2402.14740. The last form is the pairwise one: every comparison with the same weight.

    Args:
        rewards_N: (N,) rewards; rows that are not valid may hold NaN.
        group_ids_N: (N,) integers, in any order; groups may differ in size.
        valid_N: (N,) bool; None means that every row is valid.

    Returns:
        (N,) advantages, float64 for float64 rewards and float32 for all others. They sum to 0 in each group; they are
        exactly 0 for a group without reward spread, for a rollout without a peer (never its raw reward), and for rows
        that are not valid.

    Raises:
        ValueError: shapes that differ, ids that are not integers, a valid reward that is not finite.

    >>> rloo_advantages(torch.tensor([1.0, 0.0, 0.0, 5.0]), torch.tensor([0, 0, 0, 1]))
    tensor([ 1.0000, -0.5000, -0.5000,  0.0000])
    """

    def leave_one_out(rewards_BG: Tensor) -> Tensor:
        group_size = rewards_BG.shape[1]
        return centred(rewards_BG) * (group_size / (group_size - 1))

    valid_N, rewards_N = check_rows(group_ids_N, valid_N, rewards_N=rewards_N)
    return estimate_by_group(leave_one_out, group_ids_N, valid_N, rewards_N)
