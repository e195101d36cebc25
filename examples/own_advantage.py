"""An advantage of your own: a function that a recipe or a study names as python:own_advantage.rare_successes."""

import torch
from torch import Tensor


def rare_successes(rewards_N: Tensor, group_ids_N: Tensor, *, valid_N: Tensor, power: float = 1.0) -> Tensor:
    """The reward minus its group's mean, times (1 - mean) ** power: problems that are rarely solved count more.

    Args:
        rewards_N: one a rollout; here from 0 to 1.
        group_ids_N: rollouts of one problem share their id.
        valid_N: False where the reward is unknown; such a row gets 0.
        power: a setting of this function, given beside its name. 0: the mean is a plain baseline.

    A function gets by name what it names. `scores_N` are the mean log-probs of the rollouts, and `rollouts_N` the rollouts.
    """
    advantages_N = torch.zeros_like(rewards_N)
    for group in group_ids_N.unique():
        rows = (group_ids_N == group) & valid_N
        if rows.any():
            mean = rewards_N[rows].mean()
            advantages_N[rows] = (rewards_N[rows] - mean) * (1 - mean).clamp(0, 1) ** power
    return advantages_N
