"""REINFORCE++: the reward standardised over the whole batch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .groups import GROUP_STD_EPSILON, centred, check_option, check_rows, estimate_by_group, standard_deviation


@torch.no_grad()
def reinforce_pp_advantages(
    rewards_N: Tensor,
    group_ids_N: Tensor,
    *,
    valid_N: Tensor | None = None,
    baseline: Literal["none", "group"] = "none",
) -> Tensor:
    r"""How many standard deviations of the batch a reward lies above the mean of the batch, or of its group.

        C_i = R_i                              baseline = none    (REINFORCE++)
            | R_i - mean_{group of i}(R)       baseline = group   (REINFORCE++ with baseline)
        A_i = (C_i - mean(C)) / (std(R) + 1e-4)                   mean and std over all valid rows, std unbiased (ddof 1)

    REINFORCE++, arXiv 2501.03262. Under the group baseline mean(C) is 0. The std is that of the rewards, as TRL divides under
    `scale_rewards="batch"`. The authors divide by that of C, which differs by one factor for the whole batch.

    Args:
        rewards_N: (N,) rewards; rows that are not valid may hold NaN.
        group_ids_N: (N,) integers, in any order; groups may differ in size.
        valid_N: (N,) bool; None means that every row is valid.
        baseline: none or group.

    Returns:
        (N,) advantages, float64 for float64 rewards and float32 for all others; 0 for rows that are not valid. Without a group
        baseline a group whose rewards are all equal has a gradient too, unlike under every other estimator here: towards it
        where they are better than the batch, away from it where they are worse.

    Raises:
        ValueError: shapes that differ, ids that are not integers, a valid reward that is not finite.

    >>> rewards_N, group_ids_N = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([0, 0, 1, 1])
    >>> reinforce_pp_advantages(rewards_N, group_ids_N)
    tensor([ 0.8659,  0.8659, -0.8659, -0.8659])
    >>> reinforce_pp_advantages(rewards_N, group_ids_N, baseline="group")
    tensor([0., 0., 0., 0.])
    """
    check_option("baseline", baseline, ("none", "group"))
    valid_N, rewards_N = check_rows(group_ids_N, valid_N, rewards_N=rewards_N)
    advantages_N = torch.zeros_like(rewards_N)
    if valid_N.sum() < 2:
        return advantages_N
    whole_1N = rewards_N[valid_N][None]
    if baseline == "group":
        advantages_N = estimate_by_group(centred, group_ids_N, valid_N, rewards_N)
    else:
        advantages_N[valid_N] = centred(whole_1N)[0]
    return advantages_N / (standard_deviation(whole_1N) + GROUP_STD_EPSILON).squeeze()
