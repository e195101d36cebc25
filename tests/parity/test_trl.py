"""Advantages and losses against those of TRL 1.16.0, whose own methods are called on the same tensors.

A trainer of TRL is made without its constructor and given only the attributes that the method under test reads. Log-probs come from
us instead of from a model, and rewards instead of from reward functions; everything else that runs is TRL's.
"""

from __future__ import annotations

import importlib
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lampo.advantages import grpo_advantages, reinforce_pp_advantages, rloo_advantages
from lampo.methods import METHODS
from lampo.objective import loss_denominator, merge_statistics, policy_loss

VERSION = "1.16.0"
NUM_ROWS, MAX_TOKENS = 32, 9
KL = pytest.mark.parametrize("kl_coefficient", [0.0, 0.3])
SEEDS = pytest.mark.parametrize("seed", [0, 1, 2])

# What of TRL stands for each method: the trainer, and the settings that GRPOTrainer reads.
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "grpo": ("trl.GRPOTrainer", {"loss_type": "grpo", "epsilon_low": 0.2, "epsilon_high": 0.2}),
    "dr_grpo": ("trl.GRPOTrainer", {"loss_type": "dr_grpo", "epsilon_low": 0.2, "epsilon_high": 0.2}),
    "dapo": ("trl.GRPOTrainer", {"loss_type": "dapo", "epsilon_low": 0.2, "epsilon_high": 0.28}),
    "gspo": (
        "trl.GRPOTrainer",
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4},
    ),
    # TRL's bound is the weight itself, ours is counted from 1
    "cispo": ("trl.GRPOTrainer", {"loss_type": "cispo", "epsilon_low": 0.2, "epsilon_high": 5.0}),
    "gmpo": ("trl.experimental.gmpo.GMPOTrainer", {"epsilon_low": 0.4, "epsilon_high": 0.4}),
}


class Accelerator:
    """One process."""

    device = torch.device("cpu")
    num_processes, process_index = 1, 0

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        return tensor


def trainer_class(path: str) -> Any:
    trl = pytest.importorskip("trl", reason="TRL is not installed; `make test` installs it")
    if trl.__version__ != VERSION:
        pytest.skip(f"TRL {trl.__version__} is installed, and the names called here are those of {VERSION}")
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def bare_trainer(path: str, **attributes: Any) -> Any:
    """A trainer without its constructor, in the middle of training, on one process."""
    cls = trainer_class(path)
    trainer = object.__new__(cls)
    arguments = {"use_bias_correction_kl": False, "delta": None, "steps_per_generation": 1}
    defaults = {
        "accelerator": Accelerator(),
        "model": SimpleNamespace(training=True, is_gradient_checkpointing=False),
        "args": SimpleNamespace(**arguments | attributes.pop("args", {})),
        "aux_loss_enabled": False,
        "beta": 0.0,
        "current_gradient_accumulation_steps": 1,
        "importance_sampling_level": "token",
        "max_completion_length": MAX_TOKENS,
        "off_policy_mask_threshold": None,
        "top_entropy_quantile": 1.0,
        "use_vllm": False,
        "_entropy_bonus_enabled": False,
        "_metrics": {"train": defaultdict(list)},
    }
    for name, value in (defaults | attributes).items():
        setattr(trainer, name, value)
    return trainer


def make_rows(seed: int, spread: float) -> dict[str, Tensor]:
    """Rows of 1 to 9 tokens; `spread` is the standard deviation of log pi - log pi_old."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    old_logprobs_NT = -normal(NUM_ROWS, MAX_TOKENS).abs()
    lengths_N = torch.randint(1, MAX_TOKENS + 1, (NUM_ROWS,), generator=generator)
    lengths_N[:2] = torch.tensor([1, MAX_TOKENS])
    return {
        "logprobs_NT": old_logprobs_NT + spread * normal(NUM_ROWS, MAX_TOKENS),
        "old_logprobs_NT": old_logprobs_NT,
        "ref_logprobs_NT": old_logprobs_NT + 0.3 * normal(NUM_ROWS, MAX_TOKENS),
        "advantages": normal(NUM_ROWS),
        "mask_NT": torch.arange(MAX_TOKENS) < lengths_N[:, None],
    }


def their_loss(trainer: Any, rows: dict[str, Tensor], num_tokens: int | None = None) -> tuple[Tensor, Tensor]:
    """Value and gradient of TRL's loss."""
    logprobs_NT = rows["logprobs_NT"].clone().requires_grad_()
    mask_NT = rows["mask_NT"].long()
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (
        logprobs_NT,
        torch.zeros_like(logprobs_NT),
        None,
    )
    inputs = {
        "prompt_ids": torch.ones(len(mask_NT), 2, dtype=torch.int64),
        "prompt_mask": torch.ones(len(mask_NT), 2, dtype=torch.int64),
        "completion_ids": mask_NT,
        "completion_mask": mask_NT,
        "advantages": rows["advantages"],
        "old_per_token_logps": rows["old_logprobs_NT"],
        "old_logps": (rows["old_logprobs_NT"] * mask_NT).sum(1),
        "ref_per_token_logps": rows["ref_logprobs_NT"],
        "num_items_in_batch": mask_NT.sum() if num_tokens is None else torch.tensor(num_tokens),
    }
    value = trainer._compute_loss(None, inputs)
    value.backward()
    assert logprobs_NT.grad is not None
    return value.detach(), logprobs_NT.grad


