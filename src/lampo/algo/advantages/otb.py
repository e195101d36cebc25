"""The optimal token baseline: at each token the baseline of least variance, of what has been sampled up to there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ...types import Rollout
from .groups import check_rows, groups_by_size

EPSILON = 1e-8
"""Added to the denominator of the baseline, as verl does."""


@torch.no_grad()
def otb_advantages(
    rewards_N: Tensor,
    group_ids_N: Tensor,
    logprobs_NT: Tensor,
    mask_NT: Tensor,
    *,
    valid_N: Tensor | None = None,
    sum_squares_NT: Tensor | None = None,
) -> Tensor:
    r"""The reward above a baseline of each token, to which a rollout counts by the norm of its score function up to there.

        A_it = R_i - B_t,        B_t = sum_j W_jt R_j / (sum_j W_jt + 1e-8)       over the rollouts j that have a token t
        W_jt = sum_{s <= t} 1 - 2 pi(o_js) + sum_v pi(v)^2

    OTB, arXiv 2602.07078, as verl 0.9.1 computes it (`optimal_token_baseline`): W is the squared norm of the gradient with respect to
    the logits, added up over tokens. Where the longest rollout of a group is alone, B is 0. The baseline of the whole rollout is
    `pairwise` with the peers' weights `score_norm`.

    Args:
        rewards_N: (N,) rewards; rows that are not valid may hold NaN here and in the log-probs.
        group_ids_N: (N,) integers, in any order; groups may differ in size.
        logprobs_NT: (N, T) log-probabilities under the policy that sampled; padding may hold anything, NaN included.
        mask_NT: (N, T) True on the tokens of the completion.
        valid_N: (N,) bool; None means that every row is valid.
        sum_squares_NT: (N, T) sum over the vocabulary of pi(v)^2. None, which is what training has: pi(o_t)^2 alone, its largest term
            where the policy is sure, so that a token counts (1 - pi(o_t))^2.

    Returns:
        (N, T) advantages, at least float32: exactly 0 off the mask, for a rollout without a peer, and for rows that are not valid. A
        group whose rewards are all equal has none (but for the epsilon), except where its longest rollout is alone.

    Raises:
        ValueError: shapes that differ, ids that are not integers, a valid reward or log-probability that is not finite.

    >>> logprobs_NT = torch.tensor([[0.9, 0.5], [0.5, 1.0]]).log()
    >>> mask_NT = torch.tensor([[True, True], [True, True]])
    >>> otb_advantages(torch.tensor([1.0, 0.0]), torch.tensor([0, 0]), logprobs_NT, mask_NT)  # W: 0.01, 0.26 and 0.25, 0.25
    tensor([[ 0.9615,  0.4902],
            [-0.0385, -0.5098]])
    """
    if logprobs_NT.dim() != 2 or logprobs_NT.shape != mask_NT.shape or len(mask_NT) != len(rewards_N):
        raise ValueError(
            "logprobs_NT and mask_NT must have the same shape (N, T) and rewards_N (N,), but the shapes are "
            f"{tuple(logprobs_NT.shape)}, {tuple(mask_NT.shape)} and {tuple(rewards_N.shape)}"
        )
    mask_NT = mask_NT.bool()
    logprobs_NT = torch.where(mask_NT, logprobs_NT, 0.0)
    valid_N, _, rewards_N = check_rows(group_ids_N, valid_N, logprobs_sum_N=logprobs_NT.sum(1), rewards_N=rewards_N)
    probabilities_NT = logprobs_NT.to(rewards_N.dtype).exp()
    squares_NT = probabilities_NT.square() if sum_squares_NT is None else sum_squares_NT.to(rewards_N.dtype)
    norms_NT = torch.where(mask_NT, 1 - 2 * probabilities_NT + squares_NT, 0.0).cumsum(1)
    advantages_NT = torch.zeros_like(norms_NT)
    for rows_BG in groups_by_size(group_ids_N, valid_N):
        if rows_BG.shape[1] < 2:
            continue
        for rows_G in rows_BG:
            rewards_G1, mask_GT = rewards_N[rows_G][:, None], mask_NT[rows_G]
            weights_GT = norms_NT[rows_G] * mask_GT
            baseline_T = (weights_GT * rewards_G1).sum(0) / (weights_GT.sum(0) + EPSILON)
            baseline_T = torch.where(mask_GT.sum(0) > 1, baseline_T, 0.0)
            advantages_NT[rows_G] = torch.where(mask_GT, rewards_G1 - baseline_T, 0.0)
    return advantages_NT


def otb_of_rollouts(
    rewards_N: Tensor, group_ids_N: Tensor, *, valid_N: Tensor, rollouts_N: Sequence[Rollout]
) -> Tensor:
    """`otb_advantages` from the log-probabilities that the rollouts were drawn with."""
    lengths_N = torch.tensor([len(rollout.completion_ids) for rollout in rollouts_N])
    logprobs_NT = pad_sequence([rollout.logprobs for rollout in rollouts_N], batch_first=True)
    mask_NT = torch.arange(logprobs_NT.shape[1]) < lengths_N[:, None]
    return otb_advantages(rewards_N, group_ids_N, logprobs_NT, mask_NT, valid_N=valid_N)
