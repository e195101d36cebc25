"""Functions as a user of the package writes them."""

from __future__ import annotations

from typing import Any

import torch


def above_mean(rewards_N, group_ids_N, *, valid_N, power=1.0):
    advantages_N = torch.zeros_like(rewards_N)
    for group in group_ids_N.unique():
        rows = (group_ids_N == group) & valid_N
        gaps = rewards_N[rows] - rewards_N[rows].mean()
        advantages_N[rows] = gaps.sign() * gaps.abs() ** power
    return advantages_N


def plain_names(rewards, groups):
    return rewards - rewards.mean()


def by_token(rewards_N, group_ids_N, *, rollouts_N):
    T = max(len(rollout.completion_ids) for rollout in rollouts_N)
    return rewards_N[:, None].expand(-1, T)


def in_place(rewards_N, group_ids_N):
    advantages_N = rewards_N - rewards_N.mean()
    rewards_N.zero_()
    return advantages_N


def wrong_shape(rewards_N, group_ids_N):
    return rewards_N[:1]


def not_finite(rewards_N, group_ids_N):
    return rewards_N / 0


def raises(*args: Any, **kwargs: Any):
    return {}["no such key"]


def reinforce(tokens, clip_high):
    return -tokens.advantages_NT * tokens.log_ratio_NT.exp().clamp(max=1 + clip_high)


def shortness(completion, answer, *, num_tokens, prompt, limit=20, level=None):
    return float(num_tokens < limit) if level is None else float(level)


def lengths(completions, answers, prompt):
    assert len(completions) == len(answers) == len(prompt)
    return [len(completion) for completion in completions]


def unknown(completion, answer):
    return None


def leaves(completion, answer):
    raise SystemExit(3)


def no_number(completion, answer):
    return float("nan")


def huge(completion, answer):
    return 1e300


def asks(completion, answer, unit):
    return 1.0


def takes_one(completion):
    return 1.0


def text(completion, answer):
    return "good"


def closeness(completion, answer, tolerance=10):
    return max(0.0, 1 - abs(float(completion) - float(answer)) / tolerance)
