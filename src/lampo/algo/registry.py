"""The estimators and surrogates by name, and their settings; nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..options import Options
from ..types import Normalizer, Reduce, Scale, Weight


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

Surrogate = Literal["token", "sequence", "geometric", "cispo", "gvpo"]
