"""The surrogates as arithmetic, against a loop over rows and tokens; what they share, and what only gvpo needs."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from lampo.batch import Batch, Row
from lampo.objective import Aggregation, loss_denominator, merge_statistics, policy_loss
from lampo.surrogates import Surrogate

SURROGATES = get_args(Surrogate)
AGGREGATIONS = get_args(Aggregation)
CLIPS: dict[str, dict[str, float]] = {
    "token": {"clip_low": 0.2, "clip_high": 0.28},
    "sequence": {"clip_low": 0.1, "clip_high": 0.15},
    "geometric": {"clip_low": 0.25, "clip_high": 0.3},
    "cispo": {"clip_low": 0.3, "clip_high": 0.4},
    "gvpo": {"beta": 0.3},
}
MAX_TOKENS = 7
every_surrogate = pytest.mark.parametrize("surrogate", SURROGATES)
every_aggregation = pytest.mark.parametrize("aggregation", AGGREGATIONS)
of_rows_on_their_own = pytest.mark.parametrize("surrogate", [name for name in SURROGATES if name != "gvpo"])


def make_batch(seed: int = 0, spread: float = 0.4) -> dict[str, Tensor]:
    """Groups of 4, 3 and 1 rows in mixed order, rows of 1 to 7 tokens; advantages are centred in their groups."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    group_ids_N = torch.tensor([5, -1, 5, 5, 9, -1, 5, -1])
    N = len(group_ids_N)
    advantages = normal(N)
    for group in group_ids_N.unique():
        advantages[group_ids_N == group] -= advantages[group_ids_N == group].mean()
    old_logprobs_NT = -normal(N, MAX_TOKENS).abs()
    return {
        "logprobs_NT": old_logprobs_NT + spread * normal(N, MAX_TOKENS),
        "old_logprobs_NT": old_logprobs_NT,
        "advantages": advantages,
        "mask_NT": torch.arange(MAX_TOKENS) < torch.tensor([7, 3, 1, 5, 2, 4, 6, 7])[:, None],
        "group_ids_N": group_ids_N,
    }


def denominator_of(batch: dict[str, Tensor], aggregation: Aggregation) -> float:
    return loss_denominator(len(batch["mask_NT"]), int(batch["mask_NT"].sum()), MAX_TOKENS, aggregation)


def value_and_gradient(batch: dict[str, Tensor], **settings: Any) -> tuple[Tensor, Tensor, dict[str, float]]:
    logprobs_NT = batch["logprobs_NT"].clone().requires_grad_()
    settings.setdefault("denominator", denominator_of(batch, settings["aggregation"]))
    loss = policy_loss(**batch | {"logprobs_NT": logprobs_NT}, **settings)
    loss.value.backward()
    assert logprobs_NT.grad is not None
    return loss.value.detach(), logprobs_NT.grad, merge_statistics([loss.statistics])


# One token, by hand


def one_token(surrogate: Surrogate, ratio: float, advantage: float, **settings: Any) -> tuple[float, float, str]:
    """Value, gradient for the log-prob, and at which end the clip is told to act; the old log-prob is -1.5."""
    batch = {
        "logprobs_NT": torch.tensor([[-1.5 + math.log(ratio)]], dtype=torch.float64),
        "old_logprobs_NT": torch.tensor([[-1.5]], dtype=torch.float64),
        "advantages": torch.tensor([advantage], dtype=torch.float64),
        "mask_NT": torch.ones(1, 1, dtype=torch.bool),
    }
    value, gradient, statistics = value_and_gradient(
        batch, surrogate=surrogate, aggregation="sequence", denominator=1, **settings
    )
    clipped = [end for end in ("low", "high") if statistics[f"clip_fraction_{end}"]]
    return value.item(), gradient.item(), "".join(clipped)


