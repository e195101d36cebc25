"""What a user of verl adds to have log-probs in the dump: one column more, in the older trainer (`trainer.use_v1=False`).

verl loads it by VERL_USE_EXTERNAL_MODULES, before there is a trainer to change.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

TRAINER = "verl.trainer.ppo.ray_trainer"


def _add_logprobs(module: Any) -> None:
    inner = module.RayPPOTrainer._log_rollout_data

    def _log_rollout_data(self: Any, batch: Any, reward_extra_infos_dict: dict[str, Any], *rest: Any) -> None:
        mask = batch.batch["response_mask"].bool()
        column = [row[kept].tolist() for row, kept in zip(batch.batch["old_log_probs"], mask, strict=True)]
        inner(self, batch, reward_extra_infos_dict | {"old_log_probs": column}, *rest)

    module.RayPPOTrainer._log_rollout_data = _log_rollout_data


class _Late:
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != TRAINER:
            return None
        spec = PathFinder.find_spec(fullname, path)
        assert spec is not None
        loader: Any = spec.loader
        execute = loader.exec_module
        loader.exec_module = lambda module: (execute(module), _add_logprobs(module))
        return spec


sys.meta_path.insert(0, _Late())  # pyright: ignore[reportArgumentType]
