"""Every estimator and every option of the pairwise one, for tests of what holds of all of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import pytest
from torch import Tensor

from lampo.algo.advantages import grpo_advantages, pairwise_advantages, rloo_advantages
from lampo.types import Normalizer, Scale, Weight

WEIGHTS = get_args(Weight)
TEMPERATURES = ("auto", 0.7)
NORMALIZERS = get_args(Normalizer)
SCALES = tuple(
    scale for scale in get_args(Scale) if scale != "group_mean"
)  # which refuses rewards below 0: test_calibrated.py
OPTIONS: list[dict[str, Any]] = [
    dict(zip(("weight", "temperature", "normalizer", "scale"), values, strict=True))
    for values in itertools.product(WEIGHTS, TEMPERATURES, NORMALIZERS, SCALES)
]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))

Estimator = Callable[..., Tensor]


def grpo(rewards_N: Tensor, scores_N: Tensor, group_ids_N: Tensor, **options: Any) -> Tensor:
    return grpo_advantages(rewards_N, group_ids_N, **options)


def rloo(rewards_N: Tensor, scores_N: Tensor, group_ids_N: Tensor, **options: Any) -> Tensor:
    return rloo_advantages(rewards_N, group_ids_N, **options)


ESTIMATORS: dict[str, Estimator] = {
    "grpo": grpo,
    "grpo without std": partial(grpo, std=False),
    "grpo less against the worse": partial(grpo, negative=0.36),
    "rloo": rloo,
    **{
        f"pairwise {weight} {normalizer} {scale}": partial(
            pairwise_advantages, weight=weight, normalizer=normalizer, scale=scale
        )
        for weight, normalizer, scale in itertools.product(WEIGHTS, NORMALIZERS, SCALES)
    },
}
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS.keys())
