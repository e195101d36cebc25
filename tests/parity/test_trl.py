"""Losses of the methods against TRL's own code, on the same tensors: value and gradient."""

from __future__ import annotations

import warnings
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lampo.advantages import grpo_advantages, reinforce_pp_advantages, rloo_advantages
from lampo.methods import METHODS
from lampo.objective import loss_denominator, policy_loss

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of TRL and what it imports, about optional parts
    trl = pytest.importorskip("trl", reason="parity with TRL needs trl (make test installs it)")
    from trl.experimental.gmpo.gmpo_trainer import GMPOTrainer
    from trl.trainer.grpo_trainer import GRPOTrainer
    from trl.trainer.rloo_trainer import RLOOTrainer

N, T, MAX_TOKENS = 12, 9, 16
TRL = {  # what TRL's settings are called for our presets
    "grpo": {"loss_type": "grpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "dapo": {"loss_type": "dapo"},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    "cispo": {"loss_type": "cispo"},
    "gmpo": {"loss_type": "grpo"},
}


class FakeAccelerator:
    """One process: whatever is gathered is there already."""

    num_processes = 1

    def gather(self, values: Tensor) -> Tensor:
        return values

    def reduce(self, values: Tensor, reduction: str) -> Tensor:
        return values


@pytest.fixture(params=[0.05, 1.0], ids=["near the sampling policy", "far from it"])
def batch(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    old_logprobs_NT = -normal(N, T).abs()
    lengths = torch.randint(1, T + 1, (N, 1), generator=generator)
    return {
        "logprobs_NT": old_logprobs_NT + request.param * normal(N, T),
        "old_logprobs_NT": old_logprobs_NT,
        "ref_logprobs_NT": old_logprobs_NT + 0.3 * normal(N, T),
        "advantages": normal(N),
        "mask_NT": torch.arange(T) < lengths,
    }


def theirs(batch: dict[str, Tensor], kind: type[Any], beta: float, **settings: Any) -> tuple[Tensor, Tensor]:
    """TRL's loss and its gradient for the log-probs, by its trainer's own `_compute_loss` without a model."""
    logprobs_NT = batch["logprobs_NT"].clone().requires_grad_()
    mask_NT = batch["mask_NT"]
    trainer: Any = object.__new__(kind)
    trainer.__dict__ |= {
        "model": SimpleNamespace(training=True),
        "accelerator": FakeAccelerator(),
        "args": SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        "current_gradient_accumulation_steps": 1,
        "max_completion_length": MAX_TOKENS,
        "importance_sampling_level": "token",
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "use_vllm": False,
        "vllm_importance_sampling_correction": False,
        "aux_loss_enabled": False,
        "_entropy_bonus_enabled": False,
        "use_adaptive_entropy": False,
        "beta": beta,
        "_metrics": {"train": defaultdict(list)},
        "_get_per_token_logps_and_entropies": lambda *_, **__: (logprobs_NT, torch.zeros_like(logprobs_NT), None),
        **settings,
    }
    nothing = torch.zeros(N, 1, dtype=torch.int64)
    loss = trainer._compute_loss(
        None,
        {
            "prompt_ids": nothing,
            "prompt_mask": nothing,
            "completion_ids": torch.zeros(N, T, dtype=torch.int64),
            "completion_mask": mask_NT.long(),
            "advantages": batch["advantages"],
            "old_per_token_logps": batch["old_logprobs_NT"],
            "old_logps": (batch["old_logprobs_NT"] * mask_NT).sum(1),
            "ref_per_token_logps": batch["ref_logprobs_NT"],
            "num_items_in_batch": mask_NT.sum(),
        },
    )
    loss.backward()
    assert logprobs_NT.grad is not None
    return loss.detach(), logprobs_NT.grad


def ours(batch: dict[str, Tensor], method: str, beta: float) -> tuple[Tensor, Tensor]:
    """Our loss and gradient with the settings of a preset."""
    logprobs_NT = batch["logprobs_NT"].clone().requires_grad_()
    settings = METHODS[method].settings["loss"]
    denominator = loss_denominator(N, int(batch["mask_NT"].sum()), MAX_TOKENS, settings["aggregation"])
    inputs = {**batch, "logprobs_NT": logprobs_NT}
    loss = policy_loss(**inputs, denominator=denominator, **{**settings, "kl_coefficient": beta})  # pyright: ignore
    loss.value.backward()
    assert logprobs_NT.grad is not None
    return loss.value.detach(), logprobs_NT.grad


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("method", TRL)
def test_loss_and_gradient_are_those_of_trl(batch: dict[str, Tensor], method: str, beta: float) -> None:
    settings = METHODS[method].settings["loss"]
    clip = {"epsilon_low": settings["clip_low"], "epsilon_high": settings["clip_high"]}
    if method == "cispo":
        clip["epsilon_high"] += 1  # TRL's is the greatest weight itself
    kind = GMPOTrainer if method == "gmpo" else GRPOTrainer
    value, gradient = theirs(batch, kind, beta, **clip, **TRL[method])
    torch.testing.assert_close(ours(batch, method, beta), (value, gradient), rtol=1e-10, atol=1e-12)


def test_the_clips_bind_on_both_sides(batch: dict[str, Tensor]) -> None:
    log_ratio_NT = (batch["logprobs_NT"] - batch["old_logprobs_NT"])[batch["mask_NT"]]
    bound = 0.4 if log_ratio_NT.abs().max() > 1 else 0.05
    assert (log_ratio_NT > bound).any()
    assert (log_ratio_NT < -bound).any()


def test_rloo_has_trls_gradient_on_policy(batch: dict[str, Tensor]) -> None:
    """TRL weighs and clips a whole response by one ratio; at a ratio of 1 both are REINFORCE on the sum of log-probs."""
    on_policy = {**batch, "logprobs_NT": batch["old_logprobs_NT"]}
    _, gradient = theirs(on_policy, RLOOTrainer, 0.0, epsilon_low=0.2, epsilon_high=0.2)
    torch.testing.assert_close(ours(on_policy, "rloo", 0.0)[1] * MAX_TOKENS, gradient, rtol=1e-10, atol=1e-12)


def test_advantages_follow_trls_formulas() -> None:
    """GRPOTrainer._generate_and_score_completions under scale_rewards = group, none and batch; RLOOTrainer's baseline."""
    rewards_PG = torch.rand(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rewards_N, group_ids_N = rewards_PG.flatten(), torch.arange(5).repeat_interleave(4)
    centred_N = (rewards_PG - rewards_PG.mean(1, keepdim=True)).flatten()
    group_std_N = rewards_PG.std(1).repeat_interleave(4)
    for actual_N, expected_N in (
        (grpo_advantages(rewards_N, group_ids_N), centred_N / (group_std_N + 1e-4)),
        (grpo_advantages(rewards_N, group_ids_N, std=False), centred_N),
        (reinforce_pp_advantages(rewards_N, group_ids_N, baseline="group"), centred_N / (rewards_N.std() + 1e-4)),
        (rloo_advantages(rewards_N, group_ids_N), rewards_N - ((rewards_PG.sum(1, keepdim=True) - rewards_PG) / 3).flatten()),
    ):  # fmt: skip
        torch.testing.assert_close(actual_N, expected_N)
