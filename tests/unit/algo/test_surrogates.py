"""Every surrogate as arithmetic, against a slow loop over plain floats, and what holds of all of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lampo.algo.objective import Loss, loss_denominator, merge_statistics, policy_loss
from lampo.algo.registry import SURROGATES as REGISTERED
from lampo.learner.batch import Batch, Row
from lampo.types import MicroBatch

SURROGATES = tuple(REGISTERED)
AGGREGATIONS = ("sequence", "token", "constant")
every_surrogate = pytest.mark.parametrize("surrogate", SURROGATES)
every_aggregation = pytest.mark.parametrize("aggregation", AGGREGATIONS)
MAX_COMPLETION_TOKENS = 8
CLIP_LOW, CLIP_HIGH, BETA = 0.2, 0.3, 0.25


def float64(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def loss_of(ratios: list[list[float]], advantages: Any, **settings: Any) -> tuple[float, list[list[float]], Loss]:
    """Value and gradient of rows of tokens with these ratios, all of the same length; old log-probs are -1."""
    logprobs_NT = (float64(ratios).log() - 1).requires_grad_()
    options = {"denominator": 1, "clip_low": CLIP_LOW, "clip_high": CLIP_HIGH, "beta": BETA, **settings}
    ones_NT = torch.ones(logprobs_NT.shape)
    loss = policy_loss(logprobs_NT, -ones_NT.double(), float64(advantages), ones_NT, **options)
    loss.value.backward()
    assert logprobs_NT.grad is not None
    return loss.value.item(), logprobs_NT.grad.tolist(), loss


def clipped(loss: Loss) -> tuple[int, int]:
    return int(loss.statistics["clipped_low"]), int(loss.statistics["clipped_high"])


def make_batch(seed: int = 3, spread: float = 0.6) -> dict[str, Any]:
    """Rows of 0, 1, ... 8 tokens in three groups whose rows lie apart, ratios on both sides of the clip, one advantage of 0."""
    generator = torch.Generator().manual_seed(seed)
    num_rows = 9

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    old_logprobs_NT = -normal(num_rows, num_rows).abs()
    advantages_N = normal(num_rows)
    advantages_N[4] = 0.0
    return {
        "logprobs_NT": old_logprobs_NT + spread * normal(num_rows, num_rows),
        "old_logprobs_NT": old_logprobs_NT,
        "advantages": advantages_N,
        "mask_NT": torch.arange(num_rows) < torch.arange(num_rows)[:, None],
        "group_ids_N": torch.tensor([7, -2, 7, 0, -2, 7, 7, 0, -2]),
    }


def value_and_gradient(batch: dict[str, Any], **settings: Any) -> tuple[Tensor, Tensor, Loss]:
    logprobs_NT = batch["logprobs_NT"].clone().requires_grad_()
    loss = policy_loss(**{**batch, "logprobs_NT": logprobs_NT}, **settings)
    loss.value.backward()
    assert logprobs_NT.grad is not None
    return loss.value.detach(), logprobs_NT.grad, loss


# A slow reference: the equations of docs/methods.md on Python floats, row by row


def slow_ppo(ratio: float, advantage: float) -> float:
    return -min(ratio * advantage, min(max(ratio, 1 - CLIP_LOW), 1 + CLIP_HIGH) * advantage)


def slow_row(surrogate: str, log_ratios: list[float], logprobs: list[float], advantage: float) -> list[float]:
    """What each token of a row is given, of surrogates that look at one row."""
    T = len(log_ratios)
    match surrogate:
        case "token":
            return [slow_ppo(math.exp(x), advantage) for x in log_ratios]
        case "sequence":
            return [slow_ppo(math.exp(sum(log_ratios) / T), advantage)] * T
        case "geometric":
            bound = (lambda x: min(x, CLIP_HIGH)) if advantage > 0 else (lambda x: max(x, -CLIP_LOW))
            return [-advantage * math.prod(math.exp(bound(x)) for x in log_ratios) ** (1 / T)] * T
        case _:
            weights = [min(max(math.exp(x), 1 - CLIP_LOW), 1 + CLIP_HIGH) for x in log_ratios]
            return [-weight * advantage * logprob for weight, logprob in zip(weights, logprobs, strict=True)]


def slow_gvpo(sums: list[float], advantages: list[float], group_ids: list[int]) -> list[float]:
    losses = []
    for i, group_id in enumerate(group_ids):
        members = [j for j in range(len(sums)) if group_ids[j] == group_id]
        mean = sum(sums[j] for j in members) / len(members)
        distance = BETA * (sums[i] - mean) - advantages[i]
        losses.append(0.5 * distance**2 * len(members) / (len(members) - 1))
    return losses


def slow_loss(surrogate: str, batch: dict[str, Any], aggregation: str, denominator: float) -> float:
    lengths = batch["mask_NT"].sum(1).tolist()
    log_ratios = (batch["logprobs_NT"] - batch["old_logprobs_NT"]).tolist()
    rows = [log_ratios[i][:length] for i, length in enumerate(lengths)]
    advantages = batch["advantages"].tolist()
    whole = slow_gvpo([sum(row) for row in rows], advantages, batch["group_ids_N"].tolist())
    total = 0.0
    for i, length in enumerate(lengths):
        if length == 0:
            continue
        if surrogate == "gvpo":
            tokens = [whole[i]] * length
        else:
            tokens = slow_row(surrogate, rows[i], batch["logprobs_NT"][i, :length].tolist(), advantages[i])
        total += sum(tokens) / (length if aggregation == "sequence" else 1)
    return total / denominator


@every_surrogate
@every_aggregation
def test_against_the_slow_loop(surrogate: Any, aggregation: Any) -> None:
    batch = make_batch()
    denominator = loss_denominator(9, int(batch["mask_NT"].sum()), MAX_COMPLETION_TOKENS, aggregation)
    settings = {"clip_low": CLIP_LOW, "clip_high": CLIP_HIGH, "beta": BETA, "aggregation": aggregation}
    value, _, loss = value_and_gradient(batch, surrogate=surrogate, denominator=denominator, **settings)
    assert value.item() == pytest.approx(slow_loss(surrogate, batch, aggregation, denominator), rel=1e-12)
    assert all(number > 0 for number in clipped(loss)) == (surrogate != "gvpo")


@every_surrogate
@every_aggregation
def test_gradcheck(surrogate: Any, aggregation: Any) -> None:
    batch = make_batch()
    weights_NT = None
    if (
        surrogate == "cispo"
    ):  # its weight has no gradient, so it is the gradient of another function: that of fixed weights
        ratio_NT = (batch["logprobs_NT"] - batch["old_logprobs_NT"]).exp()
        weights_NT = ratio_NT.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH) * batch["advantages"][:, None]

    settings: dict[str, Any] = {"aggregation": aggregation, "clip_low": CLIP_LOW, "clip_high": CLIP_HIGH}

    def value(logprobs_NT: Tensor) -> Tensor:
        if weights_NT is None:
            inputs = {**batch, "logprobs_NT": logprobs_NT}
            return policy_loss(**inputs, surrogate=surrogate, denominator=3, **settings).value
        losses_NT = torch.where(batch["mask_NT"], -weights_NT * logprobs_NT, 0.0)
        lengths_N1 = batch["mask_NT"].sum(1, keepdim=True).clamp(min=1)
        return (losses_NT / lengths_N1 if aggregation == "sequence" else losses_NT).sum() / 3

    logprobs_NT = batch["logprobs_NT"].clone().requires_grad_()
    assert torch.autograd.gradcheck(value, logprobs_NT)
    (expected_NT,) = torch.autograd.grad(value(logprobs_NT), logprobs_NT)
    _, gradient_NT, _ = value_and_gradient(batch, surrogate=surrogate, denominator=3, **settings)
    torch.testing.assert_close(gradient_NT, expected_NT)


# Arithmetic


@pytest.mark.parametrize(
    ("ratios", "advantage", "value", "gradient", "told"),
    [
        # the geometric mean of 1.2 and 0.9 is free: -s A, and half of it for each token, halved again by the mean
        ([1.2, 0.9], 2.0, -2 * math.sqrt(1.2 * 0.9), [-2 * math.sqrt(1.2 * 0.9) / 2] * 2, (0, 0)),
        # one token far out does not matter where the mean stays inside
        ([3.0, 1 / 3], 2.0, -2.0, [-1.0, -1.0], (0, 0)),
        # the mean 1.5 is beyond 1.3, and all tokens of the row lose their gradient
        ([1.5, 1.5], 2.0, -2 * 1.3, [0.0, 0.0], (0, 2)),
        ([0.5, 0.5], -2.0, 2 * 0.8, [0.0, 0.0], (2, 0)),
        # the way back stays open
        ([1.5, 1.5], -2.0, 2 * 1.5, [1.5, 1.5], (0, 0)),
    ],
)
def test_sequence(ratios: list, advantage: float, value: float, gradient: list, told: tuple) -> None:
    actual, (row,), loss = loss_of([ratios], [advantage], surrogate="sequence")
    assert actual == pytest.approx(value)
    assert row == pytest.approx(gradient)
    assert clipped(loss) == told


@pytest.mark.parametrize(
    ("log_ratios", "advantage", "value", "gradient", "told"),
    [
        ([0.1, -0.5], 2.0, -2 * math.exp((0.1 - 0.5) / 2), [-math.exp(-0.2)] * 2, (0, 0)),
        # too likely and good: its log-ratio counts as 0.3 and has no gradient, the other token keeps its own
        ([0.9, -0.5], 2.0, -2 * math.exp((0.3 - 0.5) / 2), [0.0, -math.exp(-0.1)], (0, 1)),
        ([0.9, -0.5], -2.0, 2 * math.exp((0.9 - 0.2) / 2), [math.exp(0.35), 0.0], (1, 0)),
        ([0.9, 0.9], 2.0, -2 * math.exp(0.3), [0.0, 0.0], (0, 2)),
        ([0.9, -0.5], 0.0, 0.0, [0.0, 0.0], (0, 0)),
    ],
)
def test_geometric(log_ratios: list, advantage: float, value: float, gradient: list, told: tuple) -> None:
    ratios = [[math.exp(x) for x in log_ratios]]
    actual, (row,), loss = loss_of(ratios, [advantage], surrogate="geometric")
    assert actual == pytest.approx(value)
    assert row == pytest.approx(gradient)
    assert clipped(loss) == told


@pytest.mark.parametrize(
    ("ratio", "advantage", "weight", "told"),
    [
        (1.1, 2.0, 1.1, (0, 0)),
        (1.5, 2.0, 1.3, (0, 1)),
        (1.5, -2.0, 1.3, (0, 1)),  # whatever the sign: it is the weight that is bounded
        (0.5, 2.0, 0.8, (1, 0)),
        (0.5, -2.0, 0.8, (1, 0)),
    ],
)
def test_cispo(ratio: float, advantage: float, weight: float, told: tuple) -> None:
    value, ((gradient,),), loss = loss_of([[ratio]], [advantage], surrogate="cispo")
    logprob = math.log(ratio) - 1
    assert value == pytest.approx(-weight * advantage * logprob)
    assert gradient == pytest.approx(-weight * advantage)  # no token is silenced
    assert clipped(loss) == told


def test_cispo_of_the_preset_is_not_bounded_below() -> None:
    value, ((gradient,),), loss = loss_of([[0.01]], [2.0], surrogate="cispo", clip_low=1.0, clip_high=4.0)
    assert gradient == pytest.approx(-0.01 * 2.0)
    assert value == pytest.approx(-0.01 * 2.0 * (math.log(0.01) - 1))
    assert clipped(loss) == (0, 0)
    assert loss_of([[7.0]], [2.0], surrogate="cispo", clip_low=1.0, clip_high=4.0)[1] == [[pytest.approx(-5.0 * 2.0)]]


def test_gvpo() -> None:
    """Two rows of two tokens with h = log 2 and h = log 1/2: their mean is 0."""
    h = math.log(2)
    value, gradient, loss = loss_of(
        [[2.0, 1.0], [0.5, 1.0]], [0.5, -0.5], surrogate="gvpo", group_ids_N=torch.tensor([3, 3]), denominator=2
    )
    distance = BETA * h - 0.5  # of the first row; the second has its negative
    assert value == pytest.approx((0.5 * distance**2 + 0.5 * distance**2) * 2 / (2 - 1) / 2)
    # d/dh_i of the sum of distances squared is beta (d_i - mean d) G/(G-1), and mean d is 0
    slope = BETA * distance * 2 / (2 - 1) / 2
    assert gradient == [[pytest.approx(slope)] * 2, [pytest.approx(-slope)] * 2]
    assert clipped(loss) == (0, 0)


# What holds of all


@every_aggregation
def test_on_policy_all_but_gvpo_have_the_gradient_of_reinforce(aggregation: Any) -> None:
    batch = make_batch(spread=0.0)
    _, expected_NT, _ = value_and_gradient(batch, denominator=3, aggregation=aggregation)
    lengths_N1 = batch["mask_NT"].sum(1, keepdim=True).clamp(min=1)
    reinforce_NT = -batch["advantages"][:, None] * batch["mask_NT"] / 3
    torch.testing.assert_close(expected_NT, reinforce_NT / lengths_N1 if aggregation == "sequence" else reinforce_NT)
    for surrogate in SURROGATES[1:-1]:
        _, gradient_NT, _ = value_and_gradient(batch, denominator=3, aggregation=aggregation, surrogate=surrogate)
        torch.testing.assert_close(gradient_NT, expected_NT)


def test_on_policy_gvpo_has_beta_times_the_gradient_of_rloo_sums() -> None:
    """A_i centred: the gradient for h_i is -beta A_i / (G - 1), for every token of the response alike, without 1/T_i."""
    batch = make_batch(spread=0.0)
    batch["advantages"] = float64([1, 2, -1, 3, -4, 2, -2, -3, 2])  # sums to 0 in each group
    _, gradient_NT, _ = value_and_gradient(batch, denominator=1, surrogate="gvpo", beta=BETA)
    lengths_N = batch["mask_NT"].sum(1)
    sizes_N = float64([4, 3, 4, 2, 3, 4, 4, 2, 3])
    # the row of no tokens has no loss of its own: the others of its group lack its part of d(mean h)
    for i in range(1, 9):
        slope = -BETA * batch["advantages"][i] * sizes_N[i] / (sizes_N[i] - 1)
        if batch["group_ids_N"][i] == 7:
            slope -= BETA * batch["advantages"][0] / (4 - 1)
        assert gradient_NT[i, : lengths_N[i]].tolist() == [pytest.approx(slope.item())] * int(lengths_N[i])


@every_surrogate
@every_aggregation
def test_poisoned_padding_does_not_leak(surrogate: Any, aggregation: Any) -> None:
    clean = make_batch()
    settings: dict[str, Any] = {"surrogate": surrogate, "aggregation": aggregation, "denominator": 5}
    value, gradient_NT, loss = value_and_gradient(clean, **settings)
    for poison in (math.nan, math.inf, -math.inf, 1e308):
        poisoned = {
            name: torch.where(clean["mask_NT"], tensor, poison) if name.endswith("logprobs_NT") else tensor
            for name, tensor in clean.items()
        }
        poisoned_value, poisoned_gradient_NT, poisoned_loss = value_and_gradient(poisoned, **settings)
        assert torch.equal(poisoned_value, value)
        assert torch.equal(poisoned_gradient_NT, gradient_NT)
        assert merge_statistics([poisoned_loss.statistics]) == merge_statistics([loss.statistics])
    assert not gradient_NT[~clean["mask_NT"]].any()


@every_surrogate
def test_advantages_by_token_are_those_of_the_response_where_constant(surrogate: Any) -> None:
    batch = make_batch()
    expected = value_and_gradient(batch, surrogate=surrogate, denominator=5)
    by_token_NT = batch["advantages"][:, None].expand_as(batch["mask_NT"])
    poisoned_NT = torch.where(batch["mask_NT"], by_token_NT, math.nan)
    actual = value_and_gradient({**batch, "advantages": poisoned_NT}, surrogate=surrogate, denominator=5)
    torch.testing.assert_close(actual[0], expected[0])
    torch.testing.assert_close(actual[1], expected[1])
    assert merge_statistics([actual[2].statistics]) == merge_statistics([expected[2].statistics])


@pytest.mark.parametrize("surrogate", ["token", "cispo"])
def test_advantages_that_differ_by_token(surrogate: Any) -> None:
    value, gradient, _ = loss_of([[1.0, 1.0, 1.0]], [[3.0, 0.0, -1.5]], surrogate=surrogate)
    assert gradient == [[-3.0 / 3, 0.0, 1.5 / 3]]
    logprob = -1.0 if surrogate == "cispo" else 1.0
    assert value == pytest.approx(-(3.0 + 0.0 - 1.5) / 3 * logprob)


@pytest.mark.parametrize("surrogate", ["sequence", "geometric"])
def test_surrogates_of_a_response_spread_the_mean_of_its_advantages(surrogate: Any) -> None:
    _, gradient, _ = loss_of([[1.0, 1.0, 1.0]], [[3.0, 0.0, -1.5]], surrogate=surrogate)
    assert gradient == [[pytest.approx(-(3.0 + 0.0 - 1.5) / 3 / 3)] * 3]


@pytest.mark.parametrize("surrogate", SURROGATES[:-1])
def test_a_row_without_advantage_adds_nothing_whatever_its_ratio(surrogate: Any) -> None:
    for logprob in (1e4, -1e4, -math.inf):
        logprobs_NT = torch.tensor([[logprob, logprob]], requires_grad=True)
        loss = policy_loss(
            logprobs_NT, torch.zeros(1, 2), torch.zeros(1), torch.ones(1, 2), denominator=1, surrogate=surrogate
        )
        loss.value.backward()
        assert loss.value.item() == 0
        assert logprobs_NT.grad is not None
        assert torch.equal(logprobs_NT.grad, torch.zeros(1, 2))


@every_surrogate
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (2, 3)])
def test_no_tokens_no_loss(surrogate: Any, shape: tuple[int, int]) -> None:
    logprobs_NT = torch.full(shape, math.nan, requires_grad=True)
    loss = policy_loss(
        logprobs_NT,
        logprobs_NT.detach(),
        torch.ones(shape[0]),
        torch.zeros(shape, dtype=torch.bool),
        denominator=1,
        surrogate=surrogate,
        group_ids_N=torch.zeros(shape[0], dtype=torch.int64),
    )
    loss.value.backward()
    assert loss.value.item() == 0
    assert logprobs_NT.grad is not None
    assert torch.equal(logprobs_NT.grad, torch.zeros(shape))


@pytest.mark.parametrize("surrogate", SURROGATES[:-1])
def test_the_gradient_is_the_same_for_every_split(surrogate: Any) -> None:
    batch = make_batch()
    value, gradient_NT, whole = value_and_gradient(batch, surrogate=surrogate, denominator=9)
    for sizes in ([1] * 9, [4, 5], [7, 1, 1]):
        rows = {name: tensor.split(sizes) for name, tensor in batch.items()}
        parts = [
            value_and_gradient({name: part[k] for name, part in rows.items()}, surrogate=surrogate, denominator=9)
            for k in range(len(sizes))
        ]
        torch.testing.assert_close(sum(part[0] for part in parts), value)
        torch.testing.assert_close(torch.cat([part[1] for part in parts]), gradient_NT)
        merged = merge_statistics([part[2].statistics for part in parts])
        assert merged == pytest.approx(merge_statistics([whole.statistics]))


# GVPO


def test_gvpo_is_at_rest_where_the_implicit_rewards_are_the_rewards() -> None:
    """beta (h_i - mean h) = A_i, the optimum of reward minus beta KL: no loss, no gradient; any shift of all h alike is as good."""
    batch = make_batch()
    batch["mask_NT"][0, 0] = True
    centred_N = float64([1, 2, -1, 3, -4, 2, -2, -3, 2])
    lengths_N1 = batch["mask_NT"].sum(1, keepdim=True)
    shifts_N = float64([5 if group_id == 7 else -1 for group_id in batch["group_ids_N"].tolist()])
    batch["advantages"] = centred_N
    batch["logprobs_NT"] = batch["old_logprobs_NT"] + (centred_N / BETA + shifts_N)[:, None] / lengths_N1
    value, gradient_NT, _ = value_and_gradient(batch, surrogate="gvpo", beta=BETA, denominator=9)
    assert value.item() == pytest.approx(0, abs=1e-20)
    torch.testing.assert_close(gradient_NT, torch.zeros_like(gradient_NT))
    batch["logprobs_NT"] = batch["logprobs_NT"] + 0.1 * torch.randn(9, 9, generator=torch.Generator().manual_seed(1))
    assert value_and_gradient(batch, surrogate="gvpo", beta=BETA, denominator=9)[0] > 1e-6


def test_gvpo_of_a_lonely_row_is_nothing() -> None:
    value, gradient, _ = loss_of([[2.0, 3.0]], [0.0], surrogate="gvpo", group_ids_N=torch.tensor([1]))
    assert (value, gradient) == (0.0, [[0.0, 0.0]])


def gvpo_rows() -> tuple[Row, ...]:
    """Three groups of 4, 3 and 2 rows of unlike lengths, their order mixed; the prompt ends in the number of the row."""
    generator = torch.Generator().manual_seed(0)
    groups = [0, 1, 0, 2, 1, 0, 0, 2, 1]
    rows = []
    for number, group in enumerate(groups):
        length = int(torch.randint(1, 9, (), generator=generator))
        advantage = float(torch.randn((), generator=generator)) if number != 4 else 0.0
        old_logprobs = -torch.rand(length, generator=generator)
        rows.append(Row(torch.tensor([number]), torch.arange(length), old_logprobs, advantage, group))
    return tuple(rows)


@pytest.mark.parametrize("budget", [1, 40, 10_000])
def test_gvpo_is_the_same_for_every_split_into_whole_groups(budget: int) -> None:
    batch = Batch(gvpo_rows(), num_rows=9, num_tokens=40)
    drift_NT = 0.3 * torch.randn(9, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def evaluate(parts: list[MicroBatch]) -> tuple[float, dict[int, list[float]]]:
        total, gradients = 0.0, {}
        for part in parts:
            numbers = part.input_ids[:, 0].tolist()
            old_logprobs_NT = part.old_logprobs_NT.double()
            logprobs_NT = (old_logprobs_NT + drift_NT[numbers, : part.mask_NT.shape[1]]).requires_grad_()
            loss = policy_loss(
                logprobs_NT,
                old_logprobs_NT,
                part.advantages_NT.double(),
                part.mask_NT,
                denominator=batch.denominator("sequence", 9),
                surrogate="gvpo",
                group_ids_N=part.group_ids_N,
            )
            loss.value.backward()
            total += loss.value.item()
            assert logprobs_NT.grad is not None
            for number, row, mask in zip(numbers, logprobs_NT.grad, part.mask_NT, strict=True):
                gradients[number] = row[mask].tolist()
        return total, gradients

    parts = batch.split(budget, whole_groups=True)
    assert len(parts) == {1: 3, 40: 2, 10_000: 1}[budget]
    for part in parts:  # no group lies in two of them
        assert len(part.group_ids_N) == sum(row.group in part.group_ids_N for row in batch.rows)
    value, gradients = evaluate(parts)
    expected_value, expected = evaluate(batch.split(10_000, whole_groups=True))
    assert value == pytest.approx(expected_value)
    assert gradients.keys() == set(range(9))
    assert all(gradients[number] == pytest.approx(expected[number]) for number in range(9))


# Refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"surrogate": "ppo"},
            "surrogate 'ppo' must be one of token, sequence, geometric, cispo, gvpo, or python:module.function",
        ),
        ({"beta": -1.0}, "beta must be finite and not negative; not -1.0"),
        ({"beta": math.nan}, "beta must be finite and not negative; not nan"),
        ({"surrogate": "gvpo", "group_ids_N": None}, "gvpo compares the rows of a group: give group_ids_N"),
        ({"group_ids_N": torch.zeros(3)}, r"group_ids_N has shape \(3,\).*expected \(9,\)"),
        ({"advantages": torch.zeros(9, 2)}, r"advantages has shape \(9, 2\).*expected \(9, 9\)"),
        ({"advantages": torch.zeros(4)}, r"advantages has shape \(4,\).*expected \(9,\)"),
    ],
)
def test_refusals(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policy_loss(**{**make_batch(), "denominator": 1, **settings})
