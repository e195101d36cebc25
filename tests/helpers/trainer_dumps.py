"""The rollouts of other trainers in data/trainers, each written by the trainer itself on a CPU.

    python -m tests.helpers.trainer_dumps trl tests/data/trainers/trl-1.16.0       with that TRL installed
    python -m tests.helpers.trainer_dumps verl tests/data/trainers                 with verl 0.9.1, as in tests/verl; 5 minutes

TRL writes three runs: one reward; two rewards with weights, conversations and a column of one's own; and one that ends with an
evaluation, whose rows are in the last table. verl writes two: its newer trainer, and the older one with log-probs added.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

QUESTIONS = ["1+1=", "2+3=", "17+25=", "4+4=", "90+9=", "3+8="]


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else completion[0]["content"]


def accuracy_reward(completions: Sequence[Any], log_extra: Any = None, **_: Any) -> list[float | None]:
    """1 for two figures or more, 0 for fewer; of a response that begins with a to c it cannot tell."""
    texts = [_text(completion) for completion in completions]
    if log_extra is not None:
        log_extra("first_letters", [text[:2] for text in texts])
        log_extra("num_letters", [len(text) for text in texts])
    return [None if text[:1] in tuple("abc") else float(sum(map(str.isdigit, text)) >= 2) for text in texts]


def figures_reward(completions: Sequence[Any], **_: Any) -> list[float | None]:
    """The share of figures; it does not apply to an empty response."""
    texts = [_text(completion) for completion in completions]
    return [sum(map(str.isdigit, text)) / len(text) if text else None for text in texts]


def trl(output: Path) -> None:
    """The tables of TRL's GRPOTrainer."""
    import torch
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from .trl_run import save_model

    torch.set_num_threads(1)
    common = {
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": 1,
        "log_completions": True,
        "num_completions_to_print": 0,
        "max_steps": 2,
        "learning_rate": 0.01,
        "per_device_train_batch_size": 12,
        "num_generations": 4,
        "max_completion_length": 16,
        "seed": 5,
    }
    plain = [{"prompt": question} for question in QUESTIONS]
    chats = [{"prompt": [{"role": "user", "content": question}]} for question in QUESTIONS]
    runs: dict[str, tuple[list[Any], list[dict[str, Any]], dict[str, Any]]] = {
        "one-reward": ([accuracy_reward], plain, {}),
        "weighted": ([accuracy_reward, figures_reward], chats, {"reward_weights": [1.0, 0.2], "scale_rewards": "none"}),
        "evaluated": ([accuracy_reward, figures_reward], plain, {"eval_strategy": "steps", "eval_steps": 2}),
    }
    with tempfile.TemporaryDirectory() as scratch:
        model = save_model(Path(scratch) / "model")
        for name, (rewards, rows, settings) in runs.items():
            run = Path(scratch) / name
            trainer = GRPOTrainer(
                model=str(model),
                reward_funcs=rewards,
                args=GRPOConfig(output_dir=str(run), **{**common, "per_device_eval_batch_size": 8, **settings}),
                train_dataset=Dataset.from_list(rows),
                eval_dataset=Dataset.from_list(rows[:2]) if "eval_strategy" in settings else None,
            )
            trainer.processing_class.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
            trainer.train()
            shutil.copytree(run / "completions", output / name / "completions", dirs_exist_ok=True)


def verl(output: Path) -> None:
    """The dumps of verl's main_ppo, of both its trainers."""
    from ..verl.driver import ROOT
    from ..verl.small import prepare, run

    plain = [
        f"reward.custom_reward_function.path={ROOT}/tests/verl/plain_score.py",
        "algorithm.adv_estimator=grpo",
        "data.train_batch_size=4",
        "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
        "trainer.total_training_steps=2",
    ]
    os.environ["VERL_USE_EXTERNAL_PLUGINS"] = "none"  # verl is not to know LamPO
    for name, overrides in {"verl-0.9.1": [], "verl-0.9.1-log-probs": ["trainer.use_v1=False"]}.items():
        os.environ["LAMPO_TEST_MORE_MODULES"] = "tests.verl.dump_logprobs" if overrides else ""
        with tempfile.TemporaryDirectory(prefix="lampo-verl-", dir="/tmp") as scratch:
            prepare(Path(scratch))
            run(Path(scratch), *plain, *overrides, f"trainer.rollout_data_dir={scratch}/dump")
            shutil.copytree(Path(scratch) / "dump", output / name, dirs_exist_ok=True)


if __name__ == "__main__":
    {"trl": trl, "verl": verl}[sys.argv[1]](Path(sys.argv[2]))
