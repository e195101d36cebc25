"""The estimators and surrogates by name, with their settings. Nothing here imports torch, so a recipe is read without it.

A new estimator is one file in `advantages/` and one class here. A new surrogate is one function in `surrogates.py` and one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from importlib import import_module
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ..options import OWN, OWN_PATH, Options, load_function, own_function_options, refuse_unnamed_options
from ..types import Normalizer, PeerWeight, Reduce, Scale, Weight


class EstimatorOptions(Options):
    """The section `advantage` of a recipe: an estimator and its settings.

    Attributes:
        implementation: the estimator's module in `advantages/` and its function there, as module.function.
        statistics: a function beside it, of (scores_N, group_ids_N, *, valid_N, **settings), whose numbers are logged as
            advantage/NAME; None: there are none.
    """

    implementation: ClassVar[str] = ""
    statistics: ClassVar[str | None] = None

    if TYPE_CHECKING:
        name: Any  # a Literal in each estimator: what a recipe selects it by

    @property
    def title(self) -> str:
        """What it is called."""
        return self.name

    @property
    def divides_by_mean(self) -> bool:
        """Whether it measures in units of a group's mean reward, so that no reward may be negative."""
        return False

    def load(self) -> Callable[..., Any]:
        """The estimator itself. Imports torch."""
        return _in_algo(f"advantages.{self.implementation}")

    def settings(self) -> dict[str, Any]:
        """What the estimator is called with, beside rewards, groups and scores."""
        return self.model_dump(exclude={"name"})


class PairwiseOptions(EstimatorOptions):
    """LamPO's Pairwise Decomposed Advantage (arXiv 2605.21235)."""

    implementation = "pairwise.pairwise_advantages"
    statistics = "pairwise.pair_statistics"

    name: Literal["pairwise"] = "pairwise"
    """The estimator."""
    reduce: Reduce = "mean"
    """A rollout's score: mean or sum of its token log-probabilities."""
    weight: Weight = "policy"
    """Confidence of a pair: a sigmoid of the score gap, see docs/method.md."""
    temperature: Annotated[float, Field(gt=0)] | Literal["auto", "calibrated"] = "auto"
    """tau of that sigmoid. auto: the root mean square of the group's score gaps. calibrated: that over the slope at which the weights fit
    the step's own rewards best, see docs/method.md."""
    normalizer: Normalizer = "peers"
    """Divide by the number of peers, or by the sum of the weights."""
    scale: Scale = "group_std"
    """group_std: divide by the standard deviation of the group's rewards, as GRPO does. group_mean: by their mean, as MaxRL does. none: do
    not."""
    peer_weight: PeerWeight = "equal"
    """How much a peer counts in the baseline. equal: RLOO, GRPO and LamPO. length: its tokens (OPO, arXiv 2505.23585). score_norm: an
    estimate of its squared gradient norm (the optimal baseline, arXiv 2602.07078)."""
    centred: bool = False
    """Take the mean of the group's advantages from each, so that they sum to 0."""
    negative: float = Field(default=1.0, ge=0)
    """Factor of negative advantages: below 1, less push against responses worse than their peers (ours)."""

    @property
    def divides_by_mean(self) -> bool:
        """See `EstimatorOptions.divides_by_mean`."""
        return self.scale == "group_mean"


class GrpoOptions(EstimatorOptions):
    """GRPO's advantage: group mean and standard deviation (arXiv 2402.03300)."""

    implementation = "grpo.grpo_advantages"

    name: Literal["grpo"] = "grpo"
    """The estimator."""
    std: bool = True
    """Divide by the standard deviation. false: Dr. GRPO (arXiv 2503.20783)."""
    negative: float = Field(default=1.0, ge=0)
    """Factor of negative advantages: below 1, less push against responses worse than the group's mean (ours)."""


class RlooOptions(EstimatorOptions):
    """RLOO's advantage: the mean of the other rollouts as baseline (arXiv 2402.14740)."""

    implementation = "rloo.rloo_advantages"

    name: Literal["rloo"] = "rloo"
    """The estimator."""


class ReinforcePpOptions(EstimatorOptions):
    """REINFORCE++'s advantage: standardised over the whole batch (arXiv 2501.03262)."""

    implementation = "reinforce_pp.reinforce_pp_advantages"

    name: Literal["reinforce_pp"] = "reinforce_pp"
    """The estimator."""
    baseline: Literal["none", "group"] = "none"
    """group: the mean of the group is taken from each reward first."""


class ShrinkageOptions(EstimatorOptions):
    """Shrinkage baselines: the mean of the other rollouts, drawn towards that of the other problems (arXiv 2511.03710)."""

    implementation = "shrinkage.shrinkage_advantages"

    name: Literal["shrinkage"] = "shrinkage"
    """The estimator."""


