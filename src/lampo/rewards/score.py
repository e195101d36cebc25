"""Rollouts and verdicts -> rewards: every reward of the recipe, and their sum."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..types import Group, LampoError, Likelihood, Problem, Reward, Rollout, Verdict
from .likelihood import LikelihoodReward
from .reward import Responses, RewardOptions

MOST = 1e31
"""The largest total: float32 must hold the gaps between two."""


def score(
    problem: Problem,
    rollouts_G: Sequence[Rollout],
    verdicts_G: Sequence[Verdict],
    rewards: Sequence[RewardOptions],
    max_new_tokens: int,
    likelihoods_G: Sequence[Likelihood] | None = None,
) -> Group:
    """Reward all rollouts of one problem.

        R_i = sum over the rewards of weight * value_i

    A reward that does not apply (None, such as ROUGE-L without a reference) adds nothing. One that cannot tell (None from the verifier or
    from a function of the user's own) makes the row invalid: its total is NaN, and it is masked out, not scored 0. A reward with the
    weight 0 is not computed.

    Args:
        problem: the problem, with the answer and perhaps a reference solution.
        rollouts_G: its responses.
        verdicts_G: what the verifier says of them.
        rewards: those of the recipe, in the order of the sum.
        max_new_tokens: the greatest length of a response.
        likelihoods_G: see `lampo.learner.answer_likelihood`; None where no reward asks for it.

    >>> import torch
    >>> from lampo.rewards import RougeLReward, VerifierReward
    >>> one = torch.ones(1)
    >>> rollouts_G = [Rollout(one.long(), one.long(), -one, True, text) for text in ("7+5=12", "7+5=13")]
    >>> verdicts_G = [Verdict("right"), Verdict("wrong")]
    >>> rewards = [VerifierReward(), RougeLReward(weight=0.6)]
    >>> group = score(Problem("0", "7+5=", "12", "7+5=12"), rollouts_G, verdicts_G, rewards, 8)
    >>> [round(reward.total, 6) for reward in group.rewards_G]  # 0.6 * 5/6 for five tokens of six
    [1.6, 0.5]
    """
    texts_G, num_tokens_G = (
        [rollout.text for rollout in rollouts_G],
        [len(rollout.completion_ids) for rollout in rollouts_G],
    )
    responses = Responses(problem, texts_G, verdicts_G, num_tokens_G, max_new_tokens, likelihoods_G)
    parts_G, totals_G = add_up(rewards, responses)
    credited_G: list[int | None] = [None] * len(rollouts_G)
    if likelihoods_G is not None and any(
        isinstance(reward, LikelihoodReward) and reward.credit == "reasoning" for reward in rewards
    ):
        credited_G = [likelihood.num_tokens for likelihood in likelihoods_G]
    rewards_G = tuple(
        Reward(parts, total, credited) for parts, total, credited in zip(parts_G, totals_G, credited_G, strict=True)
    )
    return Group(problem, tuple(rollouts_G), tuple(verdicts_G), rewards_G)


def add_up(rewards: Sequence[RewardOptions], responses: Responses) -> tuple[list[dict[str, float | None]], list[float]]:
    """Every reward of every response by its title, and the totals. NaN where a reward cannot tell.

    Raises:
        LampoError: a total is too large to compute with.
    """
    parts_G: list[dict[str, float | None]] = [{} for _ in responses.texts_G]
    totals_G = [0.0] * len(responses.texts_G)
    for reward in rewards:
        if reward.weight == 0:
            continue
        for index, value in enumerate(reward.values(responses)):
            parts_G[index][reward.title] = value
            if value is not None:
                totals_G[index] += reward.weight * value
            elif reward.none_is_unknown:
                totals_G[index] = math.nan
    for parts, total in zip(parts_G, totals_G, strict=True):
        if abs(total) > MOST:
            told = ", ".join(f"{name} {value:g}" for name, value in parts.items() if value is not None)
            raise LampoError(
                f"The rewards of a response to problem {responses.problem.id!r} come to {total:g}, which is too large for float32: {told}. "
                "Bound them, or lower their weight."
            )
    return parts_G, totals_G
