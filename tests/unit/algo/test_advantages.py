"""Every fact that docs/method.md claims of the estimators, and an independent slow-loop reference in plain floats."""

from __future__ import annotations

import itertools
import math
import statistics
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lampo.algo.advantages import (
    GROUP_STD_EPSILON,
    grpo_advantages,
    pairwise_advantages,
    pairwise_terms,
    rloo_advantages,
)

from ...helpers.every_estimator import (
    NORMALIZERS,
    WEIGHTS,
    Estimator,
    every_estimator,
    every_option,
)
from ...helpers.random_batches import assert_close, float64, mixed_batch, random_group

# A slow reference: the formulas of docs/method.md, pair by pair, on Python floats


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def slow_weight(weight: str, reward_gap: float, score_gap: float, temperature: float) -> float:
    sign = (reward_gap > 0) - (reward_gap < 0)
    return {
        "policy": sigmoid(score_gap / temperature),
        "winner": sigmoid(sign * abs(score_gap) / temperature),
        "lambdarank": sigmoid(-sign * score_gap / temperature),
        "better": sigmoid(sign * score_gap / temperature),
        "uniform": 0.5,
    }[weight]


def slow_temperature(scores: list[float], temperature: float | str) -> float:
    if temperature != "auto":
        return float(temperature)
    squares = [(a - b) ** 2 for a, b in itertools.permutations(scores, 2)]
    return max(math.sqrt(sum(squares) / len(squares)), 1e-6)


def slow_pairwise(
    rewards: list[float],
    scores: list[float],
    group_ids: list[int],
    valid: list[bool],
    weight: str,
    temperature: float | str,
    normalizer: str,
    scale: str,
) -> list[float]:
    advantages = [0.0] * len(rewards)
    for i in range(len(rewards)):
        members = [j for j in range(len(rewards)) if group_ids[j] == group_ids[i] and valid[j]]
        if not valid[i] or len(members) < 2:
            continue
        tau = slow_temperature([scores[j] for j in members], temperature)
        weighted_gaps = sum_of_weights = 0.0
        for j in members:
            if j != i:
                w = slow_weight(weight, rewards[i] - rewards[j], scores[i] - scores[j], tau)
                weighted_gaps += w * (rewards[i] - rewards[j])
                sum_of_weights += w
        advantages[i] = weighted_gaps / (len(members) - 1 if normalizer == "peers" else sum_of_weights)
        if scale == "group_std":
            advantages[i] /= statistics.stdev(rewards[j] for j in members) + GROUP_STD_EPSILON
    return advantages


# Against the reference


@every_option
def test_pairwise_equals_the_slow_loop(options: dict[str, Any]) -> None:
    for seed in range(4):
        rewards, scores, group_ids, valid = mixed_batch(seed)
        advantages_N = pairwise_advantages(
            float64(rewards), float64(scores), torch.tensor(group_ids), valid_N=torch.tensor(valid), **options
        )
        assert_close(advantages_N, float64(slow_pairwise(rewards, scores, group_ids, valid, **options)))


@every_option
def test_pairwise_terms_take_the_advantages_apart(options: dict[str, Any]) -> None:
    rewards_G, scores_G, group_ids_G = random_group(7)
    valid_G = torch.tensor([True, True, False, True, True, False, True])
    terms_GG = pairwise_terms(rewards_G, scores_G, valid_N=valid_G, **options)

    rewards, scores = rewards_G.tolist(), scores_G.tolist()
    members = [i for i in range(7) if valid_G[i]]
    tau = slow_temperature([scores[i] for i in members], options["temperature"])
    weights_GG = torch.zeros_like(terms_GG)
    expected_GG = torch.zeros_like(terms_GG)
    for i, j in itertools.permutations(members, 2):
        weights_GG[i, j] = slow_weight(options["weight"], rewards[i] - rewards[j], scores[i] - scores[j], tau)
        expected_GG[i, j] = weights_GG[i, j] * (rewards[i] - rewards[j])
    if options["scale"] == "group_std":
        expected_GG /= statistics.stdev(rewards[i] for i in members) + GROUP_STD_EPSILON
    assert_close(terms_GG, expected_GG)
    assert torch.equal(terms_GG == 0, expected_GG == 0)

    normalizer_G = weights_GG.sum(1) if options["normalizer"] == "weights" else torch.full((7,), len(members) - 1.0)
    advantages_G = pairwise_advantages(rewards_G, scores_G, group_ids_G, valid_N=valid_G, **options)
    assert_close(terms_GG.sum(1)[members] / normalizer_G[members], advantages_G[members])