def our_loss(
    method: str, rows: dict[str, Tensor], kl_coefficient: float = 0.0
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Value, gradient and statistics of the loss of a preset."""
    settings = METHODS[method].settings["loss"] | {"kl_coefficient": kl_coefficient}
    mask_NT = rows["mask_NT"]
    logprobs_NT = rows["logprobs_NT"].clone().requires_grad_()
    denominator = loss_denominator(len(mask_NT), int(mask_NT.sum()), MAX_TOKENS, settings["aggregation"])
    loss = policy_loss(**rows | {"logprobs_NT": logprobs_NT}, denominator=denominator, **settings)
    loss.value.backward()
    assert logprobs_NT.grad is not None
    return loss.value.detach(), logprobs_NT.grad, merge_statistics([loss.statistics])


def spread_of(method: str) -> float:
    """Enough for the clip to bind on either side, and not everywhere."""
    return {"gspo": 2e-3, "cispo": 1.5, "gmpo": 0.6}.get(method, 0.4)


@SEEDS
@KL
@pytest.mark.parametrize("method", list(PEERS))
def test_loss_and_gradient(method: str, kl_coefficient: float, seed: int) -> None:
    path, settings = PEERS[method]
    rows = make_rows(seed, spread_of(method))
    theirs, their_gradient_NT = their_loss(bare_trainer(path, beta=kl_coefficient, **settings), rows)
    ours, our_gradient_NT, statistics = our_loss(method, rows, kl_coefficient)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(our_gradient_NT, their_gradient_NT, rtol=1e-12, atol=1e-14)
    assert 0 < statistics["clip_fraction_high"] < 0.6
    assert 0 < statistics["clip_fraction_low"] < 0.6 or method == "cispo"  # its weights are not bounded below


@SEEDS
@pytest.mark.parametrize("method", ["grpo", "dr_grpo", "dapo", "gmpo"])
def test_statistics(method: str, seed: int) -> None:
    path, settings = PEERS[method]
    rows = make_rows(seed, spread_of(method))
    trainer = bare_trainer(path, beta=0.3, **settings)
    their_loss(trainer, rows)
    _, _, ours = our_loss(method, rows, 0.3)
    theirs = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    assert ours["clip_fraction_low"] == pytest.approx(theirs["clip_ratio/low_mean"], rel=1e-6)
    assert ours["clip_fraction_high"] == pytest.approx(theirs["clip_ratio/high_mean"], rel=1e-6)
    assert ours["kl_ref"] == pytest.approx(theirs["kl"], rel=1e-6)


@pytest.mark.parametrize("method", list(PEERS))
def test_two_micro_batches_of_theirs_are_one_step_of_ours(method: str) -> None:
    """With as many rows in each of theirs: TRL takes the mean over rows micro-batch by micro-batch."""
    path, settings = PEERS[method]
    rows = make_rows(3, spread_of(method))
    trainer = bare_trainer(path, current_gradient_accumulation_steps=2, args={"steps_per_generation": 2}, **settings)
    num_tokens = int(rows["mask_NT"].sum())
    parts = [
        their_loss(trainer, {name: tensor[half] for name, tensor in rows.items()}, num_tokens)
        for half in (slice(0, NUM_ROWS // 2), slice(NUM_ROWS // 2, None))
    ]
    ours, our_gradient_NT, _ = our_loss(method, rows)
    torch.testing.assert_close(ours, torch.stack([value for value, _ in parts]).sum(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(our_gradient_NT, torch.cat([part for _, part in parts]), rtol=1e-12, atol=1e-14)


@SEEDS
def test_rloo_has_the_same_gradient_on_policy_up_to_the_greatest_length(seed: int) -> None:
    """TRL's loss of RLOO is one of whole sequences: the product of the ratios of a response, and no division by a length."""
    trainer = bare_trainer("trl.RLOOTrainer", epsilon_low=0.2, epsilon_high=0.2)
    rows = make_rows(seed, spread=0.0)
    _, their_gradient_NT = their_loss(trainer, rows)
    _, our_gradient_NT, _ = our_loss("rloo", rows)
    torch.testing.assert_close(MAX_TOKENS * our_gradient_NT, their_gradient_NT, rtol=1e-12, atol=1e-14)
    expected_NT = -rows["advantages"][:, None] / NUM_ROWS * rows["mask_NT"]
    torch.testing.assert_close(their_gradient_NT, expected_NT, rtol=1e-12, atol=1e-14)

    apart = make_rows(seed, spread=0.4)  # off-policy they are two losses
    _, their_gradient_NT = their_loss(trainer, apart)
    _, our_gradient_NT, _ = our_loss("rloo", apart)
    assert not torch.allclose(MAX_TOKENS * our_gradient_NT, their_gradient_NT, rtol=0.01)


# Advantages

GROUP_SIZE = 4


def their_advantages(path: str, rewards_N: Tensor, **settings: Any) -> Tensor:
    """TRL's advantages of contiguous groups; a NaN is a completion that no reward function could score."""
    N = len(rewards_N)
    arguments = {
        "per_device_train_batch_size": N,
        "gradient_checkpointing_kwargs": None,
        "gradient_accumulation_steps": 1,
    }
    trainer = bare_trainer(
        path,
        args=arguments,
        environment_factories=None,
        environments=None,
        log_multimodal=False,
        mask_truncated_completions=False,
        multi_objective_aggregation="sum_then_normalize",
        normalize_advantages=False,
        num_generations=GROUP_SIZE,
        num_iterations=1,
        pad_to_multiple_of=None,
        ref_model=None,
        reward_clip_range=None,
        reward_func_names=["reward"],
        reward_weights=torch.ones(1, dtype=rewards_N.dtype),
        tools=None,
        _tokenizer=SimpleNamespace(pad_token_id=0),
        _logs={
            "prompt": [],
            "completion": [],
            "advantages": [],
            "rewards": defaultdict(list),
            "extra": defaultdict(list),
        },
        _pending_extra_logs={},
        _pending_metrics={},
        **settings,
    )
    ids = [[1, 2]] * N
    generated = (ids, ids, None, ["text"] * N, None, {}, None, None)  # GRPO: with tools, log-probs and images
    trainer._generate = lambda prompts: generated if "GRPO" in path else (ids, ids, ["text"] * N)
    trainer._calculate_rewards = lambda *args: rewards_N[:, None]
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (torch.zeros(N, 2), None, None)
    return trainer._generate_and_score_completions([{"prompt": "?"}] * N)["advantages"]


def make_rewards(kind: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if kind == "dense":
        return torch.rand(6 * GROUP_SIZE, generator=generator, dtype=torch.float64)
    rewards_N = torch.randint(0, 2, (6 * GROUP_SIZE,), generator=generator).double()
    rewards_N[:GROUP_SIZE] = 1.0  # a group without spread
    if kind == "unknown":
        rewards_N[torch.rand(len(rewards_N), generator=generator) < 0.3] = torch.nan
        rewards_N[-GROUP_SIZE : -GROUP_SIZE + 3] = torch.nan  # a rollout without a peer
        rewards_N[-1] = 1.0
    return rewards_N


ESTIMATORS = {
    "grpo": ("trl.GRPOTrainer", {"scale_rewards": "group"}, grpo_advantages, METHODS["grpo"]),
    "dr_grpo": ("trl.GRPOTrainer", {"scale_rewards": "none"}, grpo_advantages, METHODS["dr_grpo"]),
    "reinforce_pp_baseline": (
        "trl.GRPOTrainer",
        {"scale_rewards": "batch"},
        reinforce_pp_advantages,
        METHODS["reinforce_pp_baseline"],
    ),
    "rloo": ("trl.RLOOTrainer", {}, rloo_advantages, METHODS["rloo"]),
}


@SEEDS
@pytest.mark.parametrize("kind", ["right or wrong", "dense", "unknown"])
@pytest.mark.parametrize("method", list(ESTIMATORS))
def test_advantages(method: str, kind: str, seed: int) -> None:
    path, settings, estimator, preset = ESTIMATORS[method]
    rewards_N = make_rewards(kind, seed)
    options = {name: value for name, value in preset.settings["advantage"].items() if name != "name"}
    group_ids_N = torch.arange(len(rewards_N)) // GROUP_SIZE
    ours_N = estimator(rewards_N, group_ids_N, valid_N=rewards_N.isfinite(), **options)
    theirs_N = their_advantages(path, rewards_N, **settings)
    assert ours_N.count_nonzero() > 0
    # TRL's std corrects its bias with a quotient of counts in float32
    rtol = 1e-12 if method in ("dr_grpo", "rloo") else 2**-23
    torch.testing.assert_close(ours_N, theirs_N, rtol=rtol, atol=1e-14)


@pytest.mark.parametrize(
    ("method", "config"), [("grpo", "trl.GRPOConfig"), ("gmpo", "trl.experimental.gmpo.GMPOConfig")]
)
def test_the_clip_range_is_their_default(method: str, config: str) -> None:
    loss = METHODS[method].settings["loss"]
    assert loss["clip_low"] == loss["clip_high"] == trainer_class(config).__dataclass_fields__["epsilon"].default
