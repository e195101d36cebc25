"""A short run of `LamPOTrainer` that writes down what it trained on and which gradients came out; also a program for torchrun."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback

from lampo.adapters.trl import LamPOConfig, LamPOTrainer
from lampo.model.policy import Policy

from ..conftest import tiny_options

MODULES = ("lampo.adapters.trl.engine", "torch.distributed.launcher.api")
"""What processes of TRL import before they work, for `warm.python`."""
GROUP_SIZE = 4
QUESTIONS = ["1+1=", "2+3=", "17+25=", "4+4=", "90+9=", "3+8="]


def digits(completions: Sequence[str], **_: Any) -> list[float | None]:
    """How many figures a response has. Of one that begins with a to f it cannot tell, and then nobody can."""
    return [None if text[:1] in tuple("abcdef") else float(sum(map(str.isdigit, text))) for text in completions]


digits.none_is_unknown = True  # pyright: ignore[reportFunctionMemberAccess]


def letters(completions: Sequence[str], **_: Any) -> list[float | None]:
    """How many of the letters a to m a response has; where there is none it does not apply."""
    counts = [sum(letter in "abcdefghijklm" for letter in text) for text in completions]
    return [float(count) if count else None for count in counts]


def save_model(folder: Path, seed: int = 3) -> Path:
    """A tiny Qwen3 as a Hugging Face folder. Its head is sharp, so that log-probs differ, and it likes to end."""
    policy = Policy.load(tiny_options("qwen3"), seed=seed)
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.mul_(4.0)
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return folder


class Recorder(TrainerCallback):
    """Weights before each optimiser step, and the gradients that it gets."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.gradients: list[dict[str, Tensor]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.weights.append({name: value.detach().clone() for name, value in model.named_parameters()})

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        found = model.named_parameters()
        self.gradients.append({name: value.grad.clone() for name, value in found if value.grad is not None})


class Watched(LamPOTrainer):
    """Writes down the batches as they leave the trainer, before TRL shuffles them, and the texts that were scored."""

    batches: list[dict[str, Any]]

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        self.texts = list(completions)
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        batch = super()._generate_and_score_completions(inputs)
        kept = {name: value.clone() for name, value in batch.items() if isinstance(value, Tensor)}
        self.__dict__.setdefault("batches", []).append(kept | {"texts": self.texts})
        return batch


def make_trainer(
    model: Path | str,
    output: Path,
    *,
    trainer: type[LamPOTrainer] = Watched,
    peft: Any = None,
    rewards: Any = None,
    **settings: Any,
) -> LamPOTrainer:
    arguments: dict[str, Any] = {
        "output_dir": str(output),
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": 1,
        "max_steps": 1,
        "max_grad_norm": 0.0,
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "per_device_train_batch_size": 24,
        "num_generations": GROUP_SIZE,
        "max_completion_length": 40,
        "temperature": 0.8,
        "seed": 5,
    }
    return trainer(
        model=str(model),
        reward_funcs=rewards or [digits, letters],
        args=LamPOConfig(**{**arguments, **settings}),
        train_dataset=Dataset.from_list([{"prompt": question} for question in QUESTIONS]),
        peft_config=peft,
    )


def train(model: Path | str, output: Path, **settings: Any) -> dict[str, Any]:
    """Train, and return what was recorded: batches, weights, gradients, and TRL's log."""
    trainer, recorder = make_trainer(model, output, **settings), Recorder()
    trainer.add_callback(recorder)
    trainer.train()
    return {
        "batches": trainer.batches,  # pyright: ignore[reportAttributeAccessIssue]
        "weights": recorder.weights,
        "gradients": recorder.gradients,
        "log": trainer.state.log_history,
        "logged_advantages": list(trainer._logs["advantages"]),
    }


def main() -> None:
    torch.set_num_threads(1)
    model, output, settings = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    torch.save(train(model, output, **settings), output / f"rank{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main()
