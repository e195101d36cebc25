"""The slope that makes a pair's weight a calibrated probability, and the scale that divides by the mean."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lampo.algo.advantages import (
    calibrated_slope,
    grpo_advantages,
    maxrl_advantages,
    pair_statistics,
    pairwise_advantages,
    pairwise_terms,
    rloo_advantages,
)
from lampo.algo.estimate import Estimate, estimate_advantages
from lampo.algo.registry import MaxRlOptions, PairwiseOptions
from lampo.config.load import load_config
from lampo.types import Group, LampoError, Problem, Reward, Rollout, Verdict

from ...helpers.random_batches import assert_close, random_group

RECIPE = Path(__file__).parents[3] / "recipes" / "quickstart.yaml"


def batch(num_groups: int, slope: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards of which the likelier is the better as often as a slope says, their scores and groups of 2."""
    generator = torch.Generator().manual_seed(seed)
    scores_N = torch.randn(2 * num_groups, generator=generator, dtype=torch.float64)
    firsts, seconds = scores_N.view(-1, 2).unbind(1)
    # in a group of two the auto temperature is the gap itself, so the margin is 1 or -1
    first_wins = torch.rand(num_groups, generator=generator) < (slope * (firsts - seconds).sign()).sigmoid()
    rewards_N = torch.stack([first_wins, ~first_wins], 1).flatten().double()
    return rewards_N, scores_N, torch.arange(num_groups).repeat_interleave(2)


def objective(slope: float, rewards_N: Tensor, scores_N: Tensor, group_ids_N: Tensor) -> float:
    """What the slope makes largest, pair by pair."""
    total = -(slope**2) / 2
    for group in group_ids_N.unique().tolist():
        rows = (group_ids_N == group).nonzero().squeeze(1).tolist()
        gaps = [float(scores_N[i] - scores_N[j]) for i, j in itertools.permutations(rows, 2)]
        tau = math.sqrt(sum(gap**2 for gap in gaps) / len(gaps))
        for i, j in itertools.permutations(rows, 2):
            if rewards_N[i] > rewards_N[j]:
                total -= 2 / len(rows) * math.log1p(math.exp(-slope * float(scores_N[i] - scores_N[j]) / tau))
    return total


def test_it_is_the_most_likely_slope() -> None:
    groups = [random_group(size) for size in (8, 5, 8)]
    rewards_N = torch.cat([(scores_N + rewards_N > 0).double() for rewards_N, scores_N, _ in groups])
    scores_N = torch.cat([scores_N for _, scores_N, _ in groups])
    group_ids_N = torch.tensor([0] * 8 + [1] * 5 + [2] * 8)
    slope = calibrated_slope(rewards_N, scores_N, group_ids_N)
    assert slope > 0.1
    best = objective(slope, rewards_N, scores_N, group_ids_N)
    for other in (0.0, slope - 1e-3, slope + 1e-3, 2 * slope):
        assert objective(other, rewards_N, scores_N, group_ids_N) < best


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_it_finds_the_slope_that_made_the_rewards(slope: float) -> None:
    assert calibrated_slope(*batch(20_000, slope)) == pytest.approx(slope, abs=0.05)


def test_it_is_0_where_the_likelier_is_mostly_the_worse() -> None:
    rewards_N, scores_N, group_ids_N = batch(100, 1.0)
    assert calibrated_slope(rewards_N, -scores_N, group_ids_N) == 0.0
    assert calibrated_slope(torch.ones(200), scores_N, group_ids_N) == 0.0
    assert calibrated_slope(torch.zeros(0), torch.zeros(0), torch.zeros(0, dtype=torch.int64)) == 0.0


def test_few_pairs_are_held_to_a_small_slope() -> None:
    """All right ones are the likelier ones: without its prior the slope would have no end."""
    slopes = []
    for num_groups in (1, 10, 100):
        rewards_N = torch.tensor([1.0, 0.0]).repeat(num_groups)
        slopes.append(calibrated_slope(rewards_N, rewards_N, torch.arange(num_groups).repeat_interleave(2)))
    assert slopes == sorted(slopes)
    assert slopes[0] == pytest.approx(0.4, abs=0.01)
    assert 2 < slopes[2] < 4


def test_it_does_not_see_rows_that_are_not_valid_the_order_or_the_unit_of_scores() -> None:
    rewards_N, scores_N, group_ids_N = batch(20, 1.0)
    slope = calibrated_slope(rewards_N, scores_N, group_ids_N)
    with_others = [
        torch.cat([each, each.new_full((3,), value)])
        for each, value in zip((rewards_N, scores_N, group_ids_N), (math.nan, math.nan, 4), strict=True)
    ]
    assert calibrated_slope(*with_others, valid_N=torch.arange(43) < 40) == slope
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert calibrated_slope(rewards_N[order], 7 * scores_N[order], group_ids_N[order]) == pytest.approx(slope, abs=1e-9)


def test_a_slope_is_a_temperature() -> None:
    rewards_N, scores_N, group_ids_N = random_group(8)
    for slope in (0.3, 2.5):
        assert_close(
            pairwise_advantages(rewards_N, scores_N, group_ids_N, temperature=0.7, slope=slope),
            pairwise_advantages(rewards_N, scores_N, group_ids_N, temperature=0.7 / slope),
        )
        assert_close(
            pairwise_terms(rewards_N, scores_N, temperature=0.7, slope=slope),
            pairwise_terms(rewards_N, scores_N, temperature=0.7 / slope),
        )
    half_of_rloo_N = rloo_advantages(rewards_N, group_ids_N) / 2
    assert_close(pairwise_advantages(rewards_N, scores_N, group_ids_N, slope=0.0, scale="none"), half_of_rloo_N)


