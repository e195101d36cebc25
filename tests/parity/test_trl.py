"""Losses and advantages by TRL's own trainers, an independent implementation, and by ours, on the same tensors in float64.

The trainers are real, configured through their own configuration classes. Only what feeds them is replaced: the log-probabilities of
the model (`_get_per_token_logps_and_entropies`), the responses (`_generate`) and the rewards (`_calculate_rewards`).
Where the two differ the statement that does hold is the test, and so is the difference.
"""
# ruff: noqa: E402

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from torch import Tensor

from lampo import grpo_advantages, loss_denominator, policy_loss, reinforce_pp_advantages, rloo_advantages
from lampo.algo.objective import merge_statistics
from lampo.config.methods import method_settings
from lampo.config.schema import LossOptions
from lampo.model.policy import Policy

from ..conftest import tiny_options

VERSION = "1.16.0"
try:
    installed = metadata.version("trl")
except metadata.PackageNotFoundError:
    installed = "not installed"
if installed != VERSION:
    pytest.skip(f"TRL is {installed} (pip install --no-deps trl=={VERSION})", allow_module_level=True)

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "You are importing from 'trl.experimental'")
    from trl.experimental.gmpo import GMPOConfig, GMPOTrainer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

# TRL sets an option whose name transformers has since changed.
pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")

NUM_GROUPS, GROUP_SIZE, MAX_COMPLETION = 6, 4, 9
NUM_ROWS = NUM_GROUPS * GROUP_SIZE

# How TRL is told to be the method.
TRL: dict[str, tuple[type[GRPOTrainer], type[GRPOConfig], dict[str, Any]]] = {
    "grpo": (GRPOTrainer, GRPOConfig, {"loss_type": "grpo"}),
    "dr_grpo": (GRPOTrainer, GRPOConfig, {"loss_type": "dr_grpo"}),
    "dapo": (GRPOTrainer, GRPOConfig, {"loss_type": "dapo", "epsilon_high": 0.28}),
    "gspo": (
        GRPOTrainer,
        GRPOConfig,
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
    ),
    "cispo": (GRPOTrainer, GRPOConfig, {"loss_type": "cispo", "epsilon_high": 5.0}),
    "gmpo": (GMPOTrainer, GMPOConfig, {}),
    "simplerl_zoo": (GRPOTrainer, GRPOConfig, {"loss_type": "dapo"}),
    "reinforce_pp_baseline": (GRPOTrainer, GRPOConfig, {"loss_type": "dapo"}),
}

# Standard deviation of the log-ratios, so that the clip of the method binds on both sides, on a part of the tokens.
SPREAD = {"gspo": 1e-3, "cispo": 1.5, "gmpo": 0.6}


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """What TRL's trainers leave behind in accelerate, for the whole process, goes with these tests."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.load(tiny_options(), seed=0)


def make_trainer(trainer: Any, config: Any, policy: Policy, folder: Path, **settings: Any) -> Any:
    arguments = config(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        report_to=[],
        per_device_train_batch_size=NUM_ROWS,
        num_generations=GROUP_SIZE,
        max_completion_length=MAX_COMPLETION,
        **settings,
    )
    made = trainer(
        model=policy.model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        processing_class=policy.tokenizer,
        train_dataset=Dataset.from_list([{"prompt": "1+1="}] * NUM_ROWS),
    )
    made.model.train()
    made.current_gradient_accumulation_steps = 1  # TRL sets it in its loop
    return made


def make_batch(spread: float, seed: int = 0) -> dict[str, Tensor]:
    """Rows of 1 to 9 tokens, log-ratios of that spread, advantages of both signs and one that is 0."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    lengths_N = torch.randint(1, MAX_COMPLETION + 1, (NUM_ROWS,), generator=generator)
    old_logprobs_NT = -normal(NUM_ROWS, MAX_COMPLETION).abs()
    advantages_N = normal(NUM_ROWS)
    advantages_N[3] = 0.0
    return {
        "logprobs_NT": old_logprobs_NT + spread * normal(NUM_ROWS, MAX_COMPLETION),
        "old_logprobs_NT": old_logprobs_NT,
        "advantages": advantages_N,
        "mask_NT": torch.arange(MAX_COMPLETION) < lengths_N[:, None],
        "ref_logprobs_NT": old_logprobs_NT + 0.3 * normal(NUM_ROWS, MAX_COMPLETION),
    }


