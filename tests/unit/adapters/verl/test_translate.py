"""A recipe as options of verl, and what is refused. No verl needed: what these options do is in tests/verl."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path
from typing import Any

import pytest

from lampo import LampoError
from lampo.adapters.verl import engine
from lampo.adapters.verl.advantages import read_settings
from lampo.adapters.verl.translate import DEFAULTS, advantage, command_options, hydra, refusals, refuse, settings
from lampo.config.schema import TrainConfig
from lampo.learner.optimizer import learning_rate
from lampo.train.engines import engine_of

from ....helpers.small_run import small_config


def config_of(folder: Path, *more: str, **changes: Any) -> TrainConfig:
    changes = {"training__steps": 3, "evaluation__every": 2, "sampling__problems_per_step": 4} | changes
    return small_config(folder, *more, **({"engine": "verl"} | changes))


def options_of(config: TrainConfig, folder: Path) -> dict[str, Any]:
    return settings(config, folder, model="Qwen/Qwen3-1.7B", longest_prompt=6)


REFUSED: dict[str, dict[str, Any]] = {
    "loss.surrogate is geometric": {"loss__surrogate": "geometric"},
    "loss.surrogate is gvpo": {"loss__surrogate": "gvpo"},
    "sampling.resample is 3": {"sampling__resample": 3},
    "sampling.engine is vllm": {"sampling__engine": "vllm"},
    "loss.sampler_correction is token": {"loss__sampler_correction": "token"},
    "spread_filter": {"spread_filter": {"share": 0.5}},
    "optimizer.eight_bit_moments": {"optimizer": {"eight_bit_moments": True}},
    "model.lora": {"model__lora": {"rank": 4}},
    "model.device is cpu": {"model__device": "cpu"},
    "run.processes x run.nodes is 3": {"run__processes": 3},
    "run.nodes is 2": {"run__nodes": 2},
    "evaluation.greedy": {"evaluation__greedy": True},
    "evaluation.final_problems is 16": {"evaluation__final_problems": 16},
    "evaluation.final_samples is 4": {"evaluation__final_samples": 4},
    "The advantage prime learns a process reward model": {"advantage": {"name": "prime"}},
    "The reward likelihood": {"rewards": [{"name": "likelihood"}]},
    "run.engine_options has trainer.nnodes: the recipe says trainer.nnodes=1": {
        "run__engine_options": ["trainer.nnodes=2"]
    },
    "run.engine_options has algorithm.lampo: the recipe says": {
        "run__engine_options": ["+algorithm.lampo={name:grpo}"]
    },
    "run.engine_options has 'trainer.device': verl takes name=value": {"run__engine_options": ["trainer.device"]},
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_verl_cannot_honour_is_refused_by_name(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(LampoError, match=f"The engine verl cannot honour these settings:\n(.*\n)*  {re.escape(named)}"):
        refuse(config_of(tmp_path, **REFUSED[named]))


def test_a_final_evaluation_of_its_own_is_fine_where_there_is_none_in_between(tmp_path: Path) -> None:
    config = config_of(tmp_path, evaluation__final_problems=16, evaluation__every=3)
    assert not [*refusals(config)]
    assert options_of(config, tmp_path)["trainer.test_freq"] == 3


def test_a_cluster_of_ray_is_taken_where_its_address_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    config = config_of(tmp_path, run__nodes=2, run__processes=8)
    refuse(config)
    found = options_of(config, tmp_path)
    assert (found["trainer.nnodes"], found["trainer.n_gpus_per_node"]) == (2, 8)


@pytest.mark.parametrize("engine_name", ["native", "trl"])
@pytest.mark.parametrize("given", [{"run__nodes": 2}, {"run__engine_options": ["a=1"]}], ids=str)
def test_other_engines_refuse_the_settings_of_verl(engine_name: str, given: dict[str, Any], tmp_path: Path) -> None:
    (name,) = (key.replace("__", ".") for key in given)
    with pytest.raises(
        LampoError, match=f"{name} is for the engine verl, and this recipe has the engine {engine_name}"
    ):
        engine_of(config_of(tmp_path, engine=engine_name, **given))


def test_a_missing_verl_is_one_line_that_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        LampoError, match=re.escape("The engine verl needs verl. Install it with: pip install 'lampo[train,verl]'")
    ):
        engine.refuse(config_of(tmp_path))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (
            "lampo",
            {"loss_agg_mode": "seq-mean-token-mean", "policy_loss.loss_mode": "vanilla", "loss_scale_factor": None},
        ),
        ("dr_grpo", {"loss_agg_mode": "seq-mean-token-sum-norm", "loss_scale_factor": 12}),
        ("gspo", {"policy_loss.loss_mode": "gspo", "clip_ratio_low": 3e-4}),
        ("cispo", {"policy_loss.loss_mode": "cispo", "loss_agg_mode": "token-mean"}),
        ("simplerl_zoo", {"loss_agg_mode": "token-mean", "use_kl_loss": True, "kl_loss_coef": 1e-4}),
        ("reinforce_pp", {"loss_agg_mode": "token-mean"}),
    ],
)
def test_methods_become_options_of_verl(method: str, expected: dict[str, Any], tmp_path: Path) -> None:
    config = config_of(tmp_path, method=method)
    assert not [*refusals(config)]
    found = options_of(config, tmp_path)
    assert {key: found[f"actor_rollout_ref.actor.{key}"] for key in expected} == expected
    read, source = read_settings(
        {key.rpartition(".")[2]: found[key] for key in found if key.startswith("++algorithm.lampo.")}
    )
    assert (read, source) == (config.advantage, "trainer")


def test_an_advantage_of_one_s_own_keeps_its_options(tmp_path: Path) -> None:
    config = config_of(tmp_path, advantage={"name": "python:mine.own", "factor": 2})
    assert advantage(config.advantage) == {"name": "python:mine.own", "factor": 2}


def test_sampling_length_seeds_and_batches_are_the_recipe_s(tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        run__seed=7,
        run__processes=2,
        sampling__temperature=0.8,
        sampling__rows_at_once=64,
        training__updates_per_batch=2,
        evaluation__samples=4,
        evaluation__temperature=0.6,
        model__dtype="float32",
        prompt__chat_options={"enable_thinking": False},
    )
    found = options_of(config, tmp_path)
    assert (
        found
        | {
            "data.train_batch_size": 4,
            "data.max_prompt_length": 6,
            "data.max_response_length": 12,
            "data.shuffle": False,
            "++data.apply_chat_template_kwargs.enable_thinking": False,
            "actor_rollout_ref.rollout.n": 4,
            "actor_rollout_ref.rollout.temperature": 0.8,
            "actor_rollout_ref.rollout.seed": 7,
            "actor_rollout_ref.rollout.max_num_seqs": 64,
            "actor_rollout_ref.rollout.max_model_len": 18,
            "actor_rollout_ref.rollout.val_kwargs.n": 4,
            "actor_rollout_ref.rollout.val_kwargs.temperature": 0.6,
            "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
            "actor_rollout_ref.actor.ppo_epochs": 2,
            "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 100,
            "actor_rollout_ref.actor.fsdp_config.model_dtype": "fp32",
            "actor_rollout_ref.rollout.dtype": "float32",
            "trainer.total_training_steps": 3,
            "trainer.save_freq": 2,
            "trainer.n_gpus_per_node": 2,
        }
        == found
    )


def test_a_micro_batch_holds_at_least_one_row_and_auto_is_verl_s_default(tmp_path: Path) -> None:
    key = "actor_rollout_ref.actor.ppo_max_token_len_per_gpu"
    assert options_of(config_of(tmp_path, training__tokens_per_microbatch=5), tmp_path)[key] == 18
    assert options_of(config_of(tmp_path, training__tokens_per_microbatch="auto"), tmp_path)[key] == 16_384


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_learning_rate_is_the_recipe_s_in_every_step(schedule: str, tmp_path: Path) -> None:
    """verl's `get_cosine_schedule_with_warmup`, which counts updates from 0, as verl 0.9.1 has it."""
    config = config_of(tmp_path, optimizer__schedule=schedule, optimizer__warmup_steps=2, training__steps=6)
    found = options_of(config, tmp_path)
    key = "actor_rollout_ref.actor.optim"
    warmup, least = found[f"{key}.lr_warmup_steps"], found[f"{key}.min_lr_ratio"]
    assert (found[f"{key}.lr_scheduler_type"], found[f"{key}.zero_indexed_step"]) == ("cosine", False)

    def share(step: int) -> float:
        if step < warmup:
            return step / warmup
        return math.cos(math.pi * (step - warmup) / (6 - warmup)) * (1 - least) / 2 + (1 + least) / 2

    for step in range(1, 7):
        expected = learning_rate(step, 6, config.optimizer)
        assert found[f"{key}.lr"] * share(step) == pytest.approx(expected)


