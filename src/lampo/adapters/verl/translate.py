"""A recipe -> verl's options as a plain dictionary, and what of a recipe verl cannot honour, by name. No verl in here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...algo.registry import EstimatorOptions, OwnEstimatorOptions
from ...config.schema import EvaluationOptions, TrainConfig
from ...messages import refuse_settings
from ...options import OWN
from ...types import LampoError
from .advantages import read_settings
from .parquet import rewards_of
from .plugin import NAME
from .reward import FUNCTION, MANAGER, read_rewards

LOSSES = {"token": "vanilla", "sequence": "gspo", "cispo": "cispo"}
"""verl's loss by our surrogate."""
AGGREGATIONS = {"sequence": "seq-mean-token-mean", "token": "token-mean", "constant": "seq-mean-token-sum-norm"}
"""verl's way to add up a loss by ours: they divide by the same number."""
NO_DUAL_CLIP = 1e6
"""verl clips the loss of a negative advantage a second time, at this ratio. A recipe does not."""
TOKENS = 16_384
"""Of a micro-batch on one GPU, where the recipe leaves it open: verl's own default."""
DEFAULTS: dict[str, Any] = {
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "actor_rollout_ref.actor.entropy_from_logits_with_chunking": True,
    "actor_rollout_ref.rollout.name": "vllm",
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
    "trainer.logger": ["console", "file"],
    "trainer.project_name": "lampo",
}
"""What a recipe does not say. `run.engine_options` may say otherwise."""


def refusals(config: TrainConfig) -> Iterator[str]:
    """The settings that verl cannot honour, a sentence each."""
    loss, sampling, evaluation = config.loss, config.sampling, config.evaluation
    if loss.surrogate not in LOSSES:
        yield f"loss.surrogate is {loss.surrogate}: of verl's, token, sequence and cispo are divided by the numbers of a recipe."
    if sampling.resample > 0:
        yield f"sampling.resample is {sampling.resample}: verl draws until it has enough groups, without a bound."
    if sampling.engine != "native":
        yield f"sampling.engine is {sampling.engine}: verl has its own vLLM. Leave it out."
    if loss.sampler_correction != "off":
        yield f"loss.sampler_correction is {loss.sampler_correction}: verl has its own (algorithm.rollout_correction)."
    if config.optimizer.eight_bit_moments or config.warmstart.optimizer.eight_bit_moments:
        yield "optimizer.eight_bit_moments: the native engine alone keeps moments so."
    if config.spread_filter is not None:
        yield "spread_filter: verl leaves no groups out."
    if config.model.lora is not None:
        yield "model.lora: lampo train does not read adapters out of verl's checkpoints."
    if config.model.device not in ("auto", "cuda"):
        yield f"model.device is {config.model.device}: verl takes the GPUs that Ray gives it."
    rows, gpus = sampling.problems_per_step * sampling.group_size, config.run.processes * config.run.nodes
    if rows % gpus:
        yield f"run.processes x run.nodes is {gpus}: the {rows} rollouts of a step must be a multiple, so that no GPU gets padding."
    if config.run.nodes > 1 and "RAY_ADDRESS" not in os.environ:
        yield f"run.nodes is {config.run.nodes}: start Ray on them, and set RAY_ADDRESS to the address of its head."
    if evaluation.greedy:
        yield "evaluation.greedy: verl measures at one temperature."
    yield from _uneven(evaluation, config.training.steps)
    try:
        read_settings(advantage(config.advantage))
        read_rewards(rewards_of(config))
    except LampoError as error:
        yield str(error)


def _uneven(evaluation: EvaluationOptions, steps: int) -> Iterator[str]:
    """verl has one set of problems to measure on."""
    for name in ("problems", "samples"):
        final, during = getattr(evaluation, f"final_{name}"), getattr(evaluation, name)
        if final not in (None, during) and evaluation.every < steps:
            yield (
                f"evaluation.final_{name} is {final}, and evaluation.{name} is {during}: verl measures the same each time. "
                f"Leave one out (evaluation.final_{name}=null), or measure at the ends only (evaluation.every={steps})."
            )


def option_refusals(config: TrainConfig, translated: Mapping[str, Any]) -> Iterator[str]:
    """Options in `run.engine_options` that are no options, or that the recipe sets already."""
    known = {key.lstrip("+"): value for key, value in translated.items()}
    for option in config.run.engine_options:
        key, equals, _ = option.partition("=")
        name = key.lstrip("+~")
        taken = [each for each in known if f"{each}.".startswith(f"{name}.") or f"{name}.".startswith(f"{each}.")]
        if not equals and not key.startswith("~"):
            yield f"run.engine_options has {option!r}: verl takes name=value."
        elif taken:
            yield f"run.engine_options has {name}: the recipe says {taken[0]}={hydra(known[taken[0]])}."


