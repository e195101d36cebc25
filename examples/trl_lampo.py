"""LamPO in TRL's trainer: the quickstart's sums, from the quickstart's warm start.

pip install 'lampo[train,trl]'
lampo train quickstart --set training.steps=0 --set run.name=warm
python examples/trl_lampo.py --model runs/warm/model
python examples/trl_lampo.py --model runs/warm/model --advantage grpo --output runs/trl-grpo
"""

import argparse

import torch
from datasets import Dataset

from lampo.adapters.trl import LamPOConfig, LamPOTrainer
from lampo.rewards import reward_functions
from lampo.tasks.arithmetic import ArithmeticOptions


def main() -> None:
    """Train, and keep the model."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", default="runs/warm/model")
    arguments.add_argument("--output", default="runs/trl-lampo")
    arguments.add_argument("--advantage", default="pairwise")
    arguments.add_argument("--steps", type=int, default=120)
    options = arguments.parse_args()
    task = ArithmeticOptions(digits=3).load()
    problems = Dataset.from_list([{"prompt": problem.prompt, "answer": problem.answer} for problem in task.train])
    functions, weights = reward_functions([{"name": "verifier"}], verifier="numeric")
    trainer = LamPOTrainer(
        model=options.model,
        reward_funcs=functions,
        train_dataset=problems,
        args=LamPOConfig(
            output_dir=options.output,
            advantage=options.advantage,
            reward_weights=weights,
            num_generations=8,
            per_device_train_batch_size=128,
            max_completion_length=48,
            loss_type="grpo",
            learning_rate=3e-4,
            lr_scheduler_type="cosine",
            warmup_steps=5,
            max_steps=options.steps,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            bf16=torch.cuda.is_available(),
            use_cpu=not torch.cuda.is_available(),
        ),
    )
    trainer.train()
    trainer.save_model(f"{options.output}/model")
    trainer.save_state()


if __name__ == "__main__":
    main()
