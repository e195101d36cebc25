"""Random rewards, scores and groups, and how closely two results must agree."""

from __future__ import annotations

import random

import torch
from torch import Tensor


def mixed_batch(seed: int) -> tuple[list[float], list[float], list[int], list[bool]]:
    """Groups of 1 to 9 rollouts, ids negative and huge, rows shuffled, a fifth of them not valid, rewards with ties."""
    generator = random.Random(seed)
    ids = [-(2**62), -3, 0, 5, 6, 2**62, 2**62 + 1]
    sizes = [1, 2, 4, 4, 4, 7, 9]
    group_ids = [group_id for group_id, size in zip(ids, sizes, strict=True) for _ in range(size)]
    generator.shuffle(group_ids)
    rewards = [generator.choice([0.0, 1.0, generator.gauss(0, 1)]) for _ in group_ids]
    scores = [generator.gauss(-2, 1.5) for _ in group_ids]
    valid = [generator.random() > 0.2 for _ in group_ids]
    return rewards, scores, group_ids, valid


def float64(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_group(group_size: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rewards_N = torch.randn(group_size, generator=generator, dtype=torch.float64)
    scores_N = torch.randn(group_size, generator=generator, dtype=torch.float64)
    return rewards_N, scores_N, torch.zeros(group_size, dtype=torch.int64)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
