"""PRIME: the advantages as arithmetic, and a process reward model that learns what it can."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch

from lampo.algo.advantages import prime_advantages, rloo_advantages
from lampo.algo.estimate import estimate_advantages
from lampo.algo.registry import PrimeOptions
from lampo.config.schema import OptimizerOptions
from lampo.learner.optimizer import Optimizer
from lampo.learner.process_reward_model import ProcessRewards
from lampo.model.policy import Policy
from lampo.types import Group, Problem, Reward, Rollout, Verdict

from ...conftest import tiny_options

NAN = math.nan


def slow_prime(token_rewards, outcomes, groups, valid, gamma):
    """The formula of the docstring, token by token, on Python floats."""
    means = [sum(row) / len(row) if row else 0.0 for row in token_rewards]
    advantages = []
    for i, row in enumerate(token_rewards):
        others = [j for j in range(len(outcomes)) if j != i and groups[j] == groups[i] and valid[j]]
        if not valid[i] or not others:
            advantages.append([0.0] * len(row))
            continue
        baseline = sum(means[j] for j in others) / len(others)
        outcome = outcomes[i] - sum(outcomes[j] for j in others) / len(others)
        advantages.append(
            [sum(gamma ** (s - t) * (row[s] - baseline) for s in range(t, len(row))) + outcome for t in range(len(row))]
        )
    return advantages


def padded(rows, value=NAN):
    longest = max(map(len, rows))
    mask_NT = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], dtype=torch.float64), mask_NT


@pytest.mark.parametrize("gamma", [1.0, 0.5, 0.0])
def test_the_formula_token_by_token(gamma: float) -> None:
    draw = random.Random(0)
    for _ in range(20):
        n = draw.randint(2, 9)
        rows = [[draw.gauss(0, 1) for _ in range(draw.randint(0, 5))] for _ in range(n)] + [[0.5]]
        outcomes = [float(draw.random() < 0.5) for _ in rows]
        groups, valid = [draw.randint(0, 2) for _ in rows], [draw.random() < 0.8 for _ in rows]
        token_rewards_NT, mask_NT = padded(rows)
        outcomes_N = torch.tensor([x if ok else NAN for x, ok in zip(outcomes, valid, strict=True)]).double()
        advantages_NT = prime_advantages(
            token_rewards_NT, outcomes_N, mask_NT, torch.tensor(groups), valid_N=torch.tensor(valid), gamma=gamma
        )
        expected_NT, _ = padded(slow_prime(rows, outcomes, groups, valid, gamma), 0.0)
        torch.testing.assert_close(advantages_NT, expected_NT, rtol=1e-12, atol=1e-12)


def test_three_rollouts_by_hand() -> None:
    rows = [[0.3, -0.1, 0.4], [0.2], [0.0, -0.6]]
    token_rewards_NT, mask_NT = padded(rows)
    advantages_NT = prime_advantages(token_rewards_NT, torch.tensor([1.0, 1.0, 0.0]), mask_NT, torch.zeros(3).long())
    baseline = (0.2 + -0.3) / 2  # of the first: the means of the other two
    outcome = 1 - (1 + 0) / 2
    expected = [
        (0.3 - baseline) + (-0.1 - baseline) + (0.4 - baseline) + outcome,
        (-0.1 - baseline) + (0.4 - baseline) + outcome,
        (0.4 - baseline) + outcome,
    ]
    assert advantages_NT[0].tolist() == pytest.approx(expected)
    assert advantages_NT[1].tolist() == pytest.approx([0.2 - (0.2 - 0.3) / 2 + 1 - 1 / 2, 0, 0])
    assert advantages_NT[2].tolist() == pytest.approx([-0.6 - 2 * 0.2 - 1, -0.6 - 0.2 - 1, 0])


def test_without_token_rewards_it_is_rloo() -> None:
    outcomes_N, groups_N = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0]), torch.tensor([0, 1, 0, 1, 0])
    advantages_NT = prime_advantages(torch.zeros(5, 3), outcomes_N, torch.ones(5, 3).bool(), groups_N)
    assert advantages_NT.equal(rloo_advantages(outcomes_N, groups_N)[:, None].expand(5, 3))


def test_a_rollout_that_is_not_valid_and_one_without_a_peer_get_exactly_zero_and_influence_nobody() -> None:
    rewards_NT = torch.tensor([[1.0, 2.0], [NAN, NAN], [0.5, 0.25], [3.0, 3.0]])
    outcomes_N, groups_N = torch.tensor([1.0, NAN, 0.0, 1.0]), torch.tensor([0, 0, 0, 7])
    valid_N = torch.tensor([True, False, True, True])
    mask_NT = torch.ones(4, 2).bool()
    advantages_NT = prime_advantages(rewards_NT, outcomes_N, mask_NT, groups_N, valid_N=valid_N)
    assert advantages_NT[[1, 3]].eq(0).all()
    alone_NT = prime_advantages(rewards_NT[[0, 2]], outcomes_N[[0, 2]], mask_NT[:2], groups_N[[0, 2]])
    assert advantages_NT[[0, 2]].equal(alone_NT)


def test_refusals() -> None:
    zeros_NT, mask_NT, groups_N = torch.zeros(2, 3), torch.ones(2, 3).bool(), torch.zeros(2).long()
    with pytest.raises(ValueError, match="gamma must be from 0 to 1; not 2"):
        prime_advantages(zeros_NT, torch.zeros(2), mask_NT, groups_N, gamma=2)
    with pytest.raises(ValueError, match=r"\(2, 3\), \(2, 2\)"):
        prime_advantages(zeros_NT, torch.zeros(2), mask_NT[:, :2], groups_N)
    with pytest.raises(ValueError, match="token_mean_N.*not finite"):
        prime_advantages(zeros_NT + NAN, torch.zeros(2), mask_NT, groups_N)
    with pytest.raises(ValueError, match="needs token_rewards"):
        estimate_advantages([toy_group(0)], PrimeOptions(name="prime"))


def toy_group(number: int, *, unknown: bool = False) -> Group:
    """Four completions of random tokens; those that contain token 3 are right."""
    draw = random.Random(number)
    rollouts, verdicts, rewards = [], [], []
    for member in range(4):
        tokens = [draw.choice((4, 5, 6, 7)) for _ in range(2 + member)] + ([3] if member % 2 else [])
        draw.shuffle(tokens)
        ids = torch.tensor(tokens)
        rollouts.append(Rollout(torch.tensor([8, 9]), ids, torch.full((len(ids),), -1.0), True, ""))
        none = unknown and member == 0
        verdicts.append(Verdict("unknown" if none else "right" if member % 2 else "wrong"))
        rewards.append(Reward({}, NAN) if none else Reward({}, float(member % 2)))
    return Group(Problem(str(number), "?", "1"), tuple(rollouts), tuple(verdicts), tuple(rewards))


def process_rewards(*, tokens_per_microbatch: int = 1000, rate: float = 1e-2, **options) -> ProcessRewards:
    model = Policy.load(tiny_options(), seed=1)
    optimizer = Optimizer(model, OptimizerOptions(learning_rate=rate), 100)
    return ProcessRewards(
        model, model.copy_weights(), optimizer, PrimeOptions(name="prime", beta=1.0, **options), tokens_per_microbatch
    )


def test_the_cross_entropy_falls_on_outcomes_that_can_be_told() -> None:
    process = process_rewards()
    curve = [
        process.learn([toy_group(4 * step + p) for p in range(4)], step)[1]["process/cross_entropy"]
        for step in range(1, 31)
    ]
    assert curve[0] == pytest.approx(math.log(2), abs=1e-5)  # the model is its reference: every reward is 0
    assert sum(curve[-5:]) / 5 < 0.5 * curve[0]
    new = [toy_group(1000 + number) for number in range(8)]
    rewards_N, record = process.learn(new, 31)
    assert record["process/accuracy"] > 0.8
    sums = [float(rewards_T.sum()) for rewards_T in rewards_N]
    assert sum(sums[1::2]) > sum(sums[::2])  # the right ones are every second


def test_token_rewards_are_those_before_the_step() -> None:
    groups = [toy_group(1), toy_group(2)]
    before, _ = process_rewards().learn(groups, 1)
    assert all(rewards_T.abs().max() < 1e-6 for rewards_T in before)
    process = process_rewards()
    process.learn(groups, 1)
    second, _ = process.learn(groups, 2)
    assert all(rewards_T.abs().max() > 1e-4 for rewards_T in second)


def test_micro_batches_change_nothing_and_unknown_rollouts_are_passed_over() -> None:
    groups = [toy_group(1, unknown=True), toy_group(2)]
    records = []
    for tokens in (1000, 10):
        process = process_rewards(tokens_per_microbatch=tokens)
        records.append([process.learn(groups, step) for step in (1, 2)])
    for (rewards, record), (other_rewards, other_record) in itertools.chain(zip(*records, strict=True)):
        assert record == pytest.approx(other_record, rel=1e-4)
        assert rewards[0].eq(0).all()
        for a, b in zip(rewards, other_rewards, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    unknown = [
        Group(
            group.problem,
            group.rollouts_G,
            (Verdict("unknown"),) * 4,
            (Reward({}, NAN),) * 4,
        )
        for group in groups
    ]
    rewards, record = process_rewards().learn(unknown, 1)
    assert record == {}
    assert all(rewards_T.eq(0).all() for rewards_T in rewards)


def test_saved_and_loaded_it_goes_on_bit_for_bit(tmp_path) -> None:
    first, second = process_rewards(), process_rewards()
    first.learn([toy_group(1)], 1)
    first.save(tmp_path)
    second.load(tmp_path)
    (ours, record), (theirs, other) = (process.learn([toy_group(2)], 2) for process in (first, second))
    assert record == other
    assert all(a.equal(b) for a, b in zip(ours, theirs, strict=True))
    assert ours[0].abs().max() > 0


def test_the_estimate_holds_one_advantage_a_token_and_their_mean() -> None:
    groups = [toy_group(1), toy_group(2)]
    token_rewards = [torch.randn(len(rollout.completion_ids)) for group in groups for rollout in group.rollouts_G]
    estimate = estimate_advantages(groups, PrimeOptions(name="prime"), token_rewards=token_rewards, left_out={1})
    assert estimate.by_token_N is not None
    assert estimate.token_advantages is estimate.by_token_N
    assert [len(row_T) for row_T in estimate.by_token_N] == [len(row_T) for row_T in token_rewards]
    assert estimate.advantages_N.tolist() == pytest.approx(
        [float(row_T.mean()) for row_T in estimate.by_token_N], abs=1e-6
    )
    assert estimate.advantages_N[:4].ne(0).all()
    assert estimate.advantages_N[4:].eq(0).all()  # left out
    assert estimate.left_out == {1}