@pytest.mark.parametrize("surrogate", ["token", "sequence"])
@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "gradient", "clipped"),
    [
        (1.1, 2.0, -1.1 * 2.0, -1.1 * 2.0, ""),
        (1.5, 2.0, -1.3 * 2.0, 0.0, "high"),
        (0.5, -2.0, 0.8 * 2.0, 0.0, "low"),
        (1.5, -2.0, 1.5 * 2.0, 1.5 * 2.0, ""),
        (0.5, 2.0, -0.5 * 2.0, -0.5 * 2.0, ""),
    ],
)
def test_clip_of_ratios(
    surrogate: Surrogate, ratio: float, advantage: float, value: float, gradient: float, clipped: str
) -> None:
    expected = pytest.approx(value), pytest.approx(gradient), clipped
    assert one_token(surrogate, ratio, advantage, clip_low=0.2, clip_high=0.3) == expected


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "value", "gradient", "clipped"),
    [
        (0.1, 2.0, -math.exp(0.1) * 2.0, -math.exp(0.1) * 2.0, ""),
        (0.7, 2.0, -math.exp(0.4) * 2.0, 0.0, "high"),
        (-0.7, -2.0, math.exp(-0.3) * 2.0, 0.0, "low"),
        (0.7, -2.0, math.exp(0.7) * 2.0, math.exp(0.7) * 2.0, ""),
        (-0.7, 2.0, -math.exp(-0.7) * 2.0, -math.exp(-0.7) * 2.0, ""),
    ],
)
def test_clip_of_log_ratios(log_ratio: float, advantage: float, value: float, gradient: float, clipped: str) -> None:
    expected = pytest.approx(value), pytest.approx(gradient), clipped
    assert one_token("geometric", math.exp(log_ratio), advantage, clip_low=0.3, clip_high=0.4) == expected


@pytest.mark.parametrize("advantage", [2.0, -2.0])
@pytest.mark.parametrize(("ratio", "weight", "clipped"), [(1.1, 1.1, ""), (3.0, 1.4, "high"), (0.2, 0.5, "low")])
def test_clip_of_weights_leaves_every_token_its_gradient(
    ratio: float, weight: float, clipped: str, advantage: float
) -> None:
    expected = pytest.approx(-weight * advantage * (-1.5 + math.log(ratio))), pytest.approx(-weight * advantage)
    assert one_token("cispo", ratio, advantage, clip_low=0.5, clip_high=0.4) == (*expected, clipped)


def test_a_response_has_one_ratio_in_sequence() -> None:
    """Ratios 2 and 1/2: their geometric mean is 1, inside a clip range that neither ratio is in."""
    batch = {
        "logprobs_NT": torch.tensor([[2.0, 0.5]], dtype=torch.float64).log(),
        "old_logprobs_NT": torch.zeros(1, 2, dtype=torch.float64),
        "advantages": torch.tensor([3.0], dtype=torch.float64),
        "mask_NT": torch.ones(1, 2, dtype=torch.bool),
    }
    settings: dict[str, Any] = {"aggregation": "sequence", "clip_low": 0.01, "clip_high": 0.01}
    value, gradient_NT, _ = value_and_gradient(batch, surrogate="sequence", **settings)
    assert value.item() == pytest.approx(-3.0)
    assert gradient_NT.tolist() == [[pytest.approx(-3.0 / 2)] * 2]
    # token by token 2 is clipped to 1.01, and 1/2 is not
    value, gradient_NT, _ = value_and_gradient(batch, surrogate="token", **settings)
    assert value.item() == pytest.approx(-3.0 * (1.01 + 0.5) / 2)
    assert gradient_NT.tolist() == [[0.0, pytest.approx(-3.0 * 0.5 / 2)]]
    # geometric clips the token, then takes the mean: the other one keeps a gradient
    value, gradient_NT, _ = value_and_gradient(batch, surrogate="geometric", **settings)
    mean = math.exp((0.01 + math.log(0.5)) / 2)
    assert value.item() == pytest.approx(-3.0 * mean)
    assert gradient_NT.tolist() == [[0.0, pytest.approx(-3.0 * mean / 2)]]


# A loop over rows and tokens, differentiated by autograd token by token


