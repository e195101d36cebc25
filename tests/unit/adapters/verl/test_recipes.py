"""The launch recipes: every option exists in verl's own configuration, and they say what the recipes of `lampo train` say."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verl", reason="verl is not installed: make test-verl")
pytestmark = pytest.mark.filterwarnings("ignore")

from hydra import compose, initialize_config_module  # noqa: E402
from verl.trainer.ppo.utils import need_critic, need_reference_policy  # noqa: E402
from verl.utils.config import omega_conf_to_dataclass, validate_config  # noqa: E402

from lampo.adapters.verl.advantages import read_settings  # noqa: E402
from lampo.config.load import load_config  # noqa: E402

ROOT = Path(__file__).resolve().parents[4]
SCRIPTS = sorted((ROOT / "recipes" / "verl").glob("*.sh"))


def options(script: Path, folder: Path, nodes: int, *more: str) -> list[str]:
    """What a recipe starts verl with: it runs, with a `python3` that writes down its arguments."""
    python = folder / "python3"
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {folder}/told\n')
    python.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "NODES": str(nodes), "DATA": str(folder)}
    environment.pop("PROBLEMS", None)
    subprocess.run(["bash", str(script), *more], check=True, env=environment, timeout=60)
    first, *told = (folder / "told").read_text().split("-m\nverl.trainer.main_ppo\n")
    assert first.splitlines() == [
        "-m",
        "lampo.adapters.verl",
        f"{'-'.join(script.stem.split('-')[:-1])}-mot",
        str(folder),
    ]
    return told[0].splitlines()


def composed(overrides: list[str]) -> Any:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides)


def test_there_is_one_for_each_model_and_engine() -> None:
    names = [f"{model}-{engine}" for model in ("qwen3-1.7b", "qwen3-4b") for engine in ("fsdp2", "megatron")]
    assert [script.stem for script in SCRIPTS] == ["phi-4-mini-fsdp2", *names]


@pytest.mark.parametrize("nodes", [1, 4])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_verl_takes_every_option(script: Path, nodes: int, tmp_path: Path) -> None:
    told = options(script, tmp_path, nodes, "+algorithm.lampo.name=grpo")
    config = composed(told)  # hydra refuses an option that is not in verl's configuration
    assert all("=" in each for each in told)
    assert len({each.partition("=")[0] for each in told}) == len(told)
    validate_config(config, need_reference_policy(config), need_critic(config))
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    rollout = omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    engine = script.stem.rpartition("-")[2]
    assert actor.strategy == engine
    assert actor.ppo_mini_batch_size == config.data.train_batch_size == 32 * nodes
    assert rollout.n == 8
    assert read_settings(config.algorithm.lampo)[0].title == "grpo"
    row = config.data.max_prompt_length + config.data.max_response_length
    assert actor.ppo_max_token_len_per_gpu >= row  # else verl cannot place the longest row
    assert rollout.max_model_len == row
    assert config.trainer.nnodes == nodes
    assert config.trainer.v1.trainer_mode == "sync"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_settings_are_those_of_the_recipe(script: Path, tmp_path: Path) -> None:
    config = composed(options(script, tmp_path, 1))
    ours = load_config(ROOT / "recipes" / f"{script.stem.rpartition('-')[0]}-mot.yaml")
    actor = config.actor_rollout_ref.actor
    assert config.actor_rollout_ref.model.path == ours.model.path
    assert config.data.train_batch_size == ours.sampling.problems_per_step
    assert config.actor_rollout_ref.rollout.n == ours.sampling.group_size
    assert config.data.max_response_length == ours.sampling.max_new_tokens
    assert config.actor_rollout_ref.rollout.temperature == ours.sampling.temperature
    assert (actor.optim.lr, actor.optim.lr_warmup_steps) == (ours.optimizer.learning_rate, ours.optimizer.warmup_steps)
    assert (actor.optim.weight_decay, actor.optim.clip_grad) == (0.0, ours.optimizer.max_gradient_norm)
    assert tuple(actor.optim.betas) == ours.optimizer.betas
    assert (actor.kl_loss_coef, actor.kl_loss_type, actor.use_kl_loss) == (ours.loss.kl_coefficient, "low_var_kl", True)
    assert (actor.clip_ratio_low, actor.clip_ratio_high) == (ours.loss.clip_low, ours.loss.clip_high)
    assert (ours.loss.aggregation, actor.loss_agg_mode) == ("sequence", "seq-mean-token-mean")
    assert dict(config.data.apply_chat_template_kwargs) == ours.prompt.chat_options
    assert config.trainer.total_training_steps == ours.training.steps
    assert actor.entropy_coeff == 0


def test_a_script_is_readable_by_bash() -> None:
    for script in SCRIPTS:
        assert os.access(script, os.X_OK)
        subprocess.run(["bash", "-n", str(script)], check=True)


def documented() -> list[str]:
    """The options of verl that the page names, as its tables write them."""
    page = (ROOT / "docs" / "engines-verl.md").read_text()
    return re.findall(r"`'?([+~]?[a-z_]+(?:\.[a-z_0-9A-Z]+)+=[^`']+)'?`", page)


def test_every_option_of_the_page_is_verls() -> None:
    found = documented()
    assert len(found) > 20
    for option in found:
        composed(["actor_rollout_ref.rollout.name=vllm", option])
