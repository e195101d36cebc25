"""Estimators at the limits: extreme and saturated scores, memory, dtypes, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lampo.algo.advantages import grpo_advantages, pair_statistics, pairwise_advantages, pairwise_terms, sequence_scores

from ...helpers.every_estimator import (
    NORMALIZERS,
    Estimator,
    every_estimator,
    every_option,
)
from ...helpers.random_batches import assert_close, float64, random_group


@every_option
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_scores_give_finite_bounded_advantages(options: dict[str, Any], dtype: torch.dtype) -> None:
    largest, smallest = torch.finfo(dtype).max, torch.finfo(dtype).smallest_normal
    groups = [
        [largest, -largest, 0.0, 1.0],
        [largest, largest, largest, -largest],
        [-largest, -largest, -largest, -largest],
        [0.0, -1e4, -2e4, -3e4],
        [smallest, 0.0, -smallest, smallest / 2],
        [1.0, 1.0, 1.0, 1.0],
    ]
    scores_N = torch.tensor(groups, dtype=dtype).flatten()
    rewards_N = torch.tensor([1.0, 0.0, 0.5, 0.0], dtype=dtype).repeat(len(groups))
    group_ids_N = torch.arange(len(groups)).repeat_interleave(4)
    for temperature in (options["temperature"], 1e-320, 1e-300, 1e300, 1.7e308):
        choice = {**options, "temperature": temperature}
        advantages_N = pairwise_advantages(rewards_N, scores_N, group_ids_N, **choice)
        assert advantages_N.isfinite().all()
        if options["scale"] == "none":
            assert advantages_N.abs().max() <= 1.0
        assert all(
            math.isfinite(x) for x in pair_statistics(scores_N, group_ids_N, temperature=choice["temperature"]).values()
        )
        for row in range(0, len(scores_N), 4):
            terms_GG = pairwise_terms(rewards_N[row : row + 4], scores_N[row : row + 4], **choice)
            assert terms_GG.isfinite().all()


def test_auto_temperature_does_not_overflow() -> None:
    rewards_N = float64([1.0, 0.0, 0.0])
    group_ids_N = torch.zeros(3, dtype=torch.int64)
    small_N = float64([1.0, -1.0, 0.5])
    assert_close(
        pairwise_advantages(rewards_N, small_N * 1.7e308, group_ids_N),
        pairwise_advantages(rewards_N, small_N, group_ids_N),
    )


def test_saturated_weights_prefer_the_nearest_peer() -> None:
    # row 0 is far less likely than both: 0 / 0 if weights were formed first; in the limit only row 1 is left
    rewards_N, scores_N = float64([1.0, 0.25, 0.0]), float64([-3e5, -2e5, -1e5])
    advantages_N = pairwise_advantages(
        rewards_N, scores_N, torch.zeros(3, dtype=torch.int64), temperature=1.0, normalizer="weights", scale="none"
    )
    assert float(advantages_N[0]) == pytest.approx(1.0 - 0.25)


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation returns."""

    num_elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.num_elements = max([self.num_elements, *sizes])
        return result


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_memory_of_a_large_group_is_bounded(normalizer: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    rewards_N, scores_N = torch.rand(2, 4096, generator=generator)
    group_ids_N = torch.zeros(4096, dtype=torch.int64)
    with LargestTensor() as largest:
        advantages_N = pairwise_advantages(
            rewards_N, scores_N, group_ids_N, normalizer=normalizer, weight="better", scale="none"
        )
        pair_statistics(scores_N, group_ids_N)
    assert 4096 <= largest.num_elements <= 2**21

    row = 3000
    margins_G = (rewards_N[row] - rewards_N).sign() * (scores_N[row] - scores_N) / (math.sqrt(2) * scores_N.std())
    weights_G = margins_G.sigmoid()
    weights_G[row] = 0
    total = weights_G.sum() if normalizer == "weights" else 4095
    expected = (weights_G * (rewards_N[row] - rewards_N)).sum() / total
    assert_close(advantages_N[row], expected, tolerance=1e-5)


@every_estimator
@pytest.mark.parametrize(
    ("rewards_dtype", "scores_dtype", "expected"),
    [
        (torch.float64, torch.float64, torch.float64),
        (torch.float32, torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.float16, torch.bfloat16, torch.float32),
        (torch.float64, torch.bfloat16, torch.float64),
        (torch.int64, torch.float32, torch.float32),
    ],
)
def test_dtypes(
    estimator: Estimator, rewards_dtype: torch.dtype, scores_dtype: torch.dtype, expected: torch.dtype
) -> None:
    rewards_N, scores_N = float64([1, 0, 0]), float64([-1.0, -0.5, -2.0])  # exact in every dtype
    group_ids_N = torch.zeros(3, dtype=torch.int32)
    advantages_N = estimator(rewards_N.to(rewards_dtype), scores_N.to(scores_dtype), group_ids_N)
    assert advantages_N.dtype == expected
    assert_close(advantages_N.double(), estimator(rewards_N, scores_N, group_ids_N), 1e-6)


@every_estimator
def test_no_gradient_flows(estimator: Estimator) -> None:
    rewards_N, scores_N, group_ids_N = random_group(4)
    assert not estimator(rewards_N.requires_grad_(), scores_N.requires_grad_(), group_ids_N).requires_grad
    assert not sequence_scores(scores_N[None], torch.ones(1, 4, dtype=torch.bool)).requires_grad


# Refusals


@every_estimator
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_valid_reward_that_is_not_finite_is_refused(estimator: Estimator, value: float) -> None:
    rewards_N = torch.tensor([1.0, 0.0, value])
    with pytest.raises(ValueError, match=rf"rewards_N\[2\] is {value}, which is not finite"):
        estimator(rewards_N, torch.zeros(3), torch.tensor([1, 1, 2]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_valid_score_that_is_not_finite_is_refused(value: float) -> None:
    scores_N = torch.tensor([1.0, value, 0.0])
    with pytest.raises(ValueError, match=rf"scores_N\[1\] is {value}"):
        pairwise_advantages(torch.zeros(3), scores_N, torch.tensor([1, 1, 2]))
    with pytest.raises(ValueError, match=rf"scores_N\[1\] is {value}"):
        pair_statistics(scores_N, torch.tensor([1, 1, 2]))
    with pytest.raises(ValueError, match=rf"scores_G\[1\] is {value}"):
        pairwise_terms(torch.zeros(3), scores_N)


@every_estimator
def test_a_reward_too_large_for_its_gaps_is_refused(estimator: Estimator) -> None:
    with pytest.raises(ValueError, match=r"rewards_N\[0\] is .*, which is too large"):
        estimator(torch.tensor([3e38, -3e38]), torch.zeros(2), torch.tensor([1, 1]))


@every_estimator
@pytest.mark.parametrize(
    ("group_ids_N", "valid_N", "message"),
    [
        (torch.tensor([0, 0]), None, r"rewards_N \(3,\).*group_ids_N \(2,\)"),
        (torch.tensor([[0, 0, 0]]), None, r"group_ids_N \(1, 3\)"),
        (torch.tensor([0, 0, 0]), torch.tensor([True]), r"valid_N \(1,\)"),
        (torch.zeros(3), None, "must hold integers, not torch.float32"),
    ],
)
def test_shapes_and_ids_are_refused(
    estimator: Estimator, group_ids_N: Tensor, valid_N: Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        estimator(torch.zeros(3), torch.zeros(3), group_ids_N, valid_N=valid_N)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": "Policy"}, "weight must be one of policy, winner, lambdarank, better, uniform; not 'Policy'"),
        ({"normalizer": "group"}, "normalizer must be one of peers, weights; not 'group'"),
        ({"scale": "std"}, "scale must be one of none, group_std, group_mean; not 'std'"),
        *(
            ({"temperature": temperature}, 'temperature must be "auto" or a finite positive number')
            for temperature in (0, -1.0, math.nan, math.inf, True, "cold")
        ),
    ],
)
def test_options_are_refused(options: dict[str, Any], message: str) -> None:
    rewards_N, scores_N, group_ids_N = random_group(3)
    with pytest.raises(ValueError, match=message):
        pairwise_advantages(rewards_N, scores_N, group_ids_N, **options)
    if "temperature" in options:
        with pytest.raises(ValueError, match=message):
            pair_statistics(scores_N, group_ids_N, **options)
    with pytest.raises(ValueError, match=message):
        pairwise_terms(rewards_N, scores_N, **options)


@pytest.mark.parametrize("negative", [-0.1, math.nan, math.inf])
def test_a_factor_that_is_none_is_refused(negative: float) -> None:
    with pytest.raises(ValueError, match="negative must be a finite number, at least 0"):
        grpo_advantages(torch.zeros(2), torch.zeros(2, dtype=torch.int64), negative=negative)
