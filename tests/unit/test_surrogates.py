"""The surrogates as arithmetic; most of them are compared with TRL's in tests/parity too."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from lampo.batch import Batch, Row
from lampo.objective import loss_denominator, policy_loss
from lampo.surrogates import Surrogate

SURROGATES = get_args(Surrogate)
GROUPS = torch.tensor([3, 3, 1, 3, 1, 1])


def make_batch(seed: int = 0, scale: float = 0.2) -> dict[str, Any]:
    """Six rows of 1 to 6 tokens in two groups of three."""
    generator = torch.Generator().manual_seed(seed)
    old_logprobs_NT = -torch.rand(6, 6, generator=generator, dtype=torch.float64)
    return {
        "logprobs_NT": old_logprobs_NT + scale * torch.randn(6, 6, generator=generator, dtype=torch.float64),
        "old_logprobs_NT": old_logprobs_NT,
        "advantages": torch.randn(6, generator=generator, dtype=torch.float64),
        "mask_NT": torch.arange(6) <= torch.arange(6)[:, None],
        "group_ids_N": GROUPS,
    }


def value_and_gradient(batch: dict[str, Any], **settings: Any) -> tuple[Tensor, Tensor]:
    logprobs_NT = batch["logprobs_NT"].clone().requires_grad_()
    loss = policy_loss(**{**batch, "logprobs_NT": logprobs_NT}, **{"denominator": 6.0, **settings})
    loss.value.backward()
    assert logprobs_NT.grad is not None
    return loss.value.detach(), logprobs_NT.grad


def two_tokens(surrogate: str, ratios: tuple[float, float], advantage: float, **settings: float) -> float:
    old_logprobs_NT = torch.tensor([[-1.0, -2.0]], dtype=torch.float64)
    logprobs_NT = old_logprobs_NT + torch.tensor([ratios], dtype=torch.float64).log()
    advantages = torch.tensor([advantage], dtype=torch.float64)
    mask_NT = torch.ones(1, 2)
    loss = policy_loss(
        logprobs_NT, old_logprobs_NT, advantages, mask_NT, denominator=1, surrogate=surrogate, **settings
    )  # pyright: ignore
    return loss.value.item()


def test_one_ratio_a_response() -> None:
    assert two_tokens("sequence", (4.0, 1.0), 1.0, clip_high=5.0) == pytest.approx(-2.0)  # sqrt(4 * 1)
    assert two_tokens("sequence", (4.0, 1.0), 1.0, clip_high=0.5) == pytest.approx(-1.5)
    assert two_tokens("sequence", (4.0, 1.0), -1.0, clip_high=0.5) == pytest.approx(2.0)  # the minimum: no clip


def test_geometric_mean_of_clipped_ratios() -> None:
    clip = {"clip_low": math.log(2), "clip_high": math.log(2)}
    assert two_tokens("geometric", (4.0, 0.125), 3.0, **clip) == pytest.approx(-3 * math.sqrt(2 * 0.125))
    assert two_tokens("geometric", (4.0, 0.125), -3.0, **clip) == pytest.approx(3 * math.sqrt(4 * 0.5))


def test_clipped_weights_of_log_probs() -> None:
    logprobs = -1 + math.log(4), -2 + math.log(0.5)
    expected = -(3 * logprobs[0] + 0.7 * logprobs[1]) * 2 / 2
    assert two_tokens("cispo", (4.0, 0.5), 2.0, clip_low=0.3, clip_high=2.0) == pytest.approx(expected)


def naive_gvpo(batch: dict[str, Any], beta: float) -> Tensor:
    value = torch.zeros((), dtype=torch.float64)
    for group in (1, 3):
        rows = [index for index in range(6) if GROUPS[index] == group]
        sums = [
            sum(
                batch["logprobs_NT"][n, t] - batch["old_logprobs_NT"][n, t] for t in range(n + 1)
            )  # row n has n + 1 tokens
            for n in rows
        ]
        mean = sum(sums) / 3
        squares = [(beta * (h - mean) - batch["advantages"][n]) ** 2 for n, h in zip(rows, sums, strict=True)]
        value = value + sum(squares) / 2 / (3 - 1) / 2  # half the square, G - 1, two groups
    return value


def test_gvpo_is_the_papers_sum_over_groups() -> None:
    batch = make_batch()
    logprobs_NT = batch["logprobs_NT"].clone().requires_grad_()
    expected = naive_gvpo({**batch, "logprobs_NT": logprobs_NT}, beta=0.3)
    expected.backward()
    value, gradient = value_and_gradient(batch, surrogate="gvpo", beta=0.3)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, logprobs_NT.grad)


def test_gvpo_rests_where_implicit_rewards_are_the_rewards() -> None:
    batch = make_batch(scale=0.0)
    for group in (1, 3):
        batch["advantages"][group == GROUPS] -= batch["advantages"][group == GROUPS].mean()
    batch["logprobs_NT"] = batch["old_logprobs_NT"].clone()
    batch["logprobs_NT"][:, 0] += batch["advantages"] / 0.5
    _, gradient = value_and_gradient(batch, surrogate="gvpo", beta=0.5)
    assert gradient.abs().max() < 1e-12


def test_gvpo_needs_groups() -> None:
    with pytest.raises(ValueError, match="group_ids_N"):
        policy_loss(**{**make_batch(), "group_ids_N": None}, denominator=1, surrogate="gvpo")


@pytest.mark.parametrize("surrogate", [name for name in SURROGATES if name != "gvpo"])
def test_all_are_reinforce_where_the_policy_has_not_moved(surrogate: str) -> None:
    batch = make_batch(scale=0.0)
    _, gradient = value_and_gradient(batch, surrogate=surrogate)
    lengths_N1 = batch["mask_NT"].sum(1, keepdim=True)
    expected = -batch["advantages"][:, None] * batch["mask_NT"] / lengths_N1 / 6
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_padding_is_not_looked_at(surrogate: str) -> None:
    batch = make_batch()
    poisoned = dict(batch)
    per_token_NT = batch["advantages"][:, None].expand(6, 6)
    for name, values_NT in (("logprobs_NT", None), ("old_logprobs_NT", None), ("advantages", per_token_NT)):
        values_NT = batch[name] if values_NT is None else values_NT
        poisoned[name] = torch.where(batch["mask_NT"], values_NT, math.nan)
    expected_value, expected_gradient = value_and_gradient(batch, surrogate=surrogate)
    value, gradient = value_and_gradient(poisoned, surrogate=surrogate)
    torch.testing.assert_close(value, expected_value)  # and one advantage a token, all alike, is one a row
    torch.testing.assert_close(gradient, expected_gradient)
    assert (gradient[~batch["mask_NT"]] == 0).all()


@pytest.mark.parametrize(
    "surrogate", [name for name in SURROGATES if name != "cispo"]
)  # its weights have no gradient by design
def test_gradients_are_those_of_the_value(surrogate: str) -> None:
    batch = make_batch()

    def value(logprobs_NT: Tensor) -> Tensor:
        inputs = {**batch, "logprobs_NT": logprobs_NT}
        return policy_loss(**inputs, denominator=6.0, surrogate=surrogate, clip_low=0.3, clip_high=0.3).value  # pyright: ignore

    assert torch.autograd.gradcheck(value, batch["logprobs_NT"].clone().requires_grad_())


@pytest.mark.parametrize("budget", [1, 24, 10_000])
def test_gvpo_is_the_same_for_every_split_that_keeps_groups_whole(budget: int) -> None:
    batch = make_batch()
    rows = [
        Row(
            torch.tensor([1]),
            torch.full((n + 1,), n),
            torch.zeros(n + 1),
            float(batch["advantages"][n]),
            int(GROUPS[n]),
        )
        for n in range(6)
    ]
    parts = Batch(tuple(rows), 6, 21).split(budget, whole_groups=True)
    assert budget > 24 or len(parts) == 2
    total = 0.0
    for part in parts:
        index_N = part.target_ids[:, 0]  # which row it is
        T = part.mask_NT.shape[1]
        total += policy_loss(
            batch["logprobs_NT"][index_N, :T],
            batch["old_logprobs_NT"][index_N, :T],
            part.advantages_NT.double(),
            part.mask_NT,
            denominator=loss_denominator(6, 21, 6, "sequence"),
            surrogate="gvpo",
            group_ids_N=part.group_ids_N,
        ).value.item()
    assert total == pytest.approx(naive_gvpo(batch, beta=0.1).item(), rel=1e-6)


def test_an_unknown_surrogate_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogate must be one of token, sequence, geometric, cispo, gvpo; not 'ppo'"):
        policy_loss(**make_batch(), denominator=1, surrogate="ppo")  # pyright: ignore
