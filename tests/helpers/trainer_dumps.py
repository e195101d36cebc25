"""The rollouts of other trainers in data/trainers, each written by the trainer itself on a CPU.

    python -m tests.helpers.trainer_dumps trl tests/data/trainers/trl-1.16.0       with that TRL installed
    python -m tests.helpers.trainer_dumps verl tests/data/trainers                 with verl 0.9.1, as in tests/verl; 5 minutes
    python -m tests.helpers.trainer_dumps lampo tests/data/trainers                the same; 3 minutes

TRL writes three runs: one reward; two rewards with weights, conversations and a column of one's own; and one that ends with an
evaluation, whose rows are in the last table. verl writes two: its newer trainer, and the older one with log-probs added. `lampo` has it
write a third one, in a run of `lampo train --engine verl` that does not take in what verl writes.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
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

    small = [
        "data.train_batch_size=4",
        "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
        "trainer.total_training_steps=2",
    ]
    plain = [f"reward.custom_reward_function.path={ROOT}/tests/verl/plain_score.py", "algorithm.adv_estimator=grpo"]
    runs = {
        "verl-0.9.1": plain,
        "verl-0.9.1-log-probs": [*plain, "trainer.use_v1=False"],
    }
    os.environ["VERL_USE_EXTERNAL_PLUGINS"] = "none"  # verl is not to know LamPO
    for name, overrides in runs.items():
        os.environ["LAMPO_TEST_MORE_MODULES"] = "tests.verl.dump_logprobs" if "log-probs" in name else ""
        with tempfile.TemporaryDirectory(prefix="lampo-verl-", dir="/tmp") as scratch:
            prepare(Path(scratch))
            run(Path(scratch), *small, *overrides, f"trainer.rollout_data_dir={scratch}/dump")
            shutil.copytree(Path(scratch) / "dump", output / name, dirs_exist_ok=True)


def lampo(output: Path) -> None:
    """What verl writes for `lampo train --engine verl`: metrics, rollouts, and responses that were measured."""
    from lampo import LampoError
    from lampo.adapters.verl import engine
    from lampo.adapters.verl.follow import Follower
    from lampo.train.run import Run
    from lampo.view.console import Progress

    from ..verl.driver import ENVIRONMENT
    from ..verl.small import scratch
    from .verl_run import config_of

    Follower.poll = lambda self: None
    with scratch() as environment, tempfile.TemporaryDirectory() as folder, Progress("verl") as progress:
        os.environ.update(environment | ENVIRONMENT)
        run = Run.create(config_of(Path(folder)))
        with suppress(LampoError):  # it has seen no step
            engine.train(run, progress)
        target = output / "verl-0.9.1-lampo"
        target.mkdir(parents=True)
        for name in ("rollouts", "evaluations"):
            shutil.copytree(run.path / "verl" / name, target / name)
        shutil.copyfile(run.path / "verl" / "metrics.jsonl", target / "metrics.jsonl")


if __name__ == "__main__":
    {"trl": trl, "verl": verl, "lampo": lampo}[sys.argv[1]](Path(sys.argv[2]))
