"""REINFORCE++: the whole batch is one group for the standard deviation."""

from __future__ import annotations

import math
import statistics
from functools import partial
from typing import Any

import pytest
import torch

from lampo.algo.advantages import GROUP_STD_EPSILON, reinforce_pp_advantages

from ...helpers.random_batches import assert_close, float64, mixed_batch

BASELINES = ("none", "group")
every_baseline = pytest.mark.parametrize("baseline", BASELINES)


def slow_reinforce_pp(rewards: list[float], group_ids: list[int], valid: list[bool], baseline: str) -> list[float]:
    known = [i for i in range(len(rewards)) if valid[i]]
    if len(known) < 2:
        return [0.0] * len(rewards)
    std = statistics.stdev(rewards[i] for i in known)
    advantages = [0.0] * len(rewards)
    for i in known:
        peers = known if baseline == "none" else [j for j in known if group_ids[j] == group_ids[i]]
        advantages[i] = (rewards[i] - statistics.fmean(rewards[j] for j in peers)) / (std + GROUP_STD_EPSILON)
    return advantages


@every_baseline
def test_reinforce_pp_against_the_slow_loop(baseline: Any) -> None:
    for seed in range(5):
        rewards, _, group_ids, valid = mixed_batch(seed)
        advantages_N = reinforce_pp_advantages(
            float64(rewards), torch.tensor(group_ids), valid_N=torch.tensor(valid), baseline=baseline
        )
        assert_close(advantages_N, float64(slow_reinforce_pp(rewards, group_ids, valid, baseline)))


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        # the mean of all is 1/2; a group whose rewards are all equal has a gradient
        ("none", [1 - 1 / 2, 0 - 1 / 2, 1 - 1 / 2, 1 - 1 / 2, 0 - 1 / 2, 0 - 1 / 2]),
        ("group", [1 - 1 / 2, 0 - 1 / 2, 0, 0, 0, 0]),
    ],
)
def test_reinforce_pp_as_arithmetic(baseline: Any, expected: list[float]) -> None:
    rewards_N, group_ids_N = float64([1, 0, 1, 1, 0, 0]), torch.tensor([5, 5, 2, 2, 9, 9])
    std = math.sqrt(6 * (1 / 2) ** 2 / 5)
    advantages_N = reinforce_pp_advantages(rewards_N, group_ids_N, baseline=baseline)
    assert_close(advantages_N, float64(expected) / (std + GROUP_STD_EPSILON))


@every_baseline
def test_reinforce_pp_invariances(baseline: Any) -> None:
    rewards, _, group_ids, valid = mixed_batch(5)
    rewards_N, group_ids_N, valid_N = float64(rewards), torch.tensor(group_ids), torch.tensor(valid)
    estimator = partial(reinforce_pp_advantages, baseline=baseline)
    advantages_N = estimator(rewards_N, group_ids_N, valid_N=valid_N)
    assert_close(estimator(rewards_N + 3.0, group_ids_N, valid_N=valid_N), advantages_N)  # one shift for all
    assert advantages_N.sum().item() == pytest.approx(0, abs=1e-12)
    order_N = torch.randperm(len(rewards), generator=torch.Generator().manual_seed(0))
    permuted_N = estimator(rewards_N[order_N], group_ids_N[order_N], valid_N=valid_N[order_N])
    assert_close(permuted_N, advantages_N[order_N])
    # masked is absent
    poisoned_N = torch.where(valid_N, rewards_N, math.nan)
    masked_N = estimator(poisoned_N, group_ids_N, valid_N=valid_N)
    assert torch.equal(masked_N, advantages_N)
    assert not masked_N[~valid_N].any()
    assert_close(estimator(rewards_N[valid_N], group_ids_N[valid_N]), advantages_N[valid_N])


def test_reinforce_pp_does_not_look_at_groups_without_their_baseline() -> None:
    rewards_N = float64([1, 0, 0.5, 0.25])
    expected_N = reinforce_pp_advantages(rewards_N, torch.zeros(4, dtype=torch.int64))
    assert torch.equal(reinforce_pp_advantages(rewards_N, torch.arange(4)), expected_N)
    with_baseline_N = reinforce_pp_advantages(rewards_N, torch.arange(4), baseline="group")
    assert torch.equal(with_baseline_N, torch.zeros(4).double())


def test_reinforce_pp_with_a_baseline_ignores_a_shift_of_one_group_but_for_the_scale() -> None:
    rewards_N, group_ids_N = float64([1, 0, 0, 1, 1, 0]), torch.tensor([0, 0, 0, 1, 1, 1])
    shifted_N = rewards_N + 4.0 * group_ids_N
    one_N, other_N = (
        reinforce_pp_advantages(rewards, group_ids_N, baseline="group") for rewards in (rewards_N, shifted_N)
    )
    assert_close(one_N * (rewards_N.std() + GROUP_STD_EPSILON), other_N * (shifted_N.std() + GROUP_STD_EPSILON))


@every_baseline
@pytest.mark.parametrize("rewards", [[], [0.3], [0.1] * 7])
def test_reinforce_pp_exact_zeros(baseline: Any, rewards: list[float]) -> None:
    group_ids_N = torch.arange(len(rewards)) // 2
    advantages_N = reinforce_pp_advantages(float64(rewards), group_ids_N, baseline=baseline)
    assert torch.equal(advantages_N, torch.zeros(len(rewards)).double())


def test_reinforce_pp_refuses() -> None:
    group_ids_N = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="baseline must be one of none, group; not 'batch'"):
        reinforce_pp_advantages(torch.zeros(2), group_ids_N, baseline="batch")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"rewards_N\[1\] is nan"):
        reinforce_pp_advantages(torch.tensor([1.0, math.nan]), group_ids_N)