def refuse(config: TrainConfig) -> None:
    """See `Engine.refuse`.

    Raises:
        LampoError: names what verl cannot honour.
    """
    translated = settings(config, Path(), model="", longest_prompt=1)
    found = [*refusals(config), *option_refusals(config, translated)]
    refuse_settings("The engine verl", found, "leave the engine out.")


def settings(
    config: TrainConfig, folder: Path, *, model: str, longest_prompt: int, resume_from: Path | None = None
) -> dict[str, Any]:
    """verl's options that follow from a recipe.

    Args:
        config: a recipe that `refuse` lets through.
        folder: what verl reads and writes.
        model: a hub name or a folder.
        longest_prompt: its tokens.
        resume_from: a checkpoint of verl's; None: from the start.
    """
    return {
        "algorithm.adv_estimator": NAME,
        **{f"++algorithm.{NAME}.{key}": value for key, value in advantage(config.advantage).items()},
        **_data(config, folder, longest_prompt),
        **_pairs((f"reward.custom_reward_function.path={FUNCTION}", *MANAGER)),
        **_model(config, folder, model),
        **_sampling(config, longest_prompt),
        **_loss(config),
        **_optimizer(config),
        **_batches(config, longest_prompt),
        **_trainer(config, folder, resume_from),
        "hydra.run.dir": str(folder / "hydra"),
    }


def _data(config: TrainConfig, folder: Path, longest_prompt: int) -> dict[str, Any]:
    return {
        "data.train_files": str(folder / "train.parquet"),
        "data.val_files": str(folder / "test.parquet"),
        "data.train_batch_size": config.sampling.problems_per_step,
        "data.shuffle": False,
        "data.validation_shuffle": False,
        "data.max_prompt_length": longest_prompt,
        "data.max_response_length": config.sampling.max_new_tokens,
        "data.truncation": "error",
        **{f"++data.apply_chat_template_kwargs.{key}": value for key, value in config.prompt.chat_options.items()},
    }


def _sampling(config: TrainConfig, longest_prompt: int) -> dict[str, Any]:
    sampling, key = config.sampling, "actor_rollout_ref.rollout"
    return {
        f"{key}.n": sampling.group_size,
        f"{key}.temperature": sampling.temperature,
        f"{key}.top_p": 1.0,
        f"{key}.top_k": -1,
        f"{key}.max_num_seqs": sampling.rows_at_once,
        f"{key}.max_model_len": longest_prompt + sampling.max_new_tokens,
        f"{key}.calculate_log_probs": True,
        f"{key}.seed": config.run.seed % 2**31,
        f"{key}.val_kwargs.do_sample": True,
        f"{key}.val_kwargs.temperature": config.evaluation_temperature,
        f"{key}.val_kwargs.n": measured(config.evaluation, "samples"),
    }


def _batches(config: TrainConfig, longest_prompt: int) -> dict[str, Any]:
    """One mini-batch an update, and micro-batches by tokens, of one row at least."""
    tokens, key = config.training.tokens_per_microbatch, "actor_rollout_ref.actor"
    longest_row = longest_prompt + config.sampling.max_new_tokens
    return {
        f"{key}.ppo_mini_batch_size": config.sampling.problems_per_step,
        f"{key}.ppo_epochs": config.training.updates_per_batch,
        f"{key}.shuffle": False,
        f"{key}.use_dynamic_bsz": True,
        f"{key}.ppo_max_token_len_per_gpu": max(TOKENS if tokens == "auto" else tokens, longest_row),
    }


def _trainer(config: TrainConfig, folder: Path, resume_from: Path | None) -> dict[str, Any]:
    run = config.run
    return {
        "trainer.n_gpus_per_node": run.processes,
        "trainer.nnodes": run.nodes,
        "trainer.total_epochs": 1,
        "trainer.total_training_steps": config.training.steps,
        "trainer.val_before_train": resume_from is None,
        "trainer.test_freq": config.evaluation.every,
        "trainer.save_freq": run.checkpoint_every,
        "trainer.resume_mode": "disable" if resume_from is None else "resume_path",
        "trainer.resume_from_path": None if resume_from is None else str(resume_from),
        "trainer.default_local_dir": str(folder / "checkpoints"),
        "trainer.rollout_data_dir": str(folder / "rollouts"),
        "trainer.validation_data_dir": str(folder / "evaluations"),
        "trainer.experiment_name": run.name,
        "actor_rollout_ref.actor.checkpoint.save_contents": ["model", "optimizer", "extra", "hf_model"],
    }