def test_pairwise_terms_of_a_group_without_a_pair_are_zero() -> None:
    rewards_G, scores_G = float64([1.0, 0.0]), float64([0.0, math.nan])
    assert torch.equal(
        pairwise_terms(rewards_G, scores_G, valid_N=torch.tensor([True, False])), torch.zeros(2, 2).double()
    )
    assert pairwise_terms(torch.zeros(0), torch.zeros(0)).shape == (0, 0)


def test_grpo_equals_the_formula() -> None:
    rewards, _, group_ids, valid = mixed_batch(3)
    ids_N, valid_N = torch.tensor(group_ids), torch.tensor(valid)
    for std, negative in ((True, 1.0), (False, 1.0), (True, 0.36), (False, 0.0)):
        actual_N = grpo_advantages(float64(rewards), ids_N, valid_N=valid_N, std=std, negative=negative)
        for i, advantage in enumerate(actual_N.tolist()):
            peers = [rewards[j] for j in range(len(rewards)) if group_ids[j] == group_ids[i] and valid[j]]
            if not valid[i] or len(peers) < 2:
                assert advantage == 0
                continue
            deviation = rewards[i] - statistics.mean(peers)
            expected = deviation / (statistics.stdev(peers) + 1e-4) if std else deviation
            expected *= negative if expected < 0 else 1.0
            assert advantage == pytest.approx(expected, abs=1e-12)


def test_rloo_equals_the_formula() -> None:
    rewards, _, group_ids, valid = mixed_batch(4)
    actual_N = rloo_advantages(float64(rewards), torch.tensor(group_ids), valid_N=torch.tensor(valid))
    for i, advantage in enumerate(actual_N.tolist()):
        others = [rewards[j] for j in range(len(rewards)) if group_ids[j] == group_ids[i] and valid[j] and j != i]
        expected = rewards[i] - statistics.mean(others) if valid[i] and others else 0.0
        assert advantage == pytest.approx(expected, abs=1e-12)


# What it reduces to


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize(("normalizer", "share_of_rloo"), [("peers", 1 / 2), ("weights", 1)])
def test_infinite_temperature_gives_rloo(weight: Any, normalizer: Any, share_of_rloo: float) -> None:
    rewards_N, scores_N, group_ids_N = random_group(8)
    advantages_N = pairwise_advantages(
        rewards_N, scores_N, group_ids_N, weight=weight, temperature=1e300, normalizer=normalizer, scale="none"
    )
    assert_close(advantages_N, share_of_rloo * rloo_advantages(rewards_N, group_ids_N))


def test_uniform_scaled_by_the_std_is_a_multiple_of_grpo() -> None:
    rewards_N, scores_N, group_ids_N = random_group(8)
    advantages_N = pairwise_advantages(rewards_N, scores_N, group_ids_N, weight="uniform", scale="group_std")
    assert_close(advantages_N, 8 / (2 * 7) * grpo_advantages(rewards_N, group_ids_N))


@pytest.mark.parametrize("weight", ["lambdarank", "better", "uniform"])
def test_sum_is_zero(weight: Any) -> None:
    rewards_N, scores_N, group_ids_N = random_group(8)
    assert pairwise_advantages(rewards_N, scores_N, group_ids_N, weight=weight).sum().abs() < 1e-14