def theirs(trainer: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Loss and gradient for the log-probs by TRL's `_compute_loss`."""
    logprobs_NT = batch["logprobs_NT"].clone().requires_grad_()
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logprobs_NT, torch.zeros_like(logprobs_NT), None)
    prompt_N1 = torch.ones(len(logprobs_NT), 1, dtype=torch.int64)
    inputs = {
        "prompt_ids": prompt_N1,
        "prompt_mask": prompt_N1,
        "completion_ids": torch.ones(logprobs_NT.shape, dtype=torch.int64),
        "completion_mask": batch["mask_NT"].long(),
        "advantages": batch["advantages"],
        "old_per_token_logps": batch["old_logprobs_NT"],
        "old_logps": (batch["old_logprobs_NT"] * batch["mask_NT"]).sum(1),
        "ref_per_token_logps": batch["ref_logprobs_NT"],
        "importance_sampling_ratio": batch.get("weights_NT"),
        "num_items_in_batch": batch["mask_NT"].sum(),
    }
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    assert logprobs_NT.grad is not None
    return loss.detach(), logprobs_NT.grad


def ours(options: LossOptions, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, float]]:
    logprobs_NT = batch["logprobs_NT"].clone().requires_grad_()
    mask_NT = batch["mask_NT"]
    denominator = loss_denominator(len(mask_NT), int(mask_NT.sum()), MAX_COMPLETION, options.aggregation)
    loss = policy_loss(**{**batch, "logprobs_NT": logprobs_NT}, denominator=denominator, **options.model_dump())
    loss.value.backward()
    assert logprobs_NT.grad is not None
    return loss.value.detach(), logprobs_NT.grad, merge_statistics([loss.statistics])


def loss_options(method: str, **changes: Any) -> LossOptions:
    return LossOptions(**{**method_settings(method)["loss"], **changes})


def assert_equal(actual: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=1e-14)


# Losses


@pytest.mark.parametrize("kl_coefficient", [0.0, 0.04])
@pytest.mark.parametrize("method", TRL)
def test_loss_and_gradient_are_those_of_trl(method: str, kl_coefficient: float, policy: Policy, tmp_path: Path) -> None:
    trainer_class, config_class, settings = TRL[method]
    if config_class is GRPOConfig:
        # By default TRL multiplies the KL term by the ratio (arXiv 2512.02556); the papers here, and we, do not.
        settings = {**settings, "use_bias_correction_kl": False}
    trainer = make_trainer(trainer_class, config_class, policy, tmp_path, **settings)
    trainer.beta = kl_coefficient  # set here, because TRL would load a reference model that has no path
    batch = make_batch(SPREAD.get(method, 0.4))
    value, gradient_NT, statistics = ours(loss_options(method, kl_coefficient=kl_coefficient), batch)
    expected_value, expected_gradient_NT = theirs(trainer, batch)
    assert_equal(value, expected_value)
    assert_equal(gradient_NT, expected_gradient_NT)
    assert 0.02 < statistics["clip_fraction_high"] < 0.6  # the comparison meant something
    if method != "cispo":  # which has no lower bound
        assert 0.02 < statistics["clip_fraction_low"] < 0.6


