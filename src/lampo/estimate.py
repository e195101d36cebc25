"""Groups -> advantages: the recipe's choice of estimator, and what is logged about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from .advantages import (
    group_statistics,
    grpo_advantages,
    pair_statistics,
    pairwise_advantages,
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
    reduce: Literal["mean", "sum"] = "mean"
    """A rollout's score: mean or sum of its token log-probabilities."""
    weight: Literal["policy", "lambdarank", "better", "uniform"] = "policy"
    """Confidence of a pair: a sigmoid of the score gap, see docs/method.md."""
    temperature: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """tau of that sigmoid; auto: the root mean square of the group's score gaps."""
    normalizer: Literal["peers", "weights"] = "peers"
    """Divide by the number of peers, or by the sum of the weights."""
    scale: Literal["none", "group_std"] = "none"
    """group_std: divide by the standard deviation of the group's rewards, as GRPO does."""


class GrpoOptions(Options):
    """GRPO's advantage: group mean and standard deviation (arXiv 2402.03300)."""

    name: Literal["grpo"]
    """The estimator."""
    std: bool = True
    """Divide by the standard deviation; false is Dr.GRPO (arXiv 2503.20783)."""


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


AnyAdvantage = PairwiseOptions | GrpoOptions | RlooOptions | ReinforcePpOptions
AdvantageOptions = Annotated[AnyAdvantage, Field(discriminator="name")]


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """Advantages of a step, with the scores they rest on and what to log; all rows in the order of the groups."""

    advantages_N: Tensor
    scores_N: Tensor
    statistics: dict[str, float]


def estimate_advantages(groups_P: Sequence[Group], options: AnyAdvantage) -> Estimate:
    """The method: one pure call on rewards, scores and group ids. Rows with an unknown verdict are not valid and get 0."""
    rollouts = [(index, rollout) for index, group in enumerate(groups_P) for rollout in group.rollouts_G]
    rewards = [reward for group in groups_P for reward in group.rewards_G]
    rewards_N = torch.tensor([reward.total for reward in rewards])
    valid_N = torch.tensor([reward.valid for reward in rewards])
    group_ids_N = torch.tensor([index for index, _ in rollouts])
    reduce = options.reduce if isinstance(options, PairwiseOptions) else "mean"
    scores_N = torch.cat(
        [sequence_scores(rollout.logprobs[None], _all(rollout.logprobs), reduce=reduce) for _, rollout in rollouts]
    )

    groups = group_statistics(rewards_N, group_ids_N, valid_N=valid_N)
    statistics = {
        "advantage/groups_without_spread": groups["share_without_spread"],
        "advantage/groups_without_peer": groups["groups_without_peer"],
    }
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
            advantages_N = grpo_advantages(rewards_N, group_ids_N, valid_N=valid_N, std=options.std)
        case RlooOptions():
            advantages_N = rloo_advantages(rewards_N, group_ids_N, valid_N=valid_N)
        case ReinforcePpOptions():
            advantages_N = reinforce_pp_advantages(rewards_N, group_ids_N, valid_N=valid_N, baseline=options.baseline)
    statistics |= {
        "advantage/sum": float(advantages_N.sum()),
        "advantage/mean_absolute": float(advantages_N.abs().mean()),
    }
    return Estimate(advantages_N, scores_N, statistics)


def _all(logprobs_T: Tensor) -> Tensor:
    return torch.ones(1, len(logprobs_T), dtype=torch.bool)