def test_a_resumed_run_names_its_checkpoint_and_does_not_measure_first(tmp_path: Path) -> None:
    saved = tmp_path / "checkpoints" / "global_step_2"
    found = settings(config_of(tmp_path), tmp_path, model="m", longest_prompt=6, resume_from=saved)
    assert (found["trainer.resume_mode"], found["trainer.resume_from_path"]) == ("resume_path", str(saved))
    assert found["trainer.val_before_train"] is False


def test_options_of_verl_s_own_come_last_and_win_over_what_the_recipe_does_not_say(tmp_path: Path) -> None:
    own = ["actor_rollout_ref.rollout.name=sglang", "+ray_kwargs.ray_init.num_gpus=2"]
    config = config_of(tmp_path, run__engine_options=own)
    refuse(config)
    said = command_options(config, options_of(config, tmp_path))
    assert said[-2:] == own
    assert not any(option.startswith("actor_rollout_ref.rollout.name='vllm'") for option in said)
    assert f"trainer.project_name={hydra(DEFAULTS['trainer.project_name'])}" in said


def test_a_dry_run_prints_the_engine_s_own_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(tmp_path, run__processes=2)
    engine.dry_run(config)
    printed = capsys.readouterr().out
    assert "engine: verl on Ray, 2 processes on one machine" in printed
    assert "  algorithm.adv_estimator='lampo'" in printed
    assert "  actor_rollout_ref.rollout.n=4" in printed
    assert "Nothing was trained." in printed
    assert not (tmp_path / "small").exists()
