"""Groups -> advantages: the recipe's choice of estimator, and what is logged about it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..types import Group
from .advantages import (
    concordance,
    group_statistics,
    grpo_advantages,
    pair_statistics,
    pairwise_advantages,
    prime_advantages,
    reinforce_pp_advantages,
    rloo_advantages,
    sequence_scores,
)
from .registry import AnyAdvantage, GrpoOptions, PairwiseOptions, PrimeOptions, ReinforcePpOptions, RlooOptions


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """Advantages of a step, with the scores they rest on and what to log; all rows in the order of the groups.

    Attributes:
        advantages_N: one a rollout; the mean over its tokens under PRIME.
        scores_N: mean or sum of the rollouts' log-probabilities.
        statistics: what to log.
        token_advantages_N: N tensors (T,), where the tokens of a rollout differ.
        left_out: indices of groups that the update leaves out.
    """

    advantages_N: Tensor
    scores_N: Tensor
    statistics: dict[str, float]
    token_advantages_N: tuple[Tensor, ...] | None = None
    left_out: frozenset[int] = frozenset()

    @property
    def weights_N(self) -> Tensor | tuple[Tensor, ...]:
        """What weighs the tokens in the update: the finest advantages that there are."""
        return self.advantages_N if self.token_advantages_N is None else self.token_advantages_N


def estimate_advantages(
    groups_P: Sequence[Group],
    options: AnyAdvantage,
    *,
    left_out: Collection[int] = (),
    token_rewards: Sequence[Tensor] | None = None,
) -> Estimate:
    """The method: one pure call on rewards, scores and group ids. Rows without a reward are not valid and get 0.

    Args:
        groups_P: the groups.
        options: which estimator, and its settings.
        left_out: indices of groups that are treated as if no row of theirs were valid.
        token_rewards: N tensors (T,); PRIME only.
    """
    rollouts = [(index, rollout) for index, group in enumerate(groups_P) for rollout in group.rollouts_G]
    rewards = [reward for group in groups_P for reward in group.rewards_G]
    rewards_N = torch.tensor([reward.total for reward in rewards])
    group_ids = [index for index, _ in rollouts]
    valid_N = torch.tensor(
        [reward.valid and index not in left_out for index, reward in zip(group_ids, rewards, strict=True)]
    )
    group_ids_N = torch.tensor(group_ids)
    reduce = options.reduce if isinstance(options, PairwiseOptions) else "mean"
    scores_N = torch.cat(
        [sequence_scores(rollout.logprobs[None], _all(rollout.logprobs), reduce=reduce) for _, rollout in rollouts]
    )

    groups = group_statistics(rewards_N, group_ids_N, valid_N=valid_N)
    statistics = {
        "advantage/groups_without_spread": groups["share_without_spread"],
        "advantage/groups_without_peer": groups["groups_without_peer"],
    }
    agreement = concordance(rewards_N, scores_N, group_ids_N, valid_N=valid_N)
    if agreement is not None:
        statistics["advantage/concordance"] = agreement
    token_advantages_N = None
    match options:
        case PairwiseOptions():
            settings = options.model_dump(exclude={"name", "reduce"})
            advantages_N = pairwise_advantages(rewards_N, scores_N, group_ids_N, valid_N=valid_N, **settings)
            pairs = pair_statistics(rewards_N, scores_N, group_ids_N, valid_N=valid_N, **settings)
            statistics |= {
                "advantage/saturation": pairs["share_saturated"],
                "advantage/temperature": pairs["mean_temperature"],
            }
        case GrpoOptions():
            settings = options.model_dump(exclude={"name"})
            advantages_N = grpo_advantages(rewards_N, group_ids_N, valid_N=valid_N, **settings)
        case RlooOptions():
            advantages_N = rloo_advantages(rewards_N, group_ids_N, valid_N=valid_N)
        case ReinforcePpOptions():
            advantages_N = reinforce_pp_advantages(rewards_N, group_ids_N, valid_N=valid_N, baseline=options.baseline)
        case PrimeOptions():
            if token_rewards is None:
                raise ValueError("the estimator prime needs token_rewards")
            lengths = [len(token_rewards_T) for token_rewards_T in token_rewards]
            mask_NT = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
            advantages_NT = prime_advantages(
                pad_sequence(list(token_rewards), batch_first=True),
                rewards_N,
                mask_NT,
                group_ids_N,
                valid_N=valid_N,
                gamma=options.gamma,
            )
            advantages_N = advantages_NT.sum(1) / mask_NT.sum(1).clamp(min=1)
            token_advantages_N = tuple(row_T[:length] for row_T, length in zip(advantages_NT, lengths, strict=True))
    if any(reward.num_credited is not None for reward in rewards):
        token_advantages_N = tuple(
            advantage * (torch.arange(T := len(rollout.completion_ids)) < (T if credited is None else credited))
            for advantage, (_, rollout), credited in zip(
                advantages_N, rollouts, [reward.num_credited for reward in rewards], strict=True
            )
        )
    statistics |= {
        "advantage/sum": float(advantages_N.sum()),
        "advantage/mean_absolute": float(advantages_N.abs().mean()),
    }
    return Estimate(advantages_N, scores_N, statistics, token_advantages_N, frozenset(left_out))


def _all(logprobs_T: Tensor) -> Tensor:
    return torch.ones(1, len(logprobs_T), dtype=torch.bool)