@pytest.mark.parametrize("method", TRL)
def test_micro_batches_add_up_to_trls_accumulated_loss(method: str, policy: Policy, tmp_path: Path) -> None:
    """The same number of rows in each, which TRL's mean over rows needs; ours does not."""
    trainer_class, config_class, settings = TRL[method]
    trainer = make_trainer(
        trainer_class, config_class, policy, tmp_path, gradient_accumulation_steps=2, steps_per_generation=2, **settings
    )
    trainer.current_gradient_accumulation_steps = 2
    batch = make_batch(SPREAD.get(method, 0.4), seed=1)
    value, gradient_NT, _ = ours(loss_options(method, kl_coefficient=0.0), batch)
    parts = []
    for rows in (slice(0, NUM_ROWS // 2), slice(NUM_ROWS // 2, NUM_ROWS)):
        part = {name: tensor[rows] for name, tensor in batch.items()}
        parts.append(theirs_of_a_part(trainer, part, batch["mask_NT"]))
    assert_equal(sum((part[0] for part in parts), torch.zeros((), dtype=torch.float64)), value)
    assert_equal(torch.cat([part[1] for part in parts]), gradient_NT)


def theirs_of_a_part(trainer: Any, part: dict[str, Tensor], mask_NT: Tensor) -> tuple[Tensor, Tensor]:
    """As `theirs`, with the number of tokens of the whole batch, which TRL counts when it samples."""
    compute_loss = type(trainer)._compute_loss

    def with_all_tokens(model: Any, inputs: dict[str, Any]) -> Tensor:
        return compute_loss(trainer, model, {**inputs, "num_items_in_batch": mask_NT.sum()})

    trainer._compute_loss = with_all_tokens
    return theirs(trainer, part)


def test_rloo_has_trls_gradient_on_policy_up_to_the_constant(policy: Policy, tmp_path: Path) -> None:
    """TRL's RLOO has the ratio of the whole response, prod_t r_it, and clips that; ours has PPO's, token by token.

    Where pi = pi_old both gradients are -A_i at each token, divided by N there and by N T_max here.
    """
    trainer = make_trainer(RLOOTrainer, RLOOConfig, policy, tmp_path, beta=0.0)
    batch = make_batch(0.0)
    value, gradient_NT, _ = ours(loss_options("rloo"), batch)
    expected_value, expected_gradient_NT = theirs(trainer, batch)
    assert_equal(gradient_NT * MAX_COMPLETION, expected_gradient_NT)
    lengths_N = batch["mask_NT"].sum(1)
    assert_equal(value, -(batch["advantages"] * lengths_N).sum() / (NUM_ROWS * MAX_COMPLETION))
    assert_equal(expected_value, -batch["advantages"].mean())


def test_rloo_differs_from_trl_off_policy(policy: Policy, tmp_path: Path) -> None:
    trainer = make_trainer(RLOOTrainer, RLOOConfig, policy, tmp_path, beta=0.0)
    batch = make_batch(0.1)
    _, gradient_NT, _ = ours(loss_options("rloo"), batch)
    _, expected_gradient_NT = theirs(trainer, batch)
    silenced_there_N = (expected_gradient_NT == 0).all(1) & (batch["advantages"] != 0)
    assert silenced_there_N.sum() >= 3  # the whole response is clipped
    assert (gradient_NT[silenced_there_N] != 0).any(1).all()  # some of its tokens are not


def test_trls_default_kl_term_is_another_off_policy(policy: Policy, tmp_path: Path) -> None:
    """TRL multiplies k3 by the ratio unless `use_bias_correction_kl` is off; on policy its value is the same."""
    trainer = make_trainer(GRPOTrainer, GRPOConfig, policy, tmp_path, loss_type="grpo")
    trainer.beta = 0.04
    options = loss_options("grpo", kl_coefficient=0.04)
    for spread, equal in ((0.0, True), (0.4, False)):
        batch = make_batch(spread)
        assert torch.allclose(ours(options, batch)[0], theirs(trainer, batch)[0], rtol=1e-9) == equal


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_truncated_importance_weights_enter_the_loss_as_in_trl(
    level: Literal["token", "sequence"], policy: Policy, tmp_path: Path
) -> None:
    """TRL weighs the surrogate and not its KL term. The weights themselves are held to TRL's formula, which is inline there."""
    trainer = make_trainer(GRPOTrainer, GRPOConfig, policy, tmp_path, loss_type="grpo", use_bias_correction_kl=False)
    trainer.beta, trainer.use_vllm, trainer.vllm_importance_sampling_correction = 0.04, True, True
    batch, other = make_batch(0.4), make_batch(0.3, seed=7)
    sampler_NT = batch["old_logprobs_NT"] + other["logprobs_NT"] - other["old_logprobs_NT"]
    difference_NT = (batch["old_logprobs_NT"] - sampler_NT) * batch["mask_NT"]
    weights_NT = (difference_NT if level == "token" else difference_NT.sum(-1, keepdim=True)).exp().clamp(max=1.2)
    expected = theirs(trainer, batch | {"weights_NT": weights_NT})
    options = loss_options("grpo", kl_coefficient=0.04, sampler_correction=level, sampler_cap=1.2)
    value, gradient_NT, statistics = ours(options, batch | {"sampler_logprobs_NT": sampler_NT})
    assert_equal(value, expected[0])
    assert_equal(gradient_NT, expected[1])
    assert 0.1 < statistics["importance_capped"] < 0.9  # the cap meant something


# Advantages


def make_rewards() -> Tensor:
    """Groups with spread, without any, with one and two unknown verdicts (NaN), and with only one known verdict."""
    nan = torch.nan
    return torch.tensor(
        [[1, 0, 0, 1], [1.2, 0.1, 0.4, 0.0], [1, 1, 1, 1], [1, nan, 0, 0.5], [nan, 0, 1, nan], [nan, nan, 1, nan]],
        dtype=torch.float64,
    ).flatten()


def advantages_of(trainer: Any, rewards_N: Tensor) -> Tensor:
    """What TRL's `_generate_and_score_completions` makes of these rewards."""
    rows = len(rewards_N)
    answer = ([[3, 4]] * rows, [[5, 6]] * rows)
    is_rloo = isinstance(trainer, RLOOTrainer)
    trainer._generate = lambda prompts: (
        (*answer, ["12"] * rows) if is_rloo else (*answer, None, ["12"] * rows, None, {}, None, [])
    )
    trainer._calculate_rewards = lambda *_, **__: rewards_N[:, None]
    zeros = torch.zeros(rows, 2, dtype=torch.float64)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (zeros, zeros, None)
    return trainer._generate_and_score_completions([{"prompt": "1+1="}] * rows)["advantages"]


@pytest.mark.parametrize("scaling", ["group", "none", "batch"])
def test_advantages_of_grpo(scaling: str, policy: Policy, tmp_path: Path) -> None:
    trainer = make_trainer(GRPOTrainer, GRPOConfig, policy, tmp_path, scale_rewards=scaling)
    rewards_N = make_rewards()
    valid_N = ~rewards_N.isnan()
    group_ids_N = torch.arange(NUM_ROWS) // GROUP_SIZE
    if scaling == "batch":
        advantages_N = reinforce_pp_advantages(rewards_N, group_ids_N, valid_N=valid_N, baseline="group")
    else:
        advantages_N = grpo_advantages(rewards_N, group_ids_N, valid_N=valid_N, std=scaling == "group")
    tolerance = 1e-12 if scaling == "none" else 1e-7  # TRL's nanstd has the factor G / (G - 1) in float32
    assert_equal(advantages_N, advantages_of(trainer, rewards_N), tolerance)
    assert (advantages_N != 0).sum() >= 11


def test_advantages_of_rloo(policy: Policy, tmp_path: Path) -> None:
    trainer = make_trainer(RLOOTrainer, RLOOConfig, policy, tmp_path, beta=0.0)
    rewards_N = make_rewards()
    advantages_N = rloo_advantages(rewards_N, torch.arange(NUM_ROWS) // GROUP_SIZE, valid_N=~rewards_N.isnan())
    assert_equal(advantages_N, advantages_of(trainer, rewards_N))
    assert (advantages_N != 0).sum() >= 11