def test_the_share_of_saturated_pairs_follows_the_slope() -> None:
    _, scores_N, group_ids_N = random_group(8)
    plain = pair_statistics(scores_N, group_ids_N, temperature=0.1)
    assert pair_statistics(scores_N, group_ids_N, temperature=1.0, slope=10.0)["saturation"] == plain["saturation"] > 0
    assert pair_statistics(scores_N, group_ids_N, slope=0.0)["saturation"] == 0


def test_group_mean_is_the_scale_of_maxrl() -> None:
    rewards_N, scores_N, group_ids_N = random_group(8)
    rewards_N = rewards_N.abs()
    assert_close(
        pairwise_advantages(rewards_N, scores_N, group_ids_N, weight="uniform", scale="group_mean"),
        maxrl_advantages(rewards_N, group_ids_N) * 8 / 7 / 2,
    )
    nothing = pairwise_advantages(
        torch.zeros(4), torch.arange(4.0), torch.zeros(4, dtype=torch.int64), scale="group_mean"
    )
    assert nothing.tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slope": -0.1}, r"slope must be a finite number of at least 0; not -0\.1"),
        ({"slope": math.nan}, "slope must be a finite number"),
        ({"negative": -1.0}, r"negative must be a finite number, at least 0; not -1\.0"),
        (
            {"scale": "group_mean"},
            r"rewards_N\[1\] is -1\.0: group_mean divides by the mean, so no reward may be negative",
        ),
    ],
)
def test_what_has_no_meaning_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pairwise_advantages(torch.tensor([1.0, -1.0]), torch.zeros(2), torch.zeros(2, dtype=torch.int64), **options)


@pytest.mark.parametrize("factor", [1.0, 0.36, 0.0])
def test_a_factor_of_negative_advantages_weighs_problems_by_how_hard_they_are(factor: float) -> None:
    """(13b) of docs/method.md, on a group that has each response as often as its policy draws it."""
    logits = torch.tensor([4.0, 2.0, 1.0, 1.0], dtype=torch.float64).log().requires_grad_()
    right = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    drawn_N = torch.arange(4).repeat_interleave(torch.tensor([4, 2, 1, 1]))
    (of_p,) = torch.autograd.grad((logits.softmax(0) * right).sum(), logits)

    rewards_N, group_ids_N = right[drawn_N], torch.zeros(8, dtype=torch.int64)
    advantages_N = grpo_advantages(rewards_N, group_ids_N, std=False, negative=factor)
    (step,) = torch.autograd.grad((logits.log_softmax(0)[drawn_N] * advantages_N).mean(), logits)
    assert_close(step, (1 - (1 - factor) * 3 / 8) * of_p)


def three_rollouts(name: str, first: float) -> Group:
    """The likeliest one has this reward, the others 0."""
    rollouts = tuple(
        Rollout(torch.tensor([1]), torch.arange(2), torch.tensor([logprob, -0.1]), True, "")
        for logprob in (-0.1, -1.0, -2.0)
    )
    rewards = tuple(Reward({}, total) for total in (first, 0.0, 0.0))
    return Group(Problem(name, "?", ""), rollouts, (Verdict("wrong"),) * 3, rewards)


def estimated(temperature: Any) -> Estimate:
    """Two groups, in which the right ones are the likelier ones, and what an estimate makes of them."""
    groups = [three_rollouts(name, 1.0) for name in "ab"]
    return estimate_advantages(groups, PairwiseOptions(temperature=temperature, scale="none"))


def test_a_calibrated_temperature_is_that_of_the_whole_step() -> None:
    plain, calibrated = estimated("auto"), estimated("calibrated")
    assert plain.slope is None
    assert calibrated.slope is not None
    assert calibrated.statistics["advantage/slope"] == calibrated.slope > 0
    again_N = pairwise_advantages(
        torch.tensor([1.0, 0.0, 0.0] * 2),
        calibrated.scores_N,
        torch.tensor([0, 0, 0, 1, 1, 1]),
        slope=calibrated.slope,
        scale="none",
    )
    assert torch.equal(calibrated.advantages_N, again_N)
    assert not torch.equal(calibrated.advantages_N, plain.advantages_N)


def test_a_factor_of_negative_advantages_changes_these_alone() -> None:
    rewards_N, scores_N, group_ids_N = random_group(8)
    plain_N = pairwise_advantages(rewards_N, scores_N, group_ids_N)
    scaled_N = pairwise_advantages(rewards_N, scores_N, group_ids_N, negative=0.36)
    assert (plain_N < 0).any()
    assert_close(scaled_N, torch.where(plain_N < 0, 0.36 * plain_N, plain_N))


@pytest.mark.parametrize("settings", [["method=lampo_cal"], ["method=maxrl"], ["advantage.scale=group_mean"]])
def test_what_divides_by_the_mean_is_refused_beside_a_reward_below_0(settings: list[str]) -> None:
    with pytest.raises(LampoError, match=r"divides by a group's mean reward.* leave out overlong"):
        load_config(RECIPE, [*settings, "rewards.overlong.weight=0.5"])


def test_a_reward_below_0_that_no_recipe_tells_of_is_told_without_a_traceback() -> None:
    with pytest.raises(LampoError, match=r"The advantage maxrl refuses what it is given: rewards_N\[0\] is -1\.0"):
        estimate_advantages([three_rollouts("a", -1.0)], MaxRlOptions())
