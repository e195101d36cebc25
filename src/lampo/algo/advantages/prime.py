"""PRIME: token rewards of an implicit process reward model and an outcome reward, each against the other rollouts."""

from __future__ import annotations

import torch
from torch import Tensor

from .groups import check_rows, estimate_by_group
from .rloo import rloo_advantages


@torch.no_grad()
def prime_advantages(
    token_rewards_NT: Tensor,
    rewards_N: Tensor,
    mask_NT: Tensor,
    group_ids_N: Tensor,
    *,
    valid_N: Tensor | None = None,
    gamma: float = 1.0,
) -> Tensor:
    r"""The return of the token rewards that follow, and the outcome, each above the mean of the other rollouts.

        b_i  = 1/(K-1) sum_{j != i} mean_s r_js
        A_it = sum_{s >= t} gamma^(s-t) (r_is - b_i)  +  R_i - 1/(K-1) sum_{j != i} R_j

    over the K valid rollouts of a group. PRIME, arXiv 2502.01456, section 3.2. Where every token reward is 0 it is RLOO, arXiv
    2402.14740. The authors' code takes K/(K-1) r_is - 1/(K-1) sum_j mean_s r_js in place of r_is - b_i, which is the same where a
    row's token rewards are all equal, and whitens the result over the batch. Both are left out here.

    Args:
        token_rewards_NT: (N, T) rewards of the tokens; padding and rows that are not valid may hold anything, NaN included.
        rewards_N: (N,) rewards of the whole responses; rows that are not valid may hold NaN.
        mask_NT: (N, T) True on the tokens of the completion.
        group_ids_N: (N,) integers, in any order; groups may differ in size.
        valid_N: (N,) bool; None means that every row is valid.
        gamma: discount of later token rewards, from 0 to 1.

    Returns:
        (N, T) advantages, at least float32: exactly 0 off the mask, for a rollout without a peer, and for rows that are not valid.
        Unlike under the other estimators a group whose outcomes are all equal has advantages where its token rewards differ. A row
        without tokens counts as one with a mean of 0.

    Raises:
        ValueError: shapes that differ, ids that are not integers, a gamma outside of [0, 1], a valid row that is not finite.

    >>> token_rewards_NT = torch.tensor([[0.5, 0.25], [0.25, 0.0]])
    >>> mask_NT = torch.tensor([[True, True], [True, False]])
    >>> prime_advantages(token_rewards_NT, torch.tensor([1.0, 0.0]), mask_NT, torch.tensor([0, 0]))
    tensor([[ 1.2500,  1.0000],
            [-1.1250,  0.0000]])
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be from 0 to 1; not {gamma}")
    if token_rewards_NT.dim() != 2 or token_rewards_NT.shape != mask_NT.shape or len(mask_NT) != len(rewards_N):
        raise ValueError(
            "token_rewards_NT and mask_NT must have the same shape (N, T) and rewards_N (N,), but the shapes are "
            f"{tuple(token_rewards_NT.shape)}, {tuple(mask_NT.shape)} and {tuple(rewards_N.shape)}"
        )
    mask_NT = mask_NT.bool()
    token_rewards_NT = torch.where(mask_NT, token_rewards_NT, 0.0)
    means_N = token_rewards_NT.sum(1) / mask_NT.sum(1).clamp(min=1)
    valid_N, means_N, rewards_N = check_rows(group_ids_N, valid_N, rewards_token_mean_N=means_N, rewards_N=rewards_N)
    has_peer_N = estimate_by_group(torch.ones_like, group_ids_N, valid_N, means_N).bool()
    baselines_N = estimate_by_group(mean_of_others, group_ids_N, valid_N, means_N)
    counted_NT = mask_NT & has_peer_N[:, None]
    rewards_NT = torch.where(counted_NT, token_rewards_NT.to(means_N.dtype) - baselines_N[:, None], 0.0)

    returns_NT, following_N = torch.zeros_like(rewards_NT), torch.zeros_like(means_N)
    for t in reversed(range(rewards_NT.shape[1])):
        following_N = rewards_NT[:, t] + gamma * following_N
        returns_NT[:, t] = following_N
    outcome_advantages_N = rloo_advantages(rewards_N, group_ids_N, valid_N=valid_N)
    return torch.where(counted_NT, returns_NT + outcome_advantages_N[:, None], 0.0)


def mean_of_others(values_BG: Tensor) -> Tensor:
    """For each member of a group the mean over the other members."""
    return (values_BG.sum(1, keepdim=True) - values_BG) / (values_BG.shape[1] - 1)
