"""GRPO: the reward standardised inside its group."""

from __future__ import annotations

import torch
from torch import Tensor

from .groups import GROUP_STD_EPSILON, centred, check_negative, check_rows, estimate_by_group, standard_deviation


@torch.no_grad()
def grpo_advantages(
    rewards_N: Tensor,
    group_ids_N: Tensor,
    *,
    valid_N: Tensor | None = None,
    std: bool = True,
    negative: float = 1.0,
) -> Tensor:
    r"""How many standard deviations a reward lies above the mean of its group.

        A_i = (R_i - mean(R)) / (std(R) + 1e-4)        std unbiased (ddof 1); times `negative` where that is below 0

    GRPO, arXiv 2402.03300; unbiased std and epsilon as in TRL's GRPOTrainer. Without std it is the advantage of
    Dr. GRPO, arXiv 2503.20783, and (G-1)/G of RLOO's. `negative` is ours: less push against the worse half, as LamPO has
    it where the better responses are the likelier ones, but without looking at what is likely. Asymmetric REINFORCE, arXiv
    2506.20520, lowers the baseline to the same end.

    Args:
        rewards_N: (N,) rewards; rows that are not valid may hold NaN.
        group_ids_N: (N,) integers, in any order; groups may differ in size.
        valid_N: (N,) bool; None means that every row is valid.
        std: divide by the group's standard deviation.
        negative: factor of the advantages below 0, at least 0.

    Returns:
        (N,) advantages, float64 for float64 rewards and float32 for all others. They sum to 0 in each group if `negative` is 1;
        they are exactly 0 for a group without reward spread, for a rollout without a peer, and for rows that are not valid.

    Raises:
        ValueError: shapes that differ, ids that are not integers, a valid reward that is not finite, `negative` neither 0 nor
            finite and positive.

    >>> grpo_advantages(torch.tensor([1.0, 0.0, 0.0, 5.0]), torch.tensor([0, 0, 0, 1]), std=False)
    tensor([ 0.6667, -0.3333, -0.3333,  0.0000])
    """

    check_negative(negative)

    def standardise(rewards_BG: Tensor) -> Tensor:
        deviations_BG = centred(rewards_BG)
        deviations_BG = torch.where(deviations_BG < 0, negative * deviations_BG, deviations_BG)
        return deviations_BG / (standard_deviation(rewards_BG) + GROUP_STD_EPSILON) if std else deviations_BG

    valid_N, rewards_N = check_rows(group_ids_N, valid_N, rewards_N=rewards_N)
    return estimate_by_group(standardise, group_ids_N, valid_N, rewards_N)
