"""A recipe for `engine: verl` on the CPU platform of tests/verl."""

from pathlib import Path
from typing import Any

from lampo.config.schema import TrainConfig

from .small_run import small_config

ROOT = Path(__file__).resolve().parents[2]
STEPS = 3
OPTIONS = """
data.dataloader_num_workers=0
actor_rollout_ref.model.use_remove_padding=False
actor_rollout_ref.actor.fsdp_config.use_torch_compile=False
actor_rollout_ref.actor.use_torch_compile=False
actor_rollout_ref.rollout.name=cpuhf
actor_rollout_ref.rollout.load_format=hf
actor_rollout_ref.rollout.agent.num_workers=1
reward.num_workers=1
trainer.device=cpu
transfer_queue.backend.SimpleStorage.num_data_storage_units=1
ray_kwargs.ray_init.num_cpus=32
+ray_kwargs.ray_init.num_gpus=2
+ray_kwargs.ray_init.include_dashboard=False
+ray_kwargs.ray_init.object_store_memory=300000000
"""
"""What verl needs on this CPU platform, and no recipe says."""


def config_of(folder: Path, **changes: Any) -> TrainConfig:
    """Some responses nobody can judge, and long ones cost something."""
    changes = {
        "training__steps": STEPS,
        "evaluation__every": 2,
        "evaluation__samples": 2,
        "sampling__problems_per_step": 4,
        "verifier": {"name": "python:tests.verl.judge.unclear"},
        "rewards": [{"name": "verifier"}, {"name": "overlong", "weight": 0.5, "share": 0.5}],
        "loss__aggregation": "token",
        "loss__kl_coefficient": 0.1,
        "optimizer__schedule": "cosine",
        "optimizer__warmup_steps": 1,
        "model__dtype": "float32",
        "model__attention": "sdpa",
        "run__checkpoint_every": 1,
        "run__keep_checkpoints": 3,
        "run__processes": 2,
        "run__imports": [str(ROOT)],
        "run__engine_options": OPTIONS.split(),
    } | changes
    return small_config(folder, engine="verl", **changes)
