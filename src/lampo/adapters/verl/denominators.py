"""What verl divides a mini-batch by, without the responses that nobody could judge: in every worker, before each update.

verl divides by the number of rows that the options ask for, or by the tokens of all rows. A row is told apart by its advantages, which the
estimator has marked.
"""

from __future__ import annotations

from functools import wraps
from types import ModuleType
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from .unknown import UNKNOWN


def count_known_rows(workers: ModuleType) -> None:
    """Let verl's workers leave unknown rows out of each mini-batch. `workers` is verl.workers.engine_workers."""
    inner = workers.TrainingWorker.train_batch

    @wraps(inner)
    def train_batch(self: Any, data: Any) -> Any:
        if "advantages" in data.keys():  # noqa: SIM118 (a TensorDict)
            counts = torch.tensor(_counts(data["advantages"]), device=self.device_name)
            torch.distributed.all_reduce(counts, group=self.engine.get_data_parallel_group())
            unknown, rows = counts.tolist()
            if 0 < unknown < rows:  # of none that is known there is no gradient, whatever it is divided by
                leave_out(data)
                told = workers.tu.get(data, key="global_batch_size")
                if told is not None:
                    workers.tu.assign_non_tensor(data, global_batch_size=told - unknown)
        return inner(self, data)

    workers.TrainingWorker.train_batch = train_batch


def leave_out(data: Any) -> None:
    """Empty the masks of the unknown rows: no term of the loss sees them, and their tokens are not counted."""
    known_N = ~_unknown_rows(data["advantages"])
    for name in ("response_mask", "loss_mask"):
        if name in data.keys():  # noqa: SIM118
            data[name] = _emptied(data[name], known_N)


def mark(advantages_NT: Tensor, before_NT: Tensor, after_NT: Tensor) -> Tensor:
    """Advantages in which the rows whose mask was emptied are told by UNKNOWN, which is 0 in every sum."""
    emptied_N = before_NT.bool().any(1) & ~after_NT.bool().any(1)
    return torch.where(emptied_N[:, None] & before_NT.bool(), UNKNOWN, advantages_NT)


def _counts(advantages: Tensor) -> tuple[int, int]:
    unknown_N = _unknown_rows(advantages)
    return int(unknown_N.sum()), len(unknown_N)


def _unknown_rows(advantages: Tensor) -> Tensor:
    """(N,) rows that are marked, of a padded tensor or a nested one."""
    return torch.stack([(row == UNKNOWN).any() for row in advantages.unbind()])


def _emptied(mask: Any, known_N: Tensor) -> Tensor:
    known_N = known_N.to(mask.device)
    if not mask.is_nested:
        return mask * known_N[:, None]
    values = mask.values() * known_N.repeat_interleave(mask.offsets().diff())
    return torch.nested.nested_tensor_from_jagged(values, offsets=mask.offsets())
