"""Groups -> advantages, step after step: the pure estimate, and what some methods keep between steps for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..algo.estimate import Estimate, estimate_advantages
from ..algo.registry import ProcessRewardOptions
from ..config.schema import TrainConfig
from ..learner.optimizer import Optimizer
from ..learner.process_reward_model import ProcessRewards
from ..learner.spread_filter import SpreadFilter
from ..model.policy import Policy
from ..types import Group
from .checkpoint import Companion


class Estimator:
    """The recipe's estimator with its companions.

    Attributes:
        companions: by name; none for most methods.
    """

    def __init__(self, config: TrainConfig, starting_policy: Callable[[], Policy]) -> None:
        """`starting_policy` loads another copy of the policy that reinforcement learning starts from."""
        self._options = config.advantage
        self._spread_filter = None if config.spread_filter is None else SpreadFilter(config.spread_filter)
        self._process_rewards = None
        if isinstance(config.advantage, ProcessRewardOptions):
            rate = config.optimizer.learning_rate * config.advantage.learning_rate_factor
            model = starting_policy()
            optimizer = Optimizer(
                model, config.optimizer.model_copy(update={"learning_rate": rate}), config.training.steps
            )
            self._process_rewards = ProcessRewards(
                model, model.copy_weights(), optimizer, config.advantage, config.training.budget
            )
        named = {"spread_filter": self._spread_filter, "process_rewards": self._process_rewards}
        self.companions: dict[str, Companion] = {name: part for name, part in named.items() if part is not None}

    def estimate(self, groups_P: Sequence[Group], step: int) -> Estimate:
        """Advantages of a step. The companions learn from its groups.

        Raises:
            NotFinite: a companion's gradient is not finite.
        """
        left_out, token_rewards, record = frozenset[int](), None, {}
        if self._spread_filter is not None:
            left_out, record = self._spread_filter.left_out(groups_P, step)
        if self._process_rewards is not None:
            token_rewards, learned = self._process_rewards.learn(groups_P, step)
            record = record | learned
        estimate = estimate_advantages(groups_P, self._options, left_out=left_out, token_rewards=token_rewards)
        return replace(estimate, statistics=estimate.statistics | record)
