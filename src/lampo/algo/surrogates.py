r"""What stands in for the expected reward in an update: one function for each published surrogate.

All take the tokens of a micro-batch, zero on padding, and return what is to be minimised, token by token:

    log_ratio_NT    log pi(o_it) - log pi_old(o_it), with gradient
    logprobs_NT     log pi(o_it), with gradient
    advantages_NT   A_i or A_it, broadcast to the tokens
    mask_NT         the tokens of the loss

Each is called with those of clip_low, clip_high and beta that it names. `registry` lists them.

A surrogate of a whole response is given to each of its tokens, so that its mean over them is the surrogate. Advantages that
differ between the tokens of a response are only told apart by `token` and `cispo`: the others spread their mean over all tokens.
Where pi = pi_old all but `gvpo` have the same gradient up to the aggregation: that of REINFORCE.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """The tokens of a micro-batch, see the head of this module. Only gvpo reads `group_ids_N`."""

    log_ratio_NT: Tensor
    logprobs_NT: Tensor
    advantages_NT: Tensor
    mask_NT: Tensor
    group_ids_N: Tensor | None = None

    def mean(self, values_NT: Tensor) -> Tensor:
        """(N, 1) mean over the tokens of each row, of values that are zero on padding."""
        return values_NT.sum(1, keepdim=True) / self.mask_NT.sum(1, keepdim=True).clamp(min=1)


class Terms(NamedTuple):
    """What is minimised, and the tokens whose gradient the clip took away because their ratio was too low or too high."""

    losses_NT: Tensor
    too_low_NT: Tensor
    too_high_NT: Tensor


def token_terms(tokens: Tokens, clip_low: float, clip_high: float) -> Terms:
    """PPO (arXiv 1707.06347): -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) with the ratio r of each token."""
    mask_NT, log_ratio_NT, advantages_NT = tokens.mask_NT, tokens.log_ratio_NT, tokens.advantages_NT
    with torch.no_grad():
        ratio_NT = log_ratio_NT.exp()
        too_low_NT = mask_NT & (advantages_NT < 0) & (ratio_NT < 1 - clip_low)
        too_high_NT = mask_NT & (advantages_NT > 0) & (ratio_NT > 1 + clip_high)
        free_NT = mask_NT & (advantages_NT != 0) & ~too_low_NT & ~too_high_NT
        bounded_ratio_NT = torch.where(mask_NT, ratio_NT.clamp(1 - clip_low, 1 + clip_high), 0.0)
    # min(r A, clip(r) A) is r A where r is free, and a constant where the clip binds or A is 0; padding is 0.
    # The inner where keeps an overflowing ratio away from tokens that are not free: infinity times 0 is NaN.
    free_ratio_NT = torch.where(free_NT, log_ratio_NT, 0.0).exp()
    losses_NT = -torch.where(free_NT, free_ratio_NT, bounded_ratio_NT) * advantages_NT
    return Terms(losses_NT, too_low_NT, too_high_NT)


def sequence_terms(tokens: Tokens, clip_low: float, clip_high: float) -> Terms:
    """GSPO (arXiv 2507.18071): as PPO, with one ratio a response, s_i = exp(mean_t log r_it)."""
    log_ratio_NT = tokens.mean(tokens.log_ratio_NT).expand_as(tokens.mask_NT)
    whole = Tokens(log_ratio_NT, tokens.logprobs_NT, tokens.advantages_NT, tokens.mask_NT)
    return token_terms(whole, clip_low, clip_high)


def geometric_terms(tokens: Tokens, clip_low: float, clip_high: float) -> Terms:
    """GMPO (arXiv 2507.20673): the geometric mean of the clipped ratios of a response.

        -A exp(mean_t c_t),   c_t = min(log r_t, clip_high) where A > 0,  max(log r_t, -clip_low) where A < 0

    The clip is one of log-ratios: 0.4 is the range from 0.67 to 1.49.
    """
    log_ratio_NT, advantages_NT, mask_NT = tokens.log_ratio_NT, tokens.advantages_NT, tokens.mask_NT
    with torch.no_grad():
        too_low_NT = mask_NT & (advantages_NT < 0) & (log_ratio_NT < -clip_low)
        too_high_NT = mask_NT & (advantages_NT > 0) & (log_ratio_NT > clip_high)
    clipped_NT = torch.where(too_low_NT, -clip_low, torch.where(too_high_NT, clip_high, log_ratio_NT))
    idle_N1 = (advantages_NT == 0).all(1, keepdim=True)
    clipped_NT = torch.where(idle_N1, 0.0, clipped_NT)  # no advantage: its ratio may overflow, and is not asked
    losses_NT = torch.where(mask_NT, -tokens.mean(clipped_NT).exp() * advantages_NT, 0.0)
    return Terms(losses_NT, too_low_NT, too_high_NT)


def cispo_terms(tokens: Tokens, clip_low: float, clip_high: float) -> Terms:
    """CISPO (arXiv 2506.13585): REINFORCE with clipped importance weights. No token loses its gradient.

    -sg(clip(r, 1 - clip_low, 1 + clip_high)) A log pi, where sg lets no gradient through. The tokens told as too low or too
    high are those whose weight was clipped.
    """
    mask_NT = tokens.mask_NT
    with torch.no_grad():
        ratio_NT = tokens.log_ratio_NT.exp()
        weights_NT = ratio_NT.clamp(1 - clip_low, 1 + clip_high) * tokens.advantages_NT
        too_low_NT, too_high_NT = mask_NT & (ratio_NT < 1 - clip_low), mask_NT & (ratio_NT > 1 + clip_high)
    counted_NT = mask_NT & (weights_NT != 0)  # a weight of 0 times a log-prob of minus infinity is NaN
    return Terms(-weights_NT * torch.where(counted_NT, tokens.logprobs_NT, 0.0), too_low_NT, too_high_NT)


def gvpo_terms(tokens: Tokens, beta: float) -> Terms:
    r"""GVPO (arXiv 2504.19599): half the squared distance of centred implicit rewards from centred rewards.

        l_i = G/(G-1) * 1/2 (beta (h_i - mean_j h_j) - A_i)^2,   h_i = sum_t log r_it,   A_i = R_i - mean_j R_j

    The mean over a group's rows is the paper's sum divided by G - 1. No clip: the distance itself holds the policy near
    pi_old, at the optimum of reward minus beta KL. All rows of a group must be here, those whose advantage is 0 too.
    """
    if tokens.group_ids_N is None:
        raise ValueError("the surrogate gvpo compares the rows of a group: give group_ids_N")
    _, groups_N = tokens.group_ids_N.unique(return_inverse=True)
    sizes_G = torch.bincount(groups_N)
    sums_N = tokens.log_ratio_NT.sum(1)
    means_G = torch.zeros_like(sums_N[: len(sizes_G)]).index_add(0, groups_N, sums_N) / sizes_G
    sizes_N = sizes_G[groups_N]
    distances_N = beta * (sums_N - means_G[groups_N]) - tokens.mean(tokens.advantages_NT * tokens.mask_NT).squeeze(1)
    losses_N = 0.5 * distances_N.square() * sizes_N / (sizes_N - 1).clamp(min=1)
    nothing_NT = torch.zeros_like(tokens.mask_NT)
    return Terms(torch.where(tokens.mask_NT, losses_N[:, None], 0.0), nothing_NT, nothing_NT)


gvpo_terms.whole_groups = True  # pyright: ignore[reportFunctionMemberAccess]


def needs_whole_groups(surrogate: Callable[..., Any]) -> bool:
    """Whether a surrogate compares the rows of a group, so that all of them, those without an advantage too, must go together.

    A function says so by its attribute `whole_groups`.
    """
    return getattr(surrogate, "whole_groups", False)
