"""The weight of a peer in the baseline: what it reduces to, and the optimal baseline."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lampo.algo.advantages import pairwise_advantages, rloo_advantages, score_norms
from lampo.algo.estimate import estimate_advantages
from lampo.algo.registry import PairwiseOptions
from lampo.types import Group, Problem, Reward, Rollout, Verdict

from ...helpers.every_estimator import NORMALIZERS, WEIGHTS
from ...helpers.random_batches import assert_close, float64, random_group

PEERS_N = float64([3.0, 0.5, 1.0, 2.0, 0.0, 4.0, 1.5, 1.0])


def by_its_definition(
    rewards_N: Tensor, scores_N: Tensor, peers_N: Tensor, sign: Any, temperature: float, normalizer: str
) -> list[float]:
    G, total = len(rewards_N), float(peers_N.sum())
    advantages = []
    for i in range(G):
        above = below = 0.0
        for j in range(G):
            if i == j:
                continue
            margin = sign(float(rewards_N[i] - rewards_N[j]), float(scores_N[i] - scores_N[j])) / temperature
            weight = float(peers_N[j]) / (1 + math.exp(-margin))
            above += weight * float(rewards_N[i] - rewards_N[j])
            below += weight
        advantages.append(G / (G - 1) * above / total if normalizer == "peers" else above / below)
    return advantages


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_by_its_definition(normalizer: Any) -> None:
    rewards_N, scores_N, group_ids_N = random_group(8)
    advantages_N = pairwise_advantages(
        rewards_N, scores_N, group_ids_N, temperature=0.7, normalizer=normalizer, scale="none", peer_weights_N=PEERS_N
    )
    expected = by_its_definition(rewards_N, scores_N, PEERS_N, lambda _, score_gap: score_gap, 0.7, normalizer)
    assert_close(advantages_N, float64(expected))


def test_it_is_a_confidence_times_a_reward_minus_a_baseline() -> None:
    """(13a) of docs/method.md: `peers` is a factor times `weights`, which is a reward minus a baseline."""
    rewards_N, scores_N, group_ids_N = random_group(8)
    G, options = len(rewards_N), {"temperature": 0.7, "scale": "none", "peer_weights_N": PEERS_N}
    weights_NN = PEERS_N * ((scores_N[:, None] - scores_N) / 0.7).sigmoid()
    weights_NN.fill_diagonal_(0.0)
    confidences_N = G / (G - 1) * weights_NN.sum(1) / PEERS_N.sum()
    baselines_N = weights_NN @ rewards_N / weights_NN.sum(1)
    for normalizer, expected_N in (
        ("peers", confidences_N * (rewards_N - baselines_N)),
        ("weights", rewards_N - baselines_N),
    ):
        assert_close(
            pairwise_advantages(rewards_N, scores_N, group_ids_N, normalizer=normalizer, **options), expected_N
        )


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("equal", [1.0, 1e-6, 7.0, 0.0])
def test_equal_weights_change_nothing(weight: Any, normalizer: Any, equal: float) -> None:
    rewards_N, scores_N, group_ids_N = random_group(8)
    options = {"weight": weight, "normalizer": normalizer}
    plain_N = pairwise_advantages(rewards_N, scores_N, group_ids_N, **options)
    peers_N = torch.full_like(rewards_N, equal)
    assert_close(pairwise_advantages(rewards_N, scores_N, group_ids_N, peer_weights_N=peers_N, **options), plain_N)


def test_with_equal_confidence_it_is_the_reward_above_a_weighted_baseline() -> None:
    """OPO (arXiv 2505.23585) for lengths; half of it and G/(G-1) under `peers`, as RLOO is half under equal weights."""
    rewards_N, scores_N, group_ids_N = random_group(8)
    baseline = (PEERS_N * rewards_N).sum() / PEERS_N.sum()
    advantages_N = pairwise_advantages(
        rewards_N, scores_N, group_ids_N, weight="uniform", scale="none", peer_weights_N=PEERS_N
    )
    assert_close(advantages_N, 8 / 7 * 0.5 * (rewards_N - baseline))
    assert_close(0.5 * rloo_advantages(rewards_N, group_ids_N), 8 / 7 * 0.5 * (rewards_N - rewards_N.mean()))


def test_the_baseline_weighted_by_the_score_norm_has_the_least_variance() -> None:
    """Of all constant baselines, over a categorical policy whose gradient is known in full."""
    logits = torch.tensor([2.0, 0.5, -0.5, -1.0], dtype=torch.float64)
    pi_V, rewards_V = logits.softmax(0), float64([0.0, 1.0, 0.0, 1.0])
    scores_VV = torch.eye(4, dtype=torch.float64) - pi_V  # gradient of log pi(v) by the logits
    norms_V = scores_VV.square().sum(1)

    def variance(baseline: float) -> float:
        gradients_VV = (rewards_V - baseline)[:, None] * scores_VV
        mean_V = (pi_V[:, None] * gradients_VV).sum(0)
        return float((pi_V * gradients_VV.square().sum(1)).sum() - mean_V.square().sum())

    best = float((pi_V * norms_V * rewards_V).sum() / (pi_V * norms_V).sum())
    assert all(variance(best) <= variance(best + step) for step in (-0.1, -0.01, 0.01, 0.1))
    ours_V = score_norms(pi_V.log()[:, None], torch.ones(4, 1))
    assert bool((ours_V <= norms_V + 1e-12).all() and (norms_V <= 2 * ours_V + 1e-12).all())
    near = float((pi_V * ours_V * rewards_V).sum() / (pi_V * ours_V).sum())
    assert variance(near) < variance(float((pi_V * rewards_V).sum()))  # better than the mean reward


def test_centred_advantages_sum_to_zero_and_keep_their_gaps() -> None:
    rewards_N, scores_N, group_ids_N = random_group(8)
    plain_N = pairwise_advantages(rewards_N, scores_N, group_ids_N)
    centred_N = pairwise_advantages(rewards_N, scores_N, group_ids_N, centred=True)
    assert abs(float(plain_N.sum())) > 0.1
    assert_close(centred_N, plain_N - plain_N.mean())


def test_a_row_that_is_not_valid_weighs_nothing() -> None:
    rewards_N, scores_N, group_ids_N = random_group(8)
    valid_N = torch.tensor([True] * 6 + [False] * 2)
    options = {"peer_weights_N": PEERS_N.clone().index_fill(0, torch.tensor([7]), math.nan), "centred": True}
    advantages_N = pairwise_advantages(rewards_N, scores_N, group_ids_N, valid_N=valid_N, **options)
    options["peer_weights_N"] = PEERS_N[:6]
    assert_close(advantages_N[:6], pairwise_advantages(rewards_N[:6], scores_N[:6], group_ids_N[:6], **options))
    assert advantages_N[6:].tolist() == [0.0, 0.0]


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"peer_weights_N\[1\] is -1\.0: weights must not be negative"):
        pairwise_advantages(
            torch.zeros(2), torch.zeros(2), torch.zeros(2, dtype=torch.int64), peer_weights_N=torch.tensor([1.0, -1.0])
        )


def test_an_estimate_takes_the_weights_from_the_rollouts() -> None:
    rollouts = tuple(
        Rollout(torch.tensor([1]), torch.arange(length), torch.tensor([math.log(0.5)] * length), True, "")
        for length in (1, 3, 2)
    )
    rewards = tuple(Reward({}, total) for total in (1.0, 0.0, 0.0))
    group = Group(Problem("0", "?", ""), rollouts, (Verdict("wrong"),) * 3, rewards)
    uniform = {"weight": "uniform", "scale": "none"}
    by_length = estimate_advantages([group], PairwiseOptions(peer_weight="length", **uniform))  # pyright: ignore
    by_norm = estimate_advantages([group], PairwiseOptions(peer_weight="score_norm", **uniform))  # pyright: ignore
    expected = 3 / 2 * 0.5 * (torch.tensor([1.0, 0.0, 0.0]) - 1 / 6)
    torch.testing.assert_close(by_length.advantages_N, expected)
    torch.testing.assert_close(by_norm.advantages_N, expected)  # each token has (1 - 1/2)^2, so lengths decide