def test_sum_under_policy_is_the_tanh_formula() -> None:
    rewards_N, scores_N, group_ids_N = random_group(8)
    tau = 0.4
    expected = sum(
        float(rewards_N[i] - rewards_N[j]) * math.tanh(float(scores_N[i] - scores_N[j]) / (2 * tau))
        for i, j in itertools.combinations(range(8), 2)
    ) / (8 - 1)
    advantages_N = pairwise_advantages(rewards_N, scores_N, group_ids_N, temperature=tau, scale="none")
    assert float(advantages_N.sum()) == pytest.approx(expected, abs=1e-12)
    assert abs(expected) > 0.1


def test_policy_is_half_of_rloo_and_a_push_that_both_of_a_pair_share() -> None:
    rewards_N, scores_N, group_ids_N = random_group(8)
    terms_of = partial(pairwise_terms, scale="none")
    terms_GG = terms_of(rewards_N, scores_N)
    shared_GG = terms_GG - terms_of(rewards_N, scores_N, weight="uniform")
    assert_close(shared_GG, shared_GG.T)
    agrees_GG = (rewards_N[:, None] - rewards_N) * (scores_N[:, None] - scores_N)
    assert torch.equal(shared_GG.sign(), agrees_GG.sign())
    of_winner_GG = terms_of(rewards_N, scores_N, weight="winner")
    assert_close(of_winner_GG - terms_of(rewards_N, scores_N, weight="uniform"), shared_GG.abs())
    half_N = 0.5 * rloo_advantages(rewards_N, group_ids_N)
    advantages_N = pairwise_advantages(rewards_N, scores_N, group_ids_N, scale="none")
    assert_close(advantages_N, half_N + shared_GG.sum(1) / (8 - 1))


def test_winner_is_policy_where_the_better_one_is_the_likelier() -> None:
    rewards_N, scores_N, group_ids_N = random_group(8)
    agreeing_N = scores_N.sort().values[rewards_N.argsort().argsort()]
    of_winner_N = pairwise_advantages(rewards_N, agreeing_N, group_ids_N, weight="winner")
    assert_close(of_winner_N, pairwise_advantages(rewards_N, agreeing_N, group_ids_N))
    turned_N = pairwise_advantages(rewards_N, -agreeing_N, group_ids_N, weight="winner")
    assert_close(of_winner_N, turned_N)


def test_auto_temperature_is_sqrt_2_times_the_standard_deviation() -> None:
    rewards_N, scores_N, group_ids_N = random_group(6)
    tau = math.sqrt(2) * statistics.stdev(scores_N.tolist())
    automatic_N = pairwise_advantages(rewards_N, scores_N, group_ids_N)
    assert_close(automatic_N, pairwise_advantages(rewards_N, scores_N, group_ids_N, temperature=tau))


# Invariances


@every_estimator
def test_shift_and_scale(estimator: Estimator) -> None:
    rewards_N, scores_N, group_ids_N = random_group(8)
    advantages_N = estimator(rewards_N, scores_N, group_ids_N)
    assert_close(estimator(rewards_N + 3.0, scores_N, group_ids_N), advantages_N)
    assert_close(estimator(rewards_N, scores_N - 40.0, group_ids_N), advantages_N)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_scaling_the_rewards_scales_the_advantages(weight: Any, normalizer: Any) -> None:
    rewards_N, scores_N, group_ids_N = random_group(8)
    estimator = partial(pairwise_advantages, weight=weight, normalizer=normalizer, scale="none")
    assert_close(estimator(3.0 * rewards_N, scores_N, group_ids_N), 3.0 * estimator(rewards_N, scores_N, group_ids_N))


@every_estimator
def test_permuting_rows_permutes_advantages(estimator: Estimator) -> None:
    rewards, scores, group_ids, valid = mixed_batch(5)
    inputs = float64(rewards), float64(scores), torch.tensor(group_ids)
    valid_N = torch.tensor(valid)
    order_N = torch.randperm(len(rewards), generator=torch.Generator().manual_seed(0))
    advantages_N = estimator(*inputs, valid_N=valid_N)
    permuted_N = estimator(*(tensor[order_N] for tensor in inputs), valid_N=valid_N[order_N])
    assert_close(permuted_N, advantages_N[order_N])


