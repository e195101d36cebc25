"""TRL's GRPOTrainer with the advantages of `lampo.algo`. It holds no mathematics: it converts names and shapes and calls ours."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer

from ...algo.estimate import Estimate, estimate_advantages
from ...algo.registry import OwnEstimatorOptions
from ...types import LampoError
from ..estimators import reads_logprobs
from .config import MEAN_OVER_ROWS, LamPOConfig
from .contract import check_contract
from .drawn import drawn_logprobs
from .rollouts import GatheredRows

logger = logging.getLogger("lampo")

# What a model that sees images is called with; TRL passes them on in the batch under the same names.
IMAGE_INPUTS = (
    "pixel_values",
    "image_grid_thw",
    "num_images",
    "pixel_attention_mask",
    "spatial_shapes",
    "num_tiles",
    "image_sizes",
    "token_type_ids",
    "mm_token_type_ids",
    "image_position_ids",
)
ROW_FACTOR = "rows_per_rewarded_row"
"""The batch's key for the factor that takes rows without a reward out of TRL's denominator."""


class LamPOTrainer(GRPOTrainer):
    """`GRPOTrainer` whose advantages are those of an estimator of LamPO, by default its pairwise one.

    It takes what `GRPOTrainer` takes, and a `LamPOConfig`. Two things change beside the advantage:

    - A row without a reward is in no group and in no denominator. That is a row for which a verifier could not tell, or for which
      all reward functions returned None, or whose tokens were all masked (`mask_truncated_completions`).
    - TRL's log, and its table of completions, show the advantages that were used.

    Raises:
        LampoError: `args` is no LamPOConfig, or this TRL has moved what the trainer relies on.
    """

    _tag_names = ["trl", "lampo"]  # noqa: RUF012
    _name = "LamPO"
    _paper = {}  # noqa: RUF012 (GRPO's would be wrong in the model card)

    args: LamPOConfig

    def __init__(self, model: Any, reward_funcs: Any = None, args: Any = None, *others: Any, **kwargs: Any) -> None:
        check_contract()
        if not isinstance(args, LamPOConfig):
            raise LampoError(
                f"LamPOTrainer needs args=LamPOConfig(...), which takes all settings of GRPOConfig; not {args!r:.60}."
            )
        super().__init__(model, reward_funcs, args, *others, **kwargs)
        self._estimator = self.args.estimator()
        self._reads_logprobs = reads_logprobs(self._estimator)
        self._none_is_unknown = torch.tensor(
            [getattr(reward, "none_is_unknown", False) for reward in self.reward_funcs]
        )
        self._rewards_NF = torch.empty(0)
        self._told: set[str] = set()
        self._drew_itself = False  # the rollouts of this batch, and told their log-probs

    @property
    def _mode(self) -> str:
        """The key of TRL's metrics; TRL decides it in the same way."""
        model: Any = self.model
        return "train" if model.training else "eval"

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        """The rewards of all processes, (N, F). An unknown row is NaN in every column, so TRL leaves it out of its statistics too."""
        rewards_NF = super()._calculate_rewards(*args, **kwargs)
        unclear_NF = rewards_NF.isnan()
        unknown_N = unclear_NF.all(1) | unclear_NF[:, self._none_is_unknown.to(unclear_NF.device)].any(1)
        self._rewards_NF = rewards_NF.masked_fill(unknown_N[:, None], torch.nan)
        return self._rewards_NF

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """TRL's completions. Where transformers' `generate` draws them, their log-probs come with them, as vLLM's do."""
        self._drew_itself = False
        if not self._reads_logprobs:
            return super()._generate_single_turn(*args, **kwargs)
        with drawn_logprobs(self.accelerator.unwrap_model(self.model_wrapped), self.temperature) as drawn:
            completion_ids, logprobs = super()._generate_single_turn(*args, **kwargs)
        if logprobs is None and drawn.logprobs_NT is not None:
            self._drew_itself = True
            rows = zip(drawn.logprobs_NT.tolist(), completion_ids, strict=True)
            logprobs = [row[: len(ids)] for row, ids in rows]
        return completion_ids, logprobs

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch with our advantages. The only place where the whole group is there: afterwards TRL shuffles the rows."""
        batch = super()._generate_and_score_completions(inputs)
        trainers, samplers = batch.get("old_per_token_logps"), batch.get("sampling_per_token_logps")
        if self._reads_logprobs and trainers is None and self.args.scores_from == "trainer":
            trainers = samplers if self._drew_itself else self._forward(batch)
        own, other = (trainers, samplers) if self.args.scores_from == "trainer" else (samplers, trainers)
        if self._reads_logprobs and own is None:
            raise LampoError(
                "scores_from='sampler' needs a sampler that returns log-probs: transformers' generate, use_vllm=True, or a rollout_func."
            )

        rows = self._gather(batch, own)
        estimate = self._estimate(rows)
        self._estimated(rows, estimate)
        self._log(rows, estimate)
        if self._reads_logprobs and other is not None and other is not own:
            self._compare(rows, estimate, self._gather(batch, other))

        here = slice(start := self.accelerator.process_index * len(inputs), start + len(inputs))
        advantages = estimate.advantages_N
        if estimate.by_token_N is not None:
            advantages = rows.spread_out(estimate.by_token_N)[:, : batch["completion_mask"].shape[1]]
        batch["advantages"] = advantages[here].to(batch["completion_ids"].device)
        self._leave_out(batch, rows.valid_N, here)
        return batch

    def _estimated(self, rows: GatheredRows, estimate: Estimate) -> None:
        """For subclasses: the rows of all processes with their advantages, in each process, once a generation batch."""

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """TRL's loss, whose denominator counts the rows that have a reward, and no others.

        TRL divides some of its losses by all rows. They are linear in the advantages and in the coefficient of the KL term, and nothing
        else (the entropy bonus, the experts' balance) depends on these two. So both carry the factor N / (rows with a reward).
        """
        factor, beta = float(inputs[ROW_FACTOR]), self.beta
        self.beta = beta * factor
        try:
            return super()._compute_loss(model, {**inputs, "advantages": inputs["advantages"] * factor})
        finally:
            self.beta = beta

    def _forward(self, batch: dict[str, Any]) -> Tensor:
        """The log-probs of the completions under the model as it is now, (B, T)."""
        self._tell_once(
            "Each generation batch costs one more forward pass: the advantage %s needs log-probs, and TRL has none with these settings.",
            self.args.advantage,
        )
        in_training = self._mode == "train"
        size = self.args.per_device_train_batch_size if in_training else self.args.per_device_eval_batch_size
        with torch.no_grad():
            logprobs, *_ = self._get_per_token_logps_and_entropies(
                self.model,
                torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
                torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1),
                batch["completion_ids"].shape[1],
                batch_size=size,
                **{name: batch[name] for name in IMAGE_INPUTS if name in batch},
            )
        return logprobs

    def _gather(self, batch: dict[str, Any], logprobs: Tensor | None) -> GatheredRows:
        """The rows of all processes, in TRL's order: a group may straddle two of them."""
        mask = (batch["completion_mask"] * batch.get("tool_mask", 1)).bool()
        if logprobs is not None:
            mask = mask & ~logprobs.isnan()  # vLLM cannot tell the log-prob of some tokens

        def everywhere(values: Tensor) -> Tensor:
            padded = self.accelerator.pad_across_processes(values.contiguous(), dim=1)
            gathered: Any = self.accelerator.gather(padded)
            return gathered.cpu()

        weights_F = self.reward_weights.to(self._rewards_NF.device)
        totals_N = (self._rewards_NF * weights_F).nansum(1).masked_fill(self._rewards_NF.isnan().all(1), torch.nan)
        return GatheredRows(
            rewards_NF=self._rewards_NF.cpu(),
            totals_N=totals_N.cpu(),
            prompt_ids=everywhere(batch["prompt_ids"]),
            prompt_mask=everywhere(batch["prompt_mask"]).bool(),
            completion_ids=everywhere(batch["completion_ids"]),
            mask_NT=everywhere(mask.long()).bool(),
            logprobs_NT=None if logprobs is None else everywhere(logprobs),
        )

    def _estimate(self, rows: GatheredRows) -> Estimate:
        decode = self._decode if isinstance(self._estimator, OwnEstimatorOptions) else None
        group_size: Any = self.num_generations if self._mode == "train" else self.num_generations_eval
        return estimate_advantages(rows.groups(group_size, self.reward_func_names, decode), self._estimator)

    def _decode(self, ids: Tensor) -> str:
        tokenizer: Any = self.processing_class  # or a processor that has one
        return tokenizer.batch_decode(ids[None], skip_special_tokens=True)[0]

    def _log(self, rows: GatheredRows, estimate: Estimate) -> None:
        """Our statistics beside TRL's, and our advantages where TRL has already written its own."""
        statistics = dict(estimate.statistics)
        if rows.logprobs_NT is None:
            statistics.pop("advantage/concordance", None)  # of scores that nobody computed
        statistics["advantage/rows_without_reward"] = float((~rows.valid_N).sum())
        metrics = self._metrics[self._mode]
        for name, value in statistics.items():
            metrics[name].append(value)
        logged, advantages = self._logs["advantages"], estimate.advantages_N.tolist()
        for _ in range(min(len(advantages), len(logged))):
            logged.pop()
        logged.extend(advantages)

    def _compare(self, rows: GatheredRows, used: Estimate, others: GatheredRows) -> None:
        """Log how far the log-probs of trainer and sampler lie apart, and warn where the advantages would be others."""
        other = self._estimate(others)
        size = float(used.advantages_N.abs().sum())
        change = float((used.advantages_N - other.advantages_N).abs().sum()) / size if size else 0.0
        metrics = self._metrics[self._mode]
        metrics["mismatch/advantages"].append(change)
        metrics["mismatch/scores"].append(float((used.scores_N - other.scores_N)[rows.valid_N].abs().mean()))
        if change > self.args.mismatch_tolerance:
            self._tell_once(
                "The log-probs of trainer and sampler disagree: with the other's, the advantages would differ by %.0f %% of their size. "
                "scores_from is %s. mismatch/advantages shows it at each step.",
                *(100 * change, self.args.scores_from),
            )

    def _leave_out(self, batch: dict[str, Any], valid_N: Tensor, here: slice) -> None:
        """Empty the rows that take no part, as TRL empties truncated ones, and count what is left."""
        valid_B1 = valid_N[here, None].to(batch["completion_mask"].device)
        batch["completion_mask"] = batch["completion_mask"] * valid_B1
        for name in ("old_per_token_logps", "ref_per_token_logps", "sampling_per_token_logps"):
            if name in batch:
                batch[name] = batch[name].masked_fill(~valid_B1, 0.0)
        num_tokens: Any = self.accelerator.gather((batch["completion_mask"] * batch.get("tool_mask", 1)).sum())
        batch["num_items_in_batch"] = num_tokens.sum().clamp(min=1)
        factor = len(valid_N) / max(int(valid_N.sum()), 1) if self.loss_type in MEAN_OVER_ROWS else 1.0
        batch[ROW_FACTOR] = torch.tensor(factor)

    def _tell_once(self, message: str, *values: Any) -> None:
        if message not in self._told and self.accelerator.is_main_process:
            logger.warning(message, *values)
        self._told.add(message)
