"""Where sampler and learner are two programs: how far their log-probs are apart, and weights that put it right."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from .advantages.groups import check_option


def importance_weights(
    learner_logprobs_NT: Tensor,
    sampler_logprobs_NT: Tensor,
    mask_NT: Tensor,
    *,
    level: Literal["token", "sequence"],
    cap: float = 2.0,
) -> Tensor:
    r"""Truncated importance weights from the sampler's distribution to the learner's.

        w_it = min(exp(d_it), cap)          level = token
        w_i  = min(exp(sum_t d_it), cap)    level = sequence, the same for all tokens of a response
        d_it = log pi_learner(o_it) - log pi_sampler(o_it)

    Both are the same policy, computed by two programs: their kernels and precisions differ. A loss whose terms are multiplied by
    w is an expectation under the learner again. The weight of a whole response is unbiased up to the cap and varies more. That of a token
    leaves out how likely the tokens before it were. The cap bounds the variance (Ionides 2008; IMPALA, arXiv 1802.01561). For sampler and
    learner of a language model: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training". TRL
    (`vllm_importance_sampling_mode`: token_truncate, sequence_truncate) and verl (`rollout_is`: token, sequence) compute the same.

    Args:
        learner_logprobs_NT: (N, T) log-probs under the learner, before the step's first update.
        sampler_logprobs_NT: (N, T) log-probs that the tokens were drawn with.
        mask_NT: (N, T) True on completion tokens. What the others hold elsewhere does not matter.
        level: token or sequence.
        cap: the largest weight; positive.

    Returns:
        (N, T) weights without gradient, at least float32. From 0 to cap, 0 on padding, and 1 where both agree.

    Raises:
        ValueError: another level, or a cap that is not positive.

    >>> learner_NT, sampler_NT = torch.tensor([[0.5, 0.9]]).log(), torch.tensor([[0.4, 0.3]]).log()
    >>> importance_weights(learner_NT, sampler_NT, torch.ones(1, 2), level="token")  # 0.5 / 0.4, and 3 is capped
    tensor([[1.2500, 2.0000]])
    """
    check_option("level", level, ("token", "sequence"))
    if not cap > 0:
        raise ValueError(f"cap must be positive; not {cap}")
    mask_NT = mask_NT.bool()
    dtype = torch.promote_types(learner_logprobs_NT.dtype, torch.float32)
    log_ratio_NT = torch.where(mask_NT, (learner_logprobs_NT - sampler_logprobs_NT).detach(), 0.0).to(dtype)
    if level == "sequence":
        log_ratio_NT = log_ratio_NT.sum(1, keepdim=True).expand_as(mask_NT)
    return torch.where(mask_NT, log_ratio_NT.exp().clamp(max=cap), 0.0)


def sampler_mismatch(log_ratio_M: Tensor) -> dict[str, float]:
    """How far the learner's log-probs are from the sampler's, over some tokens.

        mismatch_mean = mean |d|,   mismatch_max = max |d|,   kl = mean(exp(d) - d - 1)

    Args:
        log_ratio_M: (M,) d = log pi_learner - log pi_sampler of tokens that the sampler drew.

    Returns:
        The three numbers, in nats. kl is the k3 estimate of KL(sampler || learner). Without a token all are 0. NaN stays NaN.

    >>> sampler_mismatch(torch.tensor([0.5, -0.25]))["mismatch_mean"]
    0.375
    """
    if not log_ratio_M.numel():
        return {"mismatch_mean": 0.0, "mismatch_max": 0.0, "kl": 0.0}
    log_ratio_M = log_ratio_M.detach().double()
    absolute_M = log_ratio_M.abs()
    largest = math.nan if absolute_M.isnan().any() else float(absolute_M.max())
    return {
        "mismatch_mean": float(absolute_M.mean()),
        "mismatch_max": largest,
        "kl": float((log_ratio_M.expm1() - log_ratio_M).mean()),
    }
