"""MaxRL, shrinkage baselines and OTB, beside slow loops over their papers' formulas."""

import pytest
import torch
from torch import Tensor

from lampo.algo.advantages import maxrl_advantages, otb_advantages, rloo_advantages, shrinkage_advantages
from lampo.algo.estimate import estimate_advantages
from lampo.algo.registry import OtbOptions
from lampo.types import Group, Problem, Reward, Rollout, Verdict

P, G, T = 5, 4, 7
SEEDS = range(5)


def batch(seed: int, binary: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Rewards, group ids, log-probs, mask and sums of squares; NaN on padding."""
    generator = torch.Generator().manual_seed(seed)
    rewards_N = torch.rand(P * G, generator=generator, dtype=torch.float64)
    rewards_N = (rewards_N < 0.4).double() if binary else rewards_N
    lengths_N = torch.randint(1, T + 1, (P * G,), generator=generator)
    mask_NT = torch.arange(T) < lengths_N[:, None]
    probabilities_NTV = torch.rand(P * G, T, 6, generator=generator, dtype=torch.float64).pow(3)
    probabilities_NTV /= probabilities_NTV.sum(2, keepdim=True)
    logprobs_NT = probabilities_NTV[..., 0].log().masked_fill(~mask_NT, torch.nan)
    return rewards_N, torch.arange(P).repeat_interleave(G), logprobs_NT, mask_NT, probabilities_NTV.square().sum(2)


@pytest.mark.parametrize("seed", SEEDS)
def test_maxrl_is_the_mean_over_the_right_minus_that_over_all(seed: int) -> None:
    rewards_N, group_ids_N, *_ = batch(seed)
    advantages_PG = maxrl_advantages(rewards_N, group_ids_N).view(P, G)
    for rewards_G, advantages_G in zip(rewards_N.view(P, G), advantages_PG, strict=True):
        num_right = int(rewards_G.sum())
        of_right = rewards_G / num_right if num_right else torch.zeros(G).double()
        expected_G = of_right - 1 / G if num_right else of_right
        torch.testing.assert_close(advantages_G / G, expected_G)


def test_maxrl_refuses_what_it_would_turn_around() -> None:
    with pytest.raises(ValueError, match=r"rewards_N\[1\] is -1.0: MaxRL divides by the mean"):
        maxrl_advantages(torch.tensor([1.0, -1.0]), torch.zeros(2).long())
    rewards_N, valid_N = torch.tensor([1.0, -1.0, 0.0]), torch.tensor([True, False, True])
    assert maxrl_advantages(rewards_N, torch.zeros(3).long(), valid_N=valid_N).tolist() == [1.0, 0.0, -1.0]


@pytest.mark.parametrize("seed", SEEDS)
def test_shrinkage_is_the_loop_of_the_paper(seed: int) -> None:
    rewards_N, group_ids_N, *_ = batch(seed, binary=seed % 2 == 0)
    rewards_PG = rewards_N.view(P, G)
    expected_N = []
    for p in range(P):
        others = [q for q in range(P) if q != p]
        means = [float(rewards_PG[q].mean()) for q in others]
        overall = sum(means) / len(means)
        v = sum(float(rewards_PG[q].var()) / G for q in others) / len(others)
        s = sum((mean - overall) ** 2 for mean in means) / len(means)
        share = v / (v + s + 1e-6)
        for i in range(G):
            of_others = (float(rewards_PG[p].sum()) - float(rewards_PG[p, i])) / (G - 1)
            expected_N.append(float(rewards_PG[p, i]) - (1 - share) * of_others - share * overall)
    torch.testing.assert_close(shrinkage_advantages(rewards_N, group_ids_N), torch.tensor(expected_N).double())


def test_shrinkage_without_other_groups_is_rloo() -> None:
    rewards_N, ids = torch.tensor([1.0, 0.0, 0.25]), torch.zeros(3).long()
    torch.testing.assert_close(shrinkage_advantages(rewards_N, ids), rloo_advantages(rewards_N, ids))
    lone = torch.tensor([0, 0, 0, 7])  # a rollout without a peer says nothing of others
    found = shrinkage_advantages(torch.tensor([1.0, 0.0, 0.25, 1.0]), lone)
    torch.testing.assert_close(found, torch.cat([rloo_advantages(rewards_N, ids), torch.zeros(1)]))


def test_the_baseline_of_shrinkage_does_not_look_at_its_rollout() -> None:
    rewards_N, group_ids_N, *_ = batch(0)
    for row in range(P * G):
        changed_N = rewards_N.clone()
        changed_N[row] += 5
        before, after = (shrinkage_advantages(each, group_ids_N)[row] for each in (rewards_N, changed_N))
        assert float(after - before) == pytest.approx(5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("exact", [True, False])
def test_otb_is_the_loop_of_the_paper(seed: int, exact: bool) -> None:
    rewards_N, group_ids_N, logprobs_NT, mask_NT, squares_NT = batch(seed, binary=seed % 2 == 0)
    found_NT = otb_advantages(
        rewards_N, group_ids_N, logprobs_NT, mask_NT, sum_squares_NT=squares_NT if exact else None
    )
    expected_NT = torch.zeros_like(found_NT)
    for p in range(P):
        rows = range(p * G, (p + 1) * G)
        for t in range(T):
            there = [row for row in rows if mask_NT[row, t]]
            energy = {}
            for row in there:
                energy[row] = 0.0
                for s in range(t + 1):
                    pi = float(logprobs_NT[row, s].exp())
                    energy[row] += 1 - 2 * pi + (float(squares_NT[row, s]) if exact else pi * pi)
            total = sum(energy.values()) + 1e-8
            baseline = sum(energy[row] * float(rewards_N[row]) for row in there) / total if len(there) > 1 else 0.0
            for row in there:
                expected_NT[row, t] = float(rewards_N[row]) - baseline
    torch.testing.assert_close(found_NT, expected_NT)


def test_otb_leaves_out_what_is_not_valid() -> None:
    rewards_N, group_ids_N, logprobs_NT, mask_NT, _ = batch(3)
    valid_N = torch.ones(P * G).bool()
    valid_N[[0, 5]] = False
    poisoned_N = rewards_N.clone()
    poisoned_N[~valid_N] = torch.nan
    found_NT = otb_advantages(poisoned_N, group_ids_N, logprobs_NT, mask_NT, valid_N=valid_N)
    rest_NT = otb_advantages(rewards_N[valid_N], group_ids_N[valid_N], logprobs_NT[valid_N], mask_NT[valid_N])
    torch.testing.assert_close(found_NT[valid_N], rest_NT)
    assert found_NT[~valid_N].count_nonzero() == 0
    with pytest.raises(ValueError, match="same shape"):
        otb_advantages(rewards_N, group_ids_N, logprobs_NT, mask_NT[:, :3])


def test_otb_takes_the_log_probs_of_the_rollouts() -> None:
    rewards_N, group_ids_N, logprobs_NT, mask_NT, _ = batch(4)
    groups = []
    for p in range(P):
        rows = range(p * G, (p + 1) * G)
        rollouts_G = []
        for row in rows:
            length = int(mask_NT[row].sum())
            ids = torch.arange(length)
            rollouts_G.append(Rollout(torch.ones(1).long(), ids, logprobs_NT[row, :length].float(), True, ""))
        rewards_G = tuple(Reward({}, float(rewards_N[row])) for row in rows)
        groups.append(Group(Problem(str(p), "?", "!"), tuple(rollouts_G), (Verdict("wrong"),) * G, rewards_G))
    estimate = estimate_advantages(groups, OtbOptions())
    expected_NT = otb_advantages(rewards_N.float(), group_ids_N, logprobs_NT.float(), mask_NT)
    assert estimate.by_token_N is not None
    for row_T, expected_T, mask_T in zip(estimate.by_token_N, expected_NT, mask_NT, strict=True):
        torch.testing.assert_close(row_T, expected_T[mask_T])
