"""What verl's dumps of rollouts lack: log-probs, advantages, tokens and verdicts, as columns; and a run that ends after a step.

verl writes a dump where `trainer.rollout_data_dir` is set, in the process that computes the advantages.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

from .unknown import UNKNOWN

STOP = "stop"
"""A file of this name in the folder of the dumps ends the run after the step that is under way, with a checkpoint."""
FIELDS = ("responses", "loss_mask", "old_log_probs", "advantages", "extra_fields")
"""What verl keeps of each row and a dump is made of."""
DIGITS = 8
"""Of log-probs."""


def add_columns(trainer: ModuleType, estimator: str) -> None:
    """Have verl's newer trainer write more columns. `trainer` is verl.trainer.ppo.v1.trainer_base; other estimators are left alone."""
    inner = trainer.PPOTrainer._log_rollout_data

    @wraps(inner)
    def _log_rollout_data(self: Any, batch: Any, timing_raw: Any, rollout_data_dir: str) -> None:
        if self.config.algorithm.adv_estimator != estimator:
            inner(self, batch, timing_raw, rollout_data_dir)
            return
        data = trainer.tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=[*FIELDS])
        rows = dict(zip(batch.keys, columns(data, batch.tags), strict=True))
        plain = self._dump_generations

        def with_columns(*, reward_extra_infos_dict: dict[str, list[Any]], **others: Any) -> None:
            ordered = [rows[key] for key in reward_extra_infos_dict["uid"]]
            names = dict.fromkeys(name for row in ordered for name in row)
            more = {name: [row.get(name) for row in ordered] for name in names}
            plain(reward_extra_infos_dict=reward_extra_infos_dict | more, **others)

        self._dump_generations = with_columns
        try:
            inner(self, batch, timing_raw, rollout_data_dir)
        finally:
            del self._dump_generations
        for future in self._dump_futures:  # whoever reads the step's metrics finds its rollouts whole
            future.result()
        if (Path(rollout_data_dir) / STOP).exists():
            _end_here(self)

    trainer.PPOTrainer._log_rollout_data = _log_rollout_data


def columns(data: Any, tags: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The further columns of each row."""
    tensors = (data[name].unbind() for name in FIELDS[:4])
    for ids, mask, logprobs, advantages, extra, tag in zip(*tensors, list(data["extra_fields"]), tags, strict=True):
        kept = mask.bool()
        by_token = [0.0 if value == UNKNOWN else value for value in advantages[kept].tolist()]
        yield {
            **(extra.get("reward_extra_info") or {}),
            "padding": bool(tag.get("is_padding", False)),
            "token_ids": ids[kept].tolist(),
            "old_log_probs": [round(value, DIGITS) for value in logprobs[kept].tolist()],
            "advantage": sum(by_token) / max(len(by_token), 1),
            "advantages": by_token if len(set(by_token)) > 1 else None,
        }


def _end_here(trainer: Any) -> None:
    """Save if this step was not saved, and let it be the last."""
    frequency = trainer.config.trainer.save_freq
    if frequency <= 0 or trainer.global_steps % frequency:
        trainer._save_checkpoint()
    trainer.total_training_steps = min(trainer.total_training_steps, trainer.global_steps)