class MaxRlOptions(EstimatorOptions):
    """MaxRL's advantage: the reward above the group's mean, over that mean (arXiv 2602.02710)."""

    implementation = "maxrl.maxrl_advantages"

    name: Literal["maxrl"] = "maxrl"
    """The estimator."""

    @property
    def divides_by_mean(self) -> bool:
        """See `EstimatorOptions.divides_by_mean`."""
        return True


class OtbOptions(EstimatorOptions):
    """OTB's advantage: a baseline of least variance for each token (arXiv 2602.07078)."""

    implementation = "otb.otb_of_rollouts"

    name: Literal["otb"] = "otb"
    """The estimator."""


class ProcessRewardOptions(EstimatorOptions):
    """An estimator beside which a process reward model learns, and gives each token a reward."""

    beta: float = Field(default=0.05, gt=0)
    """A token's reward is beta times the log-ratio of the process reward model and its reference."""
    learning_rate_factor: float = Field(default=2.0, gt=0)
    """Learning rate of the process reward model in units of the policy's (1e-6 and 5e-7 in the paper)."""


class PrimeOptions(ProcessRewardOptions):
    """PRIME's advantage: token rewards of an implicit process reward model that learns beside the policy, and the reward, each against
    the other rollouts (arXiv 2502.01456). Memory: three models, two of them with gradients and AdamW's moments."""

    implementation = "prime.prime_advantages"

    name: Literal["prime"] = "prime"
    """The estimator."""


class OwnEstimatorOptions(EstimatorOptions):
    """Your own function f(rewards_N, group_ids_N, *, scores_N, valid_N, **options) -> (N,) or (N, T) advantages.

    It is called with the keywords that it names. `rollouts_N` gives it the rollouts, with their tokens and log-probabilities.
    """

    name: Literal["python"] = "python"
    """python:module.function is short for this and its `function`."""
    function: str = Field(pattern=OWN_PATH)
    """Where the function is imported from: module.function."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function. Other keys of the section are put here too."""

    @property
    def title(self) -> str:
        """See `EstimatorOptions.title`."""
        return self.function

    def load(self) -> Callable[..., Any]:
        """See `EstimatorOptions.load`.

        Raises:
            LampoError: it cannot be imported.
        """
        function = load_function(self.function, "the advantage")
        refuse_unnamed_options(function, self.options, f"The advantage {self.function}")
        return function

    def settings(self) -> dict[str, Any]:
        """See `EstimatorOptions.settings`."""
        return self.options


ESTIMATORS: dict[str, type[EstimatorOptions]] = {
    "pairwise": PairwiseOptions,
    "grpo": GrpoOptions,
    "rloo": RlooOptions,
    "reinforce_pp": ReinforcePpOptions,
    "shrinkage": ShrinkageOptions,
    "maxrl": MaxRlOptions,
    "otb": OtbOptions,
    "prime": PrimeOptions,
    "python": OwnEstimatorOptions,
}
"""All estimators by name."""

if TYPE_CHECKING:
    AdvantageOptions = EstimatorOptions
else:
    AdvantageOptions = Annotated[
        reduce(or_, ESTIMATORS.values()),
        Field(discriminator="name"),
        BeforeValidator(partial(own_function_options, known=())),
    ]


SURROGATES: dict[str, str] = {
    "token": "surrogates.token_terms",
    "sequence": "surrogates.sequence_terms",
    "geometric": "surrogates.geometric_terms",
    "cispo": "surrogates.cispo_terms",
    "gvpo": "surrogates.gvpo_terms",
}
"""All surrogates by name, and where each is defined below this folder."""


def check_surrogate(name: str) -> str:
    """The name itself, if it is one of SURROGATES or python:module.function.

    Raises:
        ValueError: it is neither.
    """
    if name not in SURROGATES and not name.startswith(OWN):
        raise ValueError(f"surrogate {name!r} must be one of {', '.join(SURROGATES)}, or {OWN}module.function")
    return name


def surrogate_function(name: str) -> Callable[..., Any]:
    """The surrogate of that name, or the user's own. Imports torch.

    Raises:
        LampoError: the user's own cannot be imported.
        ValueError: there is no surrogate of that name.
    """
    if check_surrogate(name) in SURROGATES:
        return _in_algo(SURROGATES[name])
    return load_function(name.removeprefix(OWN), "the surrogate")


def _in_algo(path: str) -> Callable[..., Any]:
    module, _, name = path.rpartition(".")
    return getattr(import_module(f".{module}", __package__), name)
