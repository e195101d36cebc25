"""Groups -> advantages: the recipe's choice of estimator, and what is logged about it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .advantages import (
    Normalizer,
    Reduce,
    Scale,
    Weight,
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
from .options import Options
from .types import Group


class PairwiseOptions(Options):
    """LamPO's Pairwise Decomposed Advantage (arXiv 2605.21235)."""

    name: Literal["pairwise"]
    """The estimator."""
    reduce: Reduce = "mean"
    """A rollout's score: mean or sum of its token log-probabilities."""
    weight: Weight = "policy"
    """Confidence of a pair: a sigmoid of the score gap, see docs/method.md."""
    temperature: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """tau of that sigmoid; auto: the root mean square of the group's score gaps."""
    normalizer: Normalizer = "peers"
    """Divide by the number of peers, or by the sum of the weights."""
    scale: Scale = "none"
    """group_std: divide by the standard deviation of the group's rewards, as GRPO does."""


class GrpoOptions(Options):
    """GRPO's advantage: group mean and standard deviation (arXiv 2402.03300)."""

    name: Literal["grpo"]
    """The estimator."""
    std: bool = True
    """Divide by the standard deviation; false is Dr.GRPO (arXiv 2503.20783)."""
    negative: float = Field(default=1.0, ge=0)
    """Factor of negative advantages: below 1, less push against responses worse than the group's mean (ours)."""


class RlooOptions(Options):
    """RLOO's advantage: the mean of the other rollouts as baseline (arXiv 2402.14740)."""

    name: Literal["rloo"]
    """The estimator."""


class ReinforcePpOptions(Options):
    """REINFORCE++'s advantage: standardised over the whole batch (arXiv 2501.03262)."""

    name: Literal["reinforce_pp"]
    """The estimator."""
    baseline: Literal["none", "group"] = "none"
    """group: the mean of the group is taken from each reward first."""


class PrimeOptions(Options):
    """PRIME's advantage: token rewards of an implicit process reward model that learns beside the policy, and the reward, each against
    the other rollouts (arXiv 2502.01456). Memory: three models, two of them with gradients and AdamW's moments."""

    name: Literal["prime"]
    """The estimator."""
    beta: float = Field(default=0.05, gt=0)
    """A token's reward is beta times the log-ratio of the process reward model and its reference."""
    gamma: float = Field(default=1.0, ge=0, le=1)
    """Discount of later token rewards."""
    learning_rate_factor: float = Field(default=2.0, gt=0)
    """Learning rate of the process reward model in units of the policy's (1e-6 and 5e-7 in the paper)."""
    double_forward: bool = False
    """Reward tokens by the model after its step on the same rollouts, which costs a pass; off, as in the authors' script: before it."""


AnyAdvantage = PairwiseOptions | GrpoOptions | RlooOptions | ReinforcePpOptions | PrimeOptions
AdvantageOptions = Annotated[AnyAdvantage, Field(discriminator="name")]


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
