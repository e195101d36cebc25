"""`LamPOTrainer` as a recipe drives it: its prompts, problems, rewards and seeds, and a step's groups kept for the run directory."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, TrainerCallback

from ...algo.estimate import Estimate
from ...config.schema import TrainConfig
from ...learner.optimizer import Optimizer, learning_rate
from ...model.policy import Policy
from ...model.prompts import encode_prompts
from ...rewards import score
from ...seeds import derive_seed
from ...types import Group, Problem, Rollout
from ...verify import VerifierPool
from ...verify.verification import Verification
from .config import LamPOConfig
from .rollouts import GatheredRows
from .trainer import LamPOTrainer


class Judge:
    """Verdicts and rewards of a recipe as one reward function for TRL. It keeps the groups, which TRL knows by their totals only."""

    none_is_unknown = True
    __name__ = "total"

    def __init__(self, config: TrainConfig, policy: Policy, pool: VerifierPool, problems: Sequence[Problem]) -> None:
        self._config = config
        self._policy = policy
        self._pool = pool
        self._problems = problems
        self.groups: list[Group] = []
        self.began = self.seconds = 0.0

    def __call__(self, completion_ids: Sequence[Sequence[int]], problem: Sequence[int], **_: Any) -> list[float | None]:
        """The total reward of each response; None where nobody can tell."""
        self.began = time.perf_counter()
        size = self._config.sampling.group_size
        problems_P = [self._problems[number] for number in problem[::size]]
        rollouts_N = [self._rollout(ids) for ids in completion_ids]
        rollouts_PG = [rollouts_N[start : start + size] for start in range(0, len(rollouts_N), size)]
        verdicts_PG = Verification(self._pool, problems_P, self._config.verifier).verdicts(
            rollouts_PG, drop_stragglers=True
        )
        self.groups = [
            score(each, rollouts_G, verdicts_G, self._config.rewards, self._config.sampling.max_new_tokens)
            for each, rollouts_G, verdicts_G in zip(problems_P, rollouts_PG, verdicts_PG, strict=True)
        ]
        self.seconds = time.perf_counter() - self.began
        return [reward.total if reward.valid else None for group in self.groups for reward in group.rewards_G]

    def _rollout(self, token_ids: Sequence[int]) -> Rollout:
        ids = torch.tensor(token_ids, dtype=torch.int64)
        finished = bool(token_ids) and token_ids[-1] in self._policy.end_ids
        return Rollout(
            torch.zeros(1, dtype=torch.int64), ids, torch.zeros(len(ids)), finished, self._policy.decode(ids.tolist())
        )


@dataclass(slots=True)
class Sampled:
    """What a generation batch came to, of all processes.

    Attributes:
        groups_P: with the log-probs that the advantages were computed with, where `has_logprobs`, else with zeros.
        estimate: their advantages.
        has_logprobs: whether the advantage asked for log-probs; TRL has them only then.
        seconds: by part of the step, on this process.
    """

    groups_P: list[Group]
    estimate: Estimate
    has_logprobs: bool
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def teaches(self) -> bool:
        """Whether any row has an advantage."""
        return bool(self.estimate.advantages_N.count_nonzero())


class RecipeTrainer(LamPOTrainer):
    """`LamPOTrainer` whose prompts are tokenised, whose order of problems is, and whose learning rate runs as in `lampo train`.

    Args:
        config: the recipe.
        policy: what it trains; the native engine's sampler measures it between steps.
        pool: verifies.
        problems: those of the steps to do, in the order of the steps.
        optimizer: of the policy, with the state it goes on from.
        first_step: of those to do.
        args: TRL's settings, of `translate.settings`.
    """

    def __init__(
        self,
        config: TrainConfig,
        policy: Policy,
        pool: VerifierPool,
        problems: Sequence[Problem],
        optimizer: Optimizer,
        first_step: int,
        args: LamPOConfig,
    ) -> None:
        self._recipe = config
        self._policy = policy
        self._first_step = first_step
        self._judge = Judge(config, policy, pool, problems)
        self.sampled: Sampled | None = None
        encoded = encode_prompts(problems, policy, config.prompt)
        # TRL would tokenise by rules of its own, so it is given the number of the problem as its prompt
        self._prompt_ids = {str(number): ids.tolist() for number, ids in enumerate(encoded)}
        rows = [{"prompt": str(number), "problem": number} for number in range(len(problems))]
        if torch.cuda.is_available() and args.parallel_mode.value == "not_distributed":
            args._n_gpu = 1  # one process trains on one GPU, and not through DataParallel on all
        super().__init__(
            policy.model,
            self._judge,
            args,
            train_dataset=Dataset.from_list(rows),
            processing_class=policy.tokenizer,
            optimizers=(optimizer.adamw, _schedule(optimizer, config, first_step)),
        )
        logging.getLogger("trl.trainer.grpo_trainer").addFilter(_is_news)
        self.remove_callback(PrinterCallback)
        self.add_callback(SkipsEmptySteps(self))

    @property
    def step(self) -> int:
        """The step of the recipe that is under way, from 1; TRL counts optimiser steps."""
        return self._first_step + self.state.global_step // self._recipe.training.updates_per_batch

    def _tokenize_prompts(self, prompts: list[str]) -> Any:
        return [self._prompt_ids[prompt] for prompt in prompts], None, {}

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        began, process = time.perf_counter(), self.accelerator.process_index
        torch.manual_seed(derive_seed(self._recipe.run.seed, "sample", self.step, process))
        batch = super()._generate_and_score_completions(inputs)
        assert self.sampled is not None
        verified = self._judge.began + self._judge.seconds
        self.sampled.seconds = {
            "time/sample": self._judge.began - began,
            "time/verify": self._judge.seconds,
            "time/score": time.perf_counter() - verified,
        }
        return batch

    def _estimated(self, rows: GatheredRows, estimate: Estimate) -> None:
        groups_P: list[Group] = gather_object(self._judge.groups)
        size, logprobs_NT = self._recipe.sampling.group_size, rows.logprobs_NT
        if logprobs_NT is not None:

            def told(group: Group, first: int) -> Group:
                rollouts_G = tuple(
                    replace(rollout, logprobs=logprobs_NT[row][rows.mask_NT[row]].float())
                    for row, rollout in enumerate(group.rollouts_G, start=first)
                )
                return replace(group, rollouts_G=rollouts_G)

            groups_P = [told(group, number * size) for number, group in enumerate(groups_P)]
        self.sampled = Sampled(groups_P, estimate, logprobs_NT is not None)


class SkipsEmptySteps(TrainerCallback):
    """Where no row has an advantage, the weights stay, as in `lampo train`: AdamW's momentum would move them."""

    def __init__(self, trainer: RecipeTrainer) -> None:
        self._trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Take away gradients that are all 0. Of parameters without one AdamW knows nothing."""
        sampled = self._trainer.sampled
        if sampled is not None and not sampled.teaches and self._trainer.beta == 0:
            for parameter in model.parameters():
                parameter.grad = None


def _is_news(record: logging.LogRecord) -> bool:
    """TRL prints a whole row, tokens and all, for each batch with an unknown response; `rollouts/unknown` counts them."""
    return "All reward functions returned None" not in record.getMessage()


def _schedule(optimizer: Optimizer, config: TrainConfig, first_step: int) -> LambdaLR:
    """The recipe's learning rate, the same for all updates of a step."""
    options, steps, updates = config.optimizer, config.training.steps, config.training.updates_per_batch

    def share(update: int) -> float:
        return learning_rate(min(first_step + update // updates, steps), steps, options) / options.learning_rate

    return LambdaLR(optimizer.adamw, share)


def gradients(model: Any) -> list[Tensor]:
    """Those that the optimiser is about to take."""
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
