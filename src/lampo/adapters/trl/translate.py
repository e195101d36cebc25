"""A recipe -> the settings of `LamPOConfig`, and what of a recipe TRL cannot honour, by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...algo.registry import EstimatorOptions, OwnEstimatorOptions, ProcessRewardOptions
from ...config.schema import TrainConfig
from ...learner.budget import activation_bytes, choose_tokens
from ...messages import refuse_settings
from ...model.policy import choose_device, choose_dtype
from ...options import OWN
from ...rewards import LikelihoodReward

LOSS_TYPES = {"sequence": "grpo", "token": "dapo", "constant": "dr_grpo"}
"""TRL's loss by our aggregation: they divide by the same number."""
LEVELS = {"token": "token", "sequence": "sequence"}
"""TRL's level of importance weights by our surrogate."""
LOGITS = 3
"""TRL holds the logits of all tokens of a micro-batch at once, in float32, with a copy and a gradient; the native engine does not."""
LONGEST_WAIT_S = 7 * 24 * 3600
"""Processes wait so long for the first one, which evaluates alone."""


def refusals(config: TrainConfig) -> Iterator[str]:
    """The settings that TRL cannot honour, a sentence each."""
    loss, sampling, processes = config.loss, config.sampling, config.run.processes
    if loss.surrogate not in (*LEVELS, "cispo"):
        yield f"loss.surrogate is {loss.surrogate}: TRL has token, sequence and cispo."
    if loss.surrogate == "cispo" and loss.aggregation != "token":
        yield f"loss.aggregation is {loss.aggregation}: TRL divides cispo by tokens."
    if loss.surrogate == "cispo" and loss.clip_low < 1:
        yield f"loss.clip_low is {loss.clip_low:g}: TRL's cispo has no lower bound, which is loss.clip_low=1."
    if loss.kl_coefficient > 0 and config.model.lora is not None:
        yield "loss.kl_coefficient with model.lora: TRL would put a second adapter into the model, and into its checkpoints."
    if loss.kl_coefficient > 0 and config.model.allow_remote_code:
        yield "loss.kl_coefficient with model.allow_remote_code: TRL loads the reference without code of its own."
    if sampling.resample > 0:
        yield f"sampling.resample is {sampling.resample}: TRL has no dynamic sampling."
    if sampling.engine != "native":
        yield f"sampling.engine is {sampling.engine}: TRL samples by itself. Its own vLLM is a setting of LamPOTrainer (use_vllm)."
    if loss.sampler_correction != "off":
        yield f"loss.sampler_correction is {loss.sampler_correction}: TRL corrects its own vLLM only (vllm_importance_sampling_mode)."
    if config.optimizer.eight_bit_moments or config.warmstart.optimizer.eight_bit_moments:
        yield "optimizer.eight_bit_moments: the native engine alone keeps moments so."
    if config.spread_filter is not None:
        yield "spread_filter: TRL leaves no groups out."
    if isinstance(config.advantage, ProcessRewardOptions):
        yield f"advantage.name is {config.advantage.name}: it learns a second model beside the policy."
    if config.rewarded_by(LikelihoodReward):
        yield "the reward likelihood: the policy computes it, which TRL does not do."
    if sampling.problems_per_step % processes:
        yield (
            f"run.processes is {processes}, and sampling.problems_per_step is {sampling.problems_per_step}: "
            "it must be a multiple, so that no group is parted."
        )
    elif (rows := rows_per_process(config)) > sampling.rows_at_once:
        yield (
            f"sampling.rows_at_once is {sampling.rows_at_once}: TRL samples all {rows} rollouts of a process at once. "
            f"Raise it to {rows}, or lower the number of rollouts."
        )
    if config.model.device not in ("auto", "cpu", "cuda"):
        yield (
            f"model.device is {config.model.device}: TRL takes cpu or cuda. CUDA_VISIBLE_DEVICES chooses among several GPUs."
        )


def refuse(config: TrainConfig) -> None:
    """See `Engine.refuse`."""
    refuse_settings("The engine trl", refusals(config), "leave the engine out: the native one has them all.")


def rows_per_process(config: TrainConfig) -> int:
    """Rollouts that a process samples in a step."""
    return config.sampling.problems_per_step * config.sampling.group_size // config.run.processes


def budget(config: TrainConfig, model: Any, chosen: int) -> int:
    """Tokens of a micro-batch: what the recipe says, or where that is auto what was chosen for the native engine, and less for logits.

    Args:
        config: the recipe, which may say auto.
        model: the transformers model, or PEFT's wrapper of it; it may be without weights.
        chosen: the recipe's number, or the native engine's choice.
    """
    if config.training.tokens_per_microbatch != "auto":
        return chosen
    device = choose_device(config.model.device)
    dtype, mixed = choose_dtype(config.model, device)
    taken = sum(each.numel() * (4 if each.requires_grad else 1) for each in model.parameters()) * dtype.itemsize
    text = model.config.get_text_config()
    each = activation_bytes(text, 2 if mixed else dtype.itemsize, config.model.gradient_checkpointing)
    return min(chosen, choose_tokens(device, taken, each + LOGITS * 4 * text.vocab_size))


def settings(config: TrainConfig, longest_prompt: int, tokens: int, *, first_step: int = 1) -> dict[str, Any]:
    """What `LamPOConfig` is made with, beside the folder.

    Args:
        config: a recipe that `refuse` lets through.
        longest_prompt: its tokens; a micro-batch has as many rows as fit with it.
        tokens: of a micro-batch, padding included; see `budget`.
        first_step: of those to do.
    """
    loss, sampling, training = config.loss, config.sampling, config.training
    device = choose_device(config.model.device)
    dtype, autocast = choose_dtype(config.model, device)
    rows = rows_per_process(config)
    fitting = max(1, tokens // (longest_prompt + sampling.max_new_tokens))
    at_once = max(size for size in range(1, min(rows, fitting) + 1) if rows % size == 0)
    name, options = _advantage(config.advantage)
    return {
        "advantage": name,
        "advantage_options": options,
        "num_generations": sampling.group_size,
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": rows // at_once,
        "max_completion_length": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "loss_type": "cispo" if loss.surrogate == "cispo" else LOSS_TYPES[loss.aggregation],
        "importance_sampling_level": LEVELS.get(loss.surrogate, "token"),
        "epsilon": loss.clip_low,
        "epsilon_high": 1 + loss.clip_high if loss.surrogate == "cispo" else loss.clip_high,
        "beta": loss.kl_coefficient,
        "use_bias_correction_kl": False,
        "num_iterations": training.updates_per_batch,
        "max_steps": (training.steps - first_step + 1) * training.updates_per_batch,
        "learning_rate": config.optimizer.learning_rate,
        "max_grad_norm": config.optimizer.max_gradient_norm,
        "gradient_checkpointing": config.model.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "bf16": autocast or dtype.itemsize == 2,
        "use_cpu": device.type == "cpu",
        "seed": config.run.seed % 2**32,
        "shuffle_dataset": False,
        "ddp_find_unused_parameters": False,
        "ddp_timeout": LONGEST_WAIT_S,
        "dataloader_pin_memory": device.type == "cuda",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }


def _advantage(options: EstimatorOptions) -> tuple[str, dict[str, Any]]:
    if isinstance(options, OwnEstimatorOptions):
        return f"{OWN}{options.function}", dict(options.options)
    values = options.model_dump(mode="json")
    return values.pop("name"), values
