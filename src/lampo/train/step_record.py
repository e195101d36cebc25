"""What is logged of a step: plain averages over its rollouts, and where the time went."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from ..learner.batch import Batch
from ..types import Group


class Stopwatch:
    """Seconds by part of a step.

    >>> stopwatch = Stopwatch()
    >>> with stopwatch("sample"):
    ...     pass
    >>> sorted(stopwatch.record())
    ['time/sample', 'time/total']
    """

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._parts: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the time spent inside to a part."""
        start = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._parts[part] = self._parts.get(part, 0.0) + time.perf_counter() - start

    def record(self) -> dict[str, float]:
        """Seconds of every part, and of the whole since the watch was made."""
        return {f"time/{part}": seconds for part, seconds in self._parts.items()} | {
            "time/total": time.perf_counter() - self._start
        }


def rollout_record(groups_P: Sequence[Group], batch: Batch) -> dict[str, float]:
    """Rewards by component, verdicts and lengths of a step. Averages are over the rollouts that a component applies to.

    Args:
        groups_P: all groups that were sampled, those that dynamic sampling threw away included: they are its cost.
        batch: what the update is made of.
    """
    rollouts = [rollout for group in groups_P for rollout in group.rollouts_G]
    rewards = [reward for group in groups_P for reward in group.rewards_G]
    lengths = [len(rollout.completion_ids) for rollout in rollouts]
    known = [verdict.status for group in groups_P for verdict in group.verdicts_G if verdict.status != "unknown"]
    record = {
        "rollouts/sampled": len(rollouts),
        "rollouts/unknown": _mean([not reward.valid for reward in rewards]),
        "rollouts/truncated": _mean([not rollout.finished for rollout in rollouts]),
        "rollouts/length_mean": _mean(lengths),
        "rollouts/length_max": max(lengths),
        "rollouts/tokens": sum(lengths),
        "advantage/rows_without_gradient": 1 - len(batch.rows) / max(1, batch.num_rows),
    }
    titles = dict.fromkeys(title for reward in rewards for title in reward.parts)
    components = {"reward/total": [reward.total for reward in rewards if reward.valid]} | {
        f"reward/{title}": [value for reward in rewards if (value := reward.parts.get(title)) is not None]
        for title in titles
    }
    if known:
        record["rollouts/right"] = known.count("right") / len(
            known
        )  # by the verdicts, whatever they are worth as rewards
    return {name: _mean(values) for name, values in components.items() if values} | record


def peak_memory_gib() -> float:
    """Most memory so far in GiB: the GPU's allocations where there is one, else this process's resident set."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