def slow_loss(batch: dict[str, Tensor], surrogate: str, aggregation: str, settings: dict[str, float]) -> Tensor:
    def row(name: str, i: int) -> list[Tensor]:
        return [batch[name][i, t] for t in range(MAX_TOKENS) if batch["mask_NT"][i, t]]

    def bounded(value: Tensor, low: float, high: float, advantage: Tensor) -> Tensor:
        clipped = torch.clamp(value, low, high)
        return torch.minimum(value, clipped) if advantage > 0 else torch.maximum(value, clipped)

    total = torch.zeros((), dtype=torch.float64)
    N = len(batch["mask_NT"])
    low, high = settings.get("clip_low", 0.0), settings.get("clip_high", 0.0)
    for i in range(N):
        new, old, advantage = row("logprobs_NT", i), row("old_logprobs_NT", i), batch["advantages"][i]
        log_ratios = [a - b for a, b in zip(new, old, strict=True)]
        T = len(new)
        if surrogate == "token":
            losses = [-bounded(x.exp(), 1 - low, 1 + high, advantage) * advantage for x in log_ratios]
        elif surrogate == "sequence":
            losses = [-bounded((sum(log_ratios) / T).exp(), 1 - low, 1 + high, advantage) * advantage] * T  # pyright: ignore
        elif surrogate == "geometric":
            product = math.prod([bounded(x, -low, high, advantage).exp() for x in log_ratios])
            losses = [-(product ** (1 / T)) * advantage] * T  # pyright: ignore
        elif surrogate == "cispo":
            losses = [
                -x.exp().clamp(1 - low, 1 + high).detach() * advantage * a for a, x in zip(new, log_ratios, strict=True)
            ]
        else:
            peers = [j for j in range(N) if batch["group_ids_N"][j] == batch["group_ids_N"][i]]
            sums = {
                j: sum(a - b for a, b in zip(row("logprobs_NT", j), row("old_logprobs_NT", j), strict=True))
                for j in peers
            }
            distance = settings["beta"] * (sums[i] - sum(sums.values()) / len(peers)) - advantage
            losses = [distance**2 / 2 * len(peers) / max(1, len(peers) - 1)] * T
        total = total + sum(losses) / (T if aggregation == "sequence" else 1)
    return total / denominator_of(batch, aggregation)  # pyright: ignore


@every_aggregation
@every_surrogate
@pytest.mark.parametrize("seed", [0, 1])
def test_against_a_loop(surrogate: Surrogate, aggregation: Aggregation, seed: int) -> None:
    batch = make_batch(seed)
    value, gradient_NT, statistics = value_and_gradient(
        batch, surrogate=surrogate, aggregation=aggregation, **CLIPS[surrogate]
    )
    logprobs_NT = batch["logprobs_NT"].clone().requires_grad_()
    expected = slow_loss(batch | {"logprobs_NT": logprobs_NT}, surrogate, aggregation, CLIPS[surrogate])
    (expected_gradient_NT,) = torch.autograd.grad(expected, logprobs_NT)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient_NT, expected_gradient_NT)
    if surrogate != "gvpo":
        assert statistics["clip_fraction_low"] > 0
        assert statistics["clip_fraction_high"] > 0


@every_aggregation
@every_surrogate
def test_gradcheck(surrogate: Surrogate, aggregation: Aggregation) -> None:
    """The weights of cispo are constants for the gradient only: here both clip ranges are 0, and they are 1."""
    batch = make_batch()
    settings = {"clip_low": 0.0, "clip_high": 0.0} if surrogate == "cispo" else CLIPS[surrogate]

    def value(logprobs_NT: Tensor) -> Tensor:
        inputs: dict[str, Any] = batch | {"logprobs_NT": logprobs_NT} | settings
        return policy_loss(**inputs, denominator=3.0, surrogate=surrogate, aggregation=aggregation).value

    assert torch.autograd.gradcheck(value, batch["logprobs_NT"].clone().requires_grad_())


# What all of them share


