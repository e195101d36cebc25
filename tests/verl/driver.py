"""A run of verl's own main_ppo on the CPU, as a program: python -m tests.verl.driver FOLDER [NODES] [OVERRIDE ...]."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "VERL_USE_EXTERNAL_MODULES": "tests.verl.cpu_platform",
    "VERL_PLATFORM": "cpu",
    "VERL_ENGINE_DEVICE": "cuda",
    "RAY_AUTH_MODE": "disabled",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "WANDB_MODE": "disabled",
}
"""Of the driver; local Ray workers inherit it."""
OVERRIDES = """
algorithm.adv_estimator=lampo
data.train_batch_size=8
data.max_prompt_length=16
data.max_response_length=16
data.dataloader_num_workers=0
data.shuffle=False
actor_rollout_ref.model.use_remove_padding=False
+actor_rollout_ref.model.override_config.attn_implementation=sdpa
actor_rollout_ref.model.enable_gradient_checkpointing=False
actor_rollout_ref.actor.strategy=fsdp2
actor_rollout_ref.actor.fsdp_config.dtype=float32
actor_rollout_ref.actor.fsdp_config.model_dtype=fp32
actor_rollout_ref.actor.fsdp_config.use_torch_compile=False
++actor_rollout_ref.actor.fsdp_config.mixed_precision={param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}
actor_rollout_ref.actor.use_torch_compile=False
actor_rollout_ref.actor.ppo_mini_batch_size=8
actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=16
actor_rollout_ref.actor.optim.lr=3e-3
actor_rollout_ref.actor.use_kl_loss=False
actor_rollout_ref.rollout.name=cpuhf
actor_rollout_ref.rollout.n=8
actor_rollout_ref.rollout.load_format=hf
actor_rollout_ref.rollout.tensor_model_parallel_size=1
actor_rollout_ref.rollout.calculate_log_probs=True
actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=32
actor_rollout_ref.rollout.agent.num_workers=1
reward.num_workers=1
trainer.logger=[console,file]
trainer.device=cpu
trainer.nnodes=1
trainer.n_gpus_per_node=2
trainer.val_before_train=False
trainer.test_freq=-1
trainer.save_freq=-1
trainer.total_training_steps=4
trainer.project_name=lampo
trainer.experiment_name=cpu
transfer_queue.backend.SimpleStorage.num_data_storage_units=1
ray_kwargs.ray_init.num_cpus=32
+ray_kwargs.ray_init.num_gpus=2
+ray_kwargs.ray_init.include_dashboard=False
+ray_kwargs.ray_init.object_store_memory=300000000
"""


def main() -> None:
    folder, nodes, *overrides = Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
    os.environ.update(ENVIRONMENT | {"VERL_FILE_LOGGER_PATH": str(folder / "metrics.jsonl")})
    if more := os.environ.get("LAMPO_TEST_MORE_MODULES"):
        os.environ["VERL_USE_EXTERNAL_MODULES"] += f",{more}"
    if nodes > 1:
        from ray.cluster_utils import Cluster

        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 24, "num_gpus": 1, "include_dashboard": False}
        )
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=8, num_gpus=1)
        os.environ["RAY_ADDRESS"] = cluster.address
    files = [
        f"data.train_files={folder}/train.parquet",
        f"data.val_files={folder}/test.parquet",
        f"actor_rollout_ref.model.path={folder}/model",
        f"trainer.default_local_dir={folder}/checkpoints",
        f"hydra.run.dir={folder}/hydra",
    ]
    sys.argv = ["main_ppo", *OVERRIDES.split(), *files, *overrides]
    from verl.trainer.main_ppo import main as train

    train()


if __name__ == "__main__":
    main()
