"""Our tasks in the form of verl's data: train.parquet and test.parquet, a problem a row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...config.schema import TrainConfig
from ...rewards import OverlongReward
from ...tasks.load import load_task
from ...types import LampoError, Problem
from ...verify import prepare_verifiers, verifier_for
from .reward import FUNCTION, MANAGER, read_rewards

SPLITS = {"train": "train", "test": "heldout"}
"""verl's names of the files, and ours of the problems."""


def write_parquet(config: TrainConfig, folder: Path) -> dict[str, int]:
    """Write the problems of a recipe for verl, with the prompt, the verifier and the rewards of the recipe.

    Args:
        config: the recipe.
        folder: gets train.parquet and test.parquet.

    Returns:
        The number of problems in each file.

    Raises:
        LampoError: the task cannot be read, a verifier lacks what it needs, or pyarrow is missing.
    """
    read_rewards(rewards_of(config))
    task = load_task(config.task, config.decontamination).for_training()
    prepare_verifiers([*task.train, *task.heldout], config.verifier)
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for name, split in SPLITS.items():
        problems: Sequence[Problem] = getattr(task, split)
        write_problems(config, problems, folder, name)
        counts[name] = len(problems)
    return counts


def write_problems(config: TrainConfig, problems: Sequence[Problem], folder: Path, name: str) -> None:
    """Write problems as `name`.parquet into a folder.

    Raises:
        LampoError: pyarrow is missing.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise LampoError("Writing Parquet needs pyarrow: pip install 'lampo[verl]'.") from None
    table = pyarrow.Table.from_pylist([row(config, problem, index, name) for index, problem in enumerate(problems)])
    pyarrow.parquet.write_table(table, folder / f"{name}.parquet")


def row(config: TrainConfig, problem: Problem, index: int, split: str) -> dict[str, Any]:
    """One problem as verl reads it; `extra_info` is what `reward.compute_score` reads."""
    text = config.prompt.template.replace("{prompt}", problem.prompt)
    system = [] if config.prompt.system is None else [{"role": "system", "content": config.prompt.system}]
    return {
        "data_source": f"lampo/{config.task.name}",
        "prompt": [*system, {"role": "user", "content": text}],
        "ability": config.task.name,
        "reward_model": {"style": "rule", "ground_truth": problem.answer},
        "extra_info": {
            "index": index,
            "split": split,
            "id": problem.id,
            "question": problem.prompt,
            "reference": problem.reference or "",
            "verifier": verifier_for(problem, config.verifier).model_dump_json(),
            "rewards": rewards_of(config),
            "fields": json.dumps(dict(problem.fields), default=str),
        },
    }


def rewards_of(config: TrainConfig) -> str:
    """The recipe's list as JSON."""
    return json.dumps([reward.model_dump(mode="json") for reward in config.rewards if reward.weight != 0])


def overrides(config: TrainConfig, folder: Path) -> list[str]:
    """What verl's command line needs to read these files and to reward as the recipe does."""
    template = [f"+data.apply_chat_template_kwargs.{key}={value}" for key, value in config.prompt.chat_options.items()]
    counts = any(isinstance(reward, OverlongReward) and reward.weight != 0 for reward in config.rewards)
    return [
        f"data.train_files={folder.absolute()}/train.parquet",
        f"data.val_files={folder.absolute()}/test.parquet",
        *template,
        f"reward.custom_reward_function.path={FUNCTION}",
        *([*MANAGER, f"data.max_response_length={config.sampling.max_new_tokens}"] if counts else []),
    ]