@every_aggregation
@of_rows_on_their_own
def test_on_policy_the_gradient_is_that_of_reinforce(surrogate: Surrogate, aggregation: Aggregation) -> None:
    batch = make_batch(spread=0.0)
    _, gradient_NT, _ = value_and_gradient(batch, surrogate=surrogate, aggregation=aggregation, **CLIPS[surrogate])
    mask_NT = batch["mask_NT"]
    lengths_N1 = mask_NT.sum(1, keepdim=True) if aggregation == "sequence" else 1
    expected_NT = -batch["advantages"][:, None] * mask_NT / lengths_N1 / denominator_of(batch, aggregation)
    torch.testing.assert_close(gradient_NT, expected_NT, atol=1e-14, rtol=1e-12)


@every_surrogate
def test_poisoned_padding_does_not_leak(surrogate: Surrogate) -> None:
    clean = make_batch()
    clean["advantages"] = clean["advantages"][:, None].expand(-1, MAX_TOKENS)
    settings: dict[str, Any] = {"surrogate": surrogate, "aggregation": "sequence", **CLIPS[surrogate]}
    value, gradient_NT, statistics = value_and_gradient(clean, **settings)
    for poison in (math.nan, math.inf, -math.inf, 1e308):
        poisoned = {
            name: torch.where(clean["mask_NT"], tensor, poison)
            if name in ("logprobs_NT", "old_logprobs_NT", "advantages")
            else tensor
            for name, tensor in clean.items()
        }
        poisoned_value, poisoned_gradient_NT, poisoned_statistics = value_and_gradient(poisoned, **settings)
        assert torch.equal(poisoned_value, value)
        assert torch.equal(poisoned_gradient_NT, gradient_NT)
        assert poisoned_statistics == statistics
    assert gradient_NT[~clean["mask_NT"]].count_nonzero() == 0


@every_aggregation
@every_surrogate
def test_one_advantage_a_token_is_the_same_where_all_of_a_row_are_equal(
    surrogate: Surrogate, aggregation: Aggregation
) -> None:
    batch = make_batch()
    settings: dict[str, Any] = {"surrogate": surrogate, "aggregation": aggregation, **CLIPS[surrogate]}
    value, gradient_NT, statistics = value_and_gradient(batch, **settings)
    advantages_NT = batch["advantages"][:, None].expand(-1, MAX_TOKENS)
    again, gradient_again_NT, statistics_again = value_and_gradient(batch | {"advantages": advantages_NT}, **settings)
    torch.testing.assert_close(again, value, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient_again_NT, gradient_NT, rtol=1e-12, atol=1e-15)
    assert statistics_again == statistics


@pytest.mark.parametrize("surrogate", ["token", "cispo"])
def test_one_advantage_a_token_goes_to_its_token(surrogate: Surrogate) -> None:
    batch = make_batch(spread=0.0)
    advantages_NT = torch.randn(batch["mask_NT"].shape, generator=torch.Generator().manual_seed(1)).double()
    _, gradient_NT, _ = value_and_gradient(
        batch | {"advantages": advantages_NT}, surrogate=surrogate, aggregation="token", denominator=1
    )
    torch.testing.assert_close(gradient_NT, -advantages_NT * batch["mask_NT"])


@every_surrogate
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (2, 3)])
def test_no_tokens_no_loss(surrogate: Surrogate, shape: tuple[int, int]) -> None:
    batch = {
        "logprobs_NT": torch.full(shape, math.nan),
        "old_logprobs_NT": torch.full(shape, math.nan),
        "advantages": torch.zeros(shape[0]),
        "mask_NT": torch.zeros(shape, dtype=torch.bool),
        "group_ids_N": torch.zeros(shape[0], dtype=torch.int64),
    }
    value, gradient_NT, statistics = value_and_gradient(
        batch, surrogate=surrogate, aggregation="sequence", denominator=1
    )
    assert value.item() == 0
    assert torch.equal(gradient_NT, torch.zeros(shape))
    assert statistics == merge_statistics([])


