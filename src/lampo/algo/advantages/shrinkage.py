"""Shrinkage baselines: the mean of the other rollouts, drawn towards that of the other problems."""

from __future__ import annotations

import torch
from torch import Tensor

from .groups import check_rows, groups_by_size

EPSILON = 1e-6
"""Added to the denominator of lambda, as in the authors' code."""


@torch.no_grad()
def shrinkage_advantages(rewards_N: Tensor, group_ids_N: Tensor, *, valid_N: Tensor | None = None) -> Tensor:
    r"""The reward above a James-Stein estimate of its problem's mean reward.

        A_i    = R_i - (1 - lambda) m_i - lambda M
        m_i    = mean reward of the other rollouts of the group (RLOO's baseline)
        M      = mean reward of all rollouts of the other groups
        lambda = v / (v + s + 1e-6)
        v      = mean over the other groups of var(R) / G          how far the mean of a group is from what it estimates
        s      = mean over the other groups of (mean(R) - their mean)^2

    Shrinkage baselines, arXiv 2511.03710 (JSPO in the authors' code, which this follows to the epsilon). Neither lambda nor M looks at
    the group itself, so the baseline of a rollout does not depend on it, and the gradient keeps its expectation. With lambda = 0 it is
    RLOO, arXiv 2402.14740; so it is where there is one group alone.

    Args:
        rewards_N: (N,) rewards; rows that are not valid may hold NaN.
        group_ids_N: (N,) integers, in any order; groups may differ in size.
        valid_N: (N,) bool; None means that every row is valid.

    Returns:
        (N,) advantages, float64 for float64 rewards and float32 for all others; 0 for a rollout without a peer, whose group counts for
        no other one, and for rows that are not valid. As under REINFORCE++ a group whose rewards are all equal has a gradient.

    Raises:
        ValueError: shapes that differ, ids that are not integers, a valid reward that is not finite.

    >>> rewards_N, group_ids_N = torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.tensor([0, 0, 1, 1])
    >>> shrinkage_advantages(rewards_N, group_ids_N)  # group 0: v = s = 0, so lambda is 0; group 1: v = 1/4, s = 0, lambda is 1
    tensor([ 1.0000, -1.0000,  0.5000,  0.5000])
    """
    valid_N, rewards_N = check_rows(group_ids_N, valid_N, rewards_N=rewards_N)
    advantages_N = torch.zeros_like(rewards_N)
    groups = [rows_G for rows_BG in groups_by_size(group_ids_N, valid_N) if rows_BG.shape[1] > 1 for rows_G in rows_BG]
    if not groups:
        return advantages_N
    sizes_P = torch.tensor([len(rows_G) for rows_G in groups], dtype=rewards_N.dtype, device=rewards_N.device)
    means_P = torch.stack([rewards_N[rows_G].mean() for rows_G in groups])
    errors_P = torch.stack([rewards_N[rows_G].var() for rows_G in groups]) / sizes_P
    for index, rows_G in enumerate(groups):
        rewards_G = rewards_N[rows_G]
        of_others_G = (rewards_G.sum() - rewards_G) / (len(rows_G) - 1)
        others = torch.arange(len(groups), device=rewards_N.device) != index
        baseline_G = of_others_G
        if others.any():
            v, s = errors_P[others].mean(), (means_P[others] - means_P[others].mean()).square().mean()
            share = v / (v + s + EPSILON)
            overall = (means_P[others] * sizes_P[others]).sum() / sizes_P[others].sum()
            baseline_G = (1 - share) * of_others_G + share * overall
        advantages_N[rows_G] = rewards_G - baseline_G
    return advantages_N