@every_estimator
def test_a_group_does_not_notice_the_others(estimator: Estimator) -> None:
    rewards, scores, group_ids, valid = mixed_batch(6)
    rewards_N, scores_N, group_ids_N, valid_N = (
        float64(rewards),
        float64(scores),
        torch.tensor(group_ids),
        torch.tensor(valid),
    )
    advantages_N = estimator(rewards_N, scores_N, group_ids_N, valid_N=valid_N)
    for group_id in group_ids_N.unique():
        rows = group_ids_N == group_id
        alone = estimator(rewards_N[rows], scores_N[rows], group_ids_N[rows], valid_N=valid_N[rows])
        assert_close(alone, advantages_N[rows])


@every_estimator
def test_masked_is_absent(estimator: Estimator) -> None:
    rewards, scores, group_ids, valid = mixed_batch(7)
    rewards_N, scores_N, group_ids_N, valid_N = (
        float64(rewards),
        float64(scores),
        torch.tensor(group_ids),
        torch.tensor(valid),
    )
    rewards_N[~valid_N], scores_N[~valid_N] = math.nan, math.inf
    advantages_N = estimator(rewards_N, scores_N, group_ids_N, valid_N=valid_N)
    assert torch.equal(advantages_N[~valid_N], torch.zeros_like(advantages_N[~valid_N]))
    assert torch.equal(advantages_N[valid_N], estimator(rewards_N[valid_N], scores_N[valid_N], group_ids_N[valid_N]))


@every_estimator
def test_exact_zeros(estimator: Estimator) -> None:
    # a mean of 0.1s is not 0.1 in floating point; the third group has one valid rollout, the fourth none
    rewards_N = torch.tensor([0.1] * 7 + [1 / 3] * 3 + [1.0, 0.0] + [1.0, 1.0])
    scores_N = torch.linspace(-5, 5, 14)
    group_ids_N = torch.tensor([0] * 7 + [1] * 3 + [2] * 2 + [3] * 2)
    valid_N = torch.tensor([True] * 10 + [True, False] + [False, False])
    assert torch.equal(estimator(rewards_N, scores_N, group_ids_N, valid_N=valid_N), torch.zeros(14))


@every_estimator
def test_empty_input(estimator: Estimator) -> None:
    empty_N = torch.zeros(0)
    assert torch.equal(estimator(empty_N, empty_N, torch.zeros(0, dtype=torch.int64)), empty_N)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.lists(
        st.tuples(
            st.floats(-100, 100),
            st.floats(allow_nan=False, allow_infinity=False),
            st.sampled_from([-(2**63), -1, 0, 2**63 - 1]),
            st.booleans(),
        ),
        max_size=24,
    ),
    weight=st.sampled_from(WEIGHTS),
    temperature=st.one_of(st.just("auto"), st.floats(min_value=0, exclude_min=True, allow_infinity=False)),
    normalizer=st.sampled_from(NORMALIZERS),
)
def test_advantages_are_bounded_by_the_largest_gap(
    rows: list[tuple[float, float, int, bool]], weight: Any, temperature: Any, normalizer: Any
) -> None:
    rewards, scores, group_ids, valid = map(list, zip(*rows, strict=True)) if rows else ([], [], [], [])
    advantages_N = pairwise_advantages(
        float64(rewards),
        float64(scores),
        torch.tensor(group_ids, dtype=torch.int64),
        valid_N=torch.tensor(valid, dtype=torch.bool),
        weight=weight,
        temperature=temperature,
        normalizer=normalizer,
        scale="none",
    )
    for i, advantage in enumerate(advantages_N.tolist()):
        peers = [rewards[j] for j in range(len(rewards)) if group_ids[j] == group_ids[i] and valid[j]]
        largest_gap = max(peers) - min(peers) if valid[i] else 0.0
        assert abs(advantage) <= largest_gap * (1 + 1e-12)