@of_rows_on_their_own
def test_a_row_without_an_advantage_adds_nothing_whatever_its_ratio(surrogate: Surrogate) -> None:
    batch = make_batch()
    batch["advantages"][0] = 0.0
    batch["logprobs_NT"][0] = 1e4  # the ratio overflows
    settings: dict[str, Any] = {"surrogate": surrogate, "aggregation": "token", "denominator": 1, **CLIPS[surrogate]}
    value, gradient_NT, _ = value_and_gradient(batch, **settings)
    without, gradient_without_NT, _ = value_and_gradient(
        {name: tensor[1:] for name, tensor in batch.items()}, **settings
    )
    torch.testing.assert_close(value, without)
    torch.testing.assert_close(gradient_NT[1:], gradient_without_NT)
    assert gradient_NT[0].count_nonzero() == 0


@pytest.mark.parametrize("surrogate", ["sequence", "geometric"])
def test_a_clipped_ratio_that_overflows_has_no_gradient(surrogate: Surrogate) -> None:
    batch = make_batch()
    batch["advantages"] = batch["advantages"].abs()
    batch["logprobs_NT"] = batch["old_logprobs_NT"] + 1e4
    value, gradient_NT, statistics = value_and_gradient(
        batch, surrogate=surrogate, aggregation="sequence", denominator=1, clip_high=0.4
    )
    bound = math.exp(0.4) if surrogate == "geometric" else 1.4
    assert value.item() == pytest.approx(-bound * batch["advantages"].sum().item())
    assert gradient_NT.count_nonzero() == 0
    assert statistics["clip_fraction_high"] == pytest.approx(
        batch["mask_NT"][batch["advantages"] > 0].sum().item() / batch["mask_NT"].sum().item()
    )


# GVPO: the rows of a group together


def test_gvpo_on_policy_is_reinforce_with_whole_responses() -> None:
    """-beta A_i G/(G-1) for every token, whatever the length of its row."""
    batch = make_batch(spread=0.0)
    _, gradient_NT, _ = value_and_gradient(batch, surrogate="gvpo", beta=0.3, aggregation="sequence", denominator=1)
    sizes_N = (batch["group_ids_N"][:, None] == batch["group_ids_N"]).sum(1)
    factors_N = 0.3 * sizes_N / (sizes_N - 1).clamp(min=1)
    torch.testing.assert_close(gradient_NT, -(factors_N * batch["advantages"])[:, None] * batch["mask_NT"])


@pytest.mark.parametrize("constant", [0.0, -2.0])
def test_gvpo_is_at_its_optimum_where_the_policy_is_reward_over_beta_times_the_old_one(constant: float) -> None:
    """pi = pi_old exp(R / beta) / Z: the sum of a row's log-ratios is R_i / beta up to a constant of the group."""
    batch, beta = make_batch(), 0.3
    lengths_N1 = batch["mask_NT"].sum(1, keepdim=True)
    batch["logprobs_NT"] = (
        batch["old_logprobs_NT"] + (batch["advantages"][:, None] / beta + constant) / lengths_N1.double()
    )
    value, gradient_NT, _ = value_and_gradient(batch, surrogate="gvpo", beta=beta, aggregation="sequence")
    assert value.item() == pytest.approx(0.0, abs=1e-24)
    torch.testing.assert_close(gradient_NT, torch.zeros_like(gradient_NT), rtol=0, atol=1e-12)
    batch["logprobs_NT"][0, 0] += 0.1
    assert value_and_gradient(batch, surrogate="gvpo", beta=beta, aggregation="sequence")[0] > 1e-5


def test_gvpo_pulls_back_a_policy_that_left_without_a_reason() -> None:
    """No advantage: what moved beyond its group's mean comes back, beta^2 G/(G-1) (h_i - mean h)."""
    batch = make_batch()
    batch["advantages"] = torch.zeros(8, dtype=torch.float64)
    _, gradient_NT, _ = value_and_gradient(batch, surrogate="gvpo", beta=0.3, aggregation="sequence", denominator=1)
    sums_N = ((batch["logprobs_NT"] - batch["old_logprobs_NT"]) * batch["mask_NT"]).sum(1)
    for group in batch["group_ids_N"].unique():
        rows = batch["group_ids_N"] == group
        G = int(rows.sum())
        expected_G = 0.09 * G / max(1, G - 1) * (sums_N[rows] - sums_N[rows].mean())
        torch.testing.assert_close(gradient_NT[rows][:, 0], expected_G)


