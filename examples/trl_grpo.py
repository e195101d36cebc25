"""Verifier and format as rewards in TRL's GRPOTrainer.

pip install trl
python examples/trl_grpo.py --model Qwen/Qwen3-0.6B
"""

import argparse
import csv
from pathlib import Path

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from lampo import reward_function

SYSTEM = "You solve problems step by step. Write the final number after ####."


def main() -> None:
    """Train on the problems beside this file."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--model", default="Qwen/Qwen3-0.6B")
    arguments.add_argument("--output", default="runs/trl")
    arguments.add_argument("--steps", type=int, default=50)
    arguments.add_argument("--max-completion-length", type=int, default=256)
    options = arguments.parse_args()

    with (Path(__file__).parent / "problems.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    chats = [[{"role": "system", "content": SYSTEM}, {"role": "user", "content": row["question"]}] for row in rows]
    problems = Dataset.from_dict({"prompt": chats, "answer": [row["answer"] for row in rows]})
    trainer = GRPOTrainer(
        model=options.model,
        train_dataset=problems,
        reward_funcs=[
            reward_function("numeric", marker="####"),  # None, not 0, where it cannot tell: TRL leaves that out
            reward_function("format", pattern=".*#### -?[0-9]+"),
        ],
        args=GRPOConfig(
            output_dir=options.output,
            reward_weights=[1.0, 0.1],
            num_generations=8,
            per_device_train_batch_size=8,
            max_completion_length=options.max_completion_length,
            max_steps=options.steps,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            bf16=torch.cuda.is_available(),
            use_cpu=not torch.cuda.is_available(),
        ),
    )
    trainer.train()


if __name__ == "__main__":
    main()
