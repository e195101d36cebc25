"""A run small enough to be done many times."""

from pathlib import Path
from typing import Any

from lampo.config.load import parse_config
from lampo.config.schema import TrainConfig
from lampo.store.metrics import read_metrics
from lampo.train.loop import train
from lampo.train.run import Run
from lampo.view.console import Progress

TIMES = ("time/", "memory/")


def small_config(folder: Path, *settings: str, **changes: Any) -> TrainConfig:
    """Two-digit sums, a model of 15,000 parameters, 4 warm-start steps and 6 training steps; `section__key=value` changes it."""
    values: dict[str, Any] = {
        "run": {"name": "small", "folder": str(folder), "threads": 1, "checkpoint_every": 2},
        "model": {
            "config": {
                "model_type": "qwen3",
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "head_dim": 16,
                "max_position_embeddings": 64,
                "tie_word_embeddings": True,
            },
            "characters": "0123456789+=\n",
        },
        "task": {"name": "arithmetic", "digits": 2, "num_train": 64, "num_heldout": 16},
        "rewards": {"rouge_l": {"weight": 0.5}},
        "warmstart": {"steps": 4, "rows_per_step": 8, "optimizer": {"learning_rate": 1e-3}},
        "sampling": {"problems_per_step": 3, "group_size": 4, "max_new_tokens": 12},
        "optimizer": {"learning_rate": 1e-3},
        "training": {"steps": 6, "tokens_per_microbatch": 100},
        "evaluation": {"every": 3, "problems": 8},
    }
    for name, value in changes.items():
        *sections, key = name.split("__")
        target = values
        for section in sections:
            target = target.setdefault(section, {})
        target[key] = value
    return parse_config(values, "the small recipe", settings)


def run_to_end(config: TrainConfig) -> Path:
    run = Run.create(config)
    with Progress(run.path.name) as progress:
        train(run, progress)
    return run.path


def resume(path: Path, *settings: str) -> list[str]:
    run, complaints = Run.resume(path, settings)
    with Progress(path.name) as progress:
        train(run, progress)
    return complaints


def curve(path: Path) -> list[dict[str, Any]]:
    """All that was logged but the times and the memory."""
    return [{key: value for key, value in record.items() if not key.startswith(TIMES)} for record in read_metrics(path)]