def table_loss(table_V: Tensor, batch: Batch, budget: int, whole_groups: bool) -> float:
    """The summed loss of a batch under a policy whose log-probs are looked up by token; its gradient is left on the table."""
    total = 0.0
    for part in batch.split(budget, whole_groups=whole_groups):
        loss = policy_loss(
            table_V[part.target_ids],
            part.old_logprobs_NT,
            part.advantages_NT,
            part.mask_NT,
            denominator=batch.denominator("sequence", MAX_TOKENS),
            surrogate="gvpo",
            group_ids_N=part.group_ids_N,
        )
        loss.value.backward()
        total += loss.value.item()
    return total


def test_gvpo_is_the_same_for_every_split_that_keeps_groups_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [
        Row(
            prompt_ids=torch.ones(2, dtype=torch.int64),
            completion_ids=torch.randint(0, 11, (length,), generator=generator),
            old_logprobs=-torch.rand(length, generator=generator),
            advantage=float(torch.randn((), generator=generator)),
            group=group,
        )
        for group, length in zip([0, 1, 0, 2, 1, 0, 2, 2, 2, 3], [7, 1, 3, 4, 4, 6, 2, 5, 1, 3], strict=True)
    ]
    batch = Batch(tuple(rows), num_rows=len(rows), num_tokens=sum(len(row.completion_ids) for row in rows))

    def value_and_gradient_of(budget: int, whole_groups: bool = True) -> tuple[float, Tensor]:
        table_V = (-torch.linspace(0.5, 3.0, 11)).requires_grad_()
        value = table_loss(table_V, batch, budget, whole_groups)
        assert table_V.grad is not None
        return value, table_V.grad

    value, gradient_V = value_and_gradient_of(10_000)
    assert len(batch.split(10_000, whole_groups=True)) == 1
    for budget in (1, 30, 40):
        parts = batch.split(budget, whole_groups=True)
        assert len(parts) > 1
        groups = [set(part.group_ids_N.tolist()) for part in parts]
        assert sum(map(len, groups)) == 4  # no group is in two of them
        assert sum(len(part.mask_NT) for part in parts) == len(rows)
        assert all(
            part.input_ids.numel() <= budget or len(group) == 1 for part, group in zip(parts, groups, strict=True)
        )
        split_value, split_gradient_V = value_and_gradient_of(budget)
        assert split_value == pytest.approx(value, rel=1e-5)
        torch.testing.assert_close(split_gradient_V, gradient_V, rtol=1e-5, atol=1e-6)
    assert value_and_gradient_of(30, whole_groups=False)[0] != pytest.approx(value, rel=1e-2)  # why they are kept whole


# Refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"surrogate": "ppo"}, "surrogate must be one of token, sequence, geometric, cispo, gvpo; not 'ppo'"),
        (
            {"surrogate": "gvpo", "group_ids_N": None},
            "the surrogate gvpo compares the rows of a group: give group_ids_N",
        ),
        ({"surrogate": "gvpo", "beta": -0.1}, "beta must be finite and not negative; not -0.1"),
        ({"surrogate": "gvpo", "beta": math.nan}, "beta must be finite and not negative; not nan"),
        ({"group_ids_N": torch.zeros(3)}, r"group_ids_N has shape \(3,\).*expected \(8,\)"),
        ({"advantages": torch.zeros(8, 3)}, r"advantages has shape \(8, 3\).*expected \(8, 7\)"),
        ({"advantages": torch.zeros(7)}, r"advantages has shape \(7,\).*expected \(8,\)"),
    ],
)
def test_refusals(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policy_loss(**{**make_batch(), "denominator": 1, **settings})