def _model(config: TrainConfig, folder: Path, model: str) -> dict[str, Any]:
    options = config.model
    attention = {} if options.attention == "auto" else {"attn_implementation": options.attention}
    numbers = {"float32": ("float32", "fp32", "fp32"), "bfloat16": ("bfloat16", "bf16", "bf16")}
    dtype, weights, arithmetic = numbers.get(options.dtype, ("bfloat16", "fp32", "bf16"))
    precision = {"param_dtype": arithmetic, "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    chosen: dict[str, Any] = {
        "actor_rollout_ref.model.path": model,
        "actor_rollout_ref.model.tokenizer_path": str(folder / "tokenizer"),
        "actor_rollout_ref.model.trust_remote_code": options.allow_remote_code,
        "actor_rollout_ref.model.enable_gradient_checkpointing": options.gradient_checkpointing,
        **{f"++actor_rollout_ref.model.override_config.{key}": value for key, value in attention.items()},
        "actor_rollout_ref.rollout.dtype": dtype,
    }
    for part in ("actor", "ref"):
        key = f"actor_rollout_ref.{part}.fsdp_config"
        chosen |= {
            f"{key}.model_dtype": weights,
            f"{key}.dtype": dtype,
            f"++{key}.mixed_precision": precision,
            f"{key}.seed": config.run.seed % 2**31,
        }
    return chosen


def _loss(config: TrainConfig) -> dict[str, Any]:
    loss, key = config.loss, "actor_rollout_ref.actor"
    constant = loss.aggregation == "constant"
    return {
        f"{key}.policy_loss.loss_mode": LOSSES.get(loss.surrogate),
        f"{key}.loss_agg_mode": AGGREGATIONS[loss.aggregation],
        f"{key}.loss_scale_factor": config.sampling.max_new_tokens if constant else None,
        f"{key}.clip_ratio_low": loss.clip_low,
        f"{key}.clip_ratio_high": loss.clip_high,
        f"{key}.clip_ratio_c": NO_DUAL_CLIP,
        f"{key}.use_kl_loss": loss.kl_coefficient > 0,
        f"{key}.kl_loss_coef": loss.kl_coefficient,
        f"{key}.kl_loss_type": "low_var_kl",
        f"{key}.entropy_coeff": 0.0,
    }


def _optimizer(config: TrainConfig) -> dict[str, Any]:
    """verl's cosine whose first step is 1, not 0. With a least rate of 1 it is constant after the warm-up."""
    options, key = config.optimizer, "actor_rollout_ref.actor.optim"
    return {
        f"{key}.lr": options.learning_rate,
        f"{key}.lr_scheduler_type": "cosine",
        f"{key}.min_lr_ratio": 1.0 if options.schedule == "constant" else 0.0,
        f"{key}.zero_indexed_step": False,
        f"{key}.lr_warmup_steps": options.warmup_steps,
        f"{key}.betas": list(options.betas),
        f"{key}.weight_decay": options.weight_decay,
        f"{key}.clip_grad": options.max_gradient_norm,
    }


def advantage(options: EstimatorOptions) -> dict[str, Any]:
    """verl's section `algorithm.lampo`."""
    if isinstance(options, OwnEstimatorOptions):
        return {"name": f"{OWN}{options.function}", **options.options}
    return options.model_dump(mode="json")


def measured(evaluation: EvaluationOptions, name: str) -> int:
    """How many problems or samples an evaluation has: they are the same each time, or there is none but at the ends."""
    final = getattr(evaluation, f"final_{name}")
    return getattr(evaluation, name) if final is None else final


def command_options(config: TrainConfig, translated: Mapping[str, Any]) -> list[str]:
    """What verl's command line is given: what follows from the recipe, what it does not say, and the options of its own."""
    own = {option.partition("=")[0].lstrip("+~") for option in config.run.engine_options}
    rest = {key: value for key, value in DEFAULTS.items() if key not in own}
    return [*(f"{key}={hydra(value)}" for key, value in {**rest, **translated}.items()), *config.run.engine_options]


def _pairs(options: Sequence[str]) -> dict[str, str]:
    return dict(option.split("=", 1) for option in options)


def hydra(value: Any) -> str:
    r"""A value in the grammar of Hydra's overrides.

    >>> print(hydra({"weight": "winner", "factors": [1, 0.5, None, True]}))
    {weight:'winner',factors:[1,0.5,null,true]}
    >>> print(hydra("it's $5"))
    'it\'s $5'
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{hydra(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(hydra, value)) + "]"
    if isinstance(value, str):
        return "'" + value.replace("'", "\\'") + "'"
    return repr(value)
