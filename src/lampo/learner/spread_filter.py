"""RLPR's filter: groups whose rewards hardly differ, by a measure that follows the training, are left out of the update."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from ..algo.advantages.groups import standard_deviation
from ..config.schema import SpreadFilterOptions
from ..types import Group


class SpreadFilter:
    """Which groups to leave out of a step, and the moving average by which that is decided.

        m_s = mean over the groups of step s of the std (ddof 1) of their rewards
        E_s = mean of m over the steps average_from, ..., s                 before filter_from
            | decay * E_(s-1) + (1 - decay) * m_s                           from filter_from on
        a group of step s >= filter_from is left out where its std < share * E_(s-1)

    RLPR, arXiv 2506.18254. Start and steps as in the authors' code. All groups enter the average, those that are left out too. A group
    with fewer than two valid rewards has no std and does not.
    """

    def __init__(self, options: SpreadFilterOptions) -> None:
        self._options = options
        self._average: float | None = None
        self._steps = 0

    def left_out(self, groups_P: Sequence[Group], step: int) -> tuple[frozenset[int], dict[str, float]]:
        """Indices of the groups that the update of this step leaves out, and what to log. The average takes the step in."""
        stds = {index: std for index, group in enumerate(groups_P) if (std := reward_std(group)) is not None}
        least = 0.0
        if step >= self._options.filter_from and self._average is not None:
            least = self._options.share * self._average
        left_out = frozenset(index for index, std in stds.items() if std < least)
        record = {"spread/least": least, "spread/groups_left_out": len(left_out) / max(1, len(groups_P))}
        if stds:
            record["spread/mean"] = sum(stds.values()) / len(stds)
            self._take_in(record["spread/mean"], step)
        return left_out, record

    def save(self, folder: Path) -> None:
        """Write the average down."""
        (folder / "average.json").write_text(json.dumps({"average": self._average, "steps": self._steps}))

    def load(self, folder: Path) -> None:
        """Go on with what `save` wrote."""
        state = json.loads((folder / "average.json").read_text())
        self._average, self._steps = state["average"], state["steps"]

    def _take_in(self, mean: float, step: int) -> None:
        if step < self._options.average_from:
            return
        self._steps += 1
        plain = self._average is None or step < self._options.filter_from
        weight = 1 / self._steps if plain else 1 - self._options.decay
        self._average = mean if self._average is None else (1 - weight) * self._average + weight * mean


def reward_std(group: Group) -> float | None:
    """Standard deviation (ddof 1) of a group's valid rewards; None where there are fewer than two."""
    rewards = [reward.total for reward in group.rewards_G if reward.valid]
    return float(standard_deviation(torch.tensor([rewards]))) if len(rewards) > 1 else None
