"""Truncated importance weights between sampler and learner, by hand and beside the loss without them."""

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from lampo.algo.importance import importance_weights, sampler_mismatch
from lampo.algo.objective import k3, merge_statistics, policy_loss, surrogate_terms
from lampo.algo.surrogates import Tokens

RATIOS_NT = torch.tensor([[1.5, 0.5, 4.0], [0.25, 1.0, 9.0]], dtype=torch.float64)
MASK_NT = torch.tensor([[True, True, True], [True, True, False]])


def logprobs() -> tuple[Tensor, Tensor]:
    """The learner's and the sampler's; padding is poisoned."""
    sampler_NT = torch.tensor([[0.2, 0.8, 0.1], [0.4, 0.3, 0.5]], dtype=torch.float64).log()
    learner_NT = sampler_NT + RATIOS_NT.log()
    return torch.where(MASK_NT, learner_NT, math.nan), torch.where(MASK_NT, sampler_NT, math.inf)


def test_a_tokens_weight_is_its_ratio_up_to_the_cap() -> None:
    weights_NT = importance_weights(*logprobs(), MASK_NT, level="token", cap=2.0)
    torch.testing.assert_close(weights_NT, torch.tensor([[1.5, 0.5, 2.0], [0.25, 1.0, 0.0]], dtype=torch.float64))


def test_a_responses_weight_is_the_product_up_to_the_cap() -> None:
    weights_NT = importance_weights(*logprobs(), MASK_NT, level="sequence", cap=2.5)
    expected = [[min(1.5 * 0.5 * 4.0, 2.5)] * 3, [0.25 * 1.0, 0.25 * 1.0, 0.0]]
    torch.testing.assert_close(weights_NT, torch.tensor(expected, dtype=torch.float64))


def test_far_apart_is_the_cap_and_not_infinity() -> None:
    far_NT = torch.tensor([[1000.0, -1000.0]])
    assert importance_weights(far_NT, torch.zeros(1, 2), torch.ones(1, 2), level="token").tolist() == [[2.0, 0.0]]


def test_weights_are_float32_at_least_and_without_gradient() -> None:
    learner_NT = torch.zeros(1, 2, dtype=torch.bfloat16, requires_grad=True)
    weights_NT = importance_weights(learner_NT, torch.zeros(1, 2), torch.ones(1, 2), level="token")
    assert weights_NT.dtype == torch.float32
    assert not weights_NT.requires_grad
    assert weights_NT.tolist() == [[1.0, 1.0]]


def test_their_mean_under_the_sampler_is_the_mean_under_the_learner() -> None:
    """What they are for: E_sampler[w f] = E_learner[f] where no weight reaches the cap."""
    sampler_V, learner_V = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.4, 0.4, 0.2])
    values_V = torch.tensor([1.0, -2.0, 3.0])
    weights_V = importance_weights(
        learner_V.log()[None], sampler_V.log()[None], torch.ones(1, 3), level="token", cap=10
    )[0]
    torch.testing.assert_close((sampler_V * weights_V * values_V).sum(), (learner_V * values_V).sum())


def test_refusals() -> None:
    one = torch.ones(1, 1)
    with pytest.raises(ValueError, match="level must be one of token, sequence; not 'row'"):
        importance_weights(one, one, one, level="row")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="cap must be positive; not 0"):
        importance_weights(one, one, one, level="token", cap=0)
    with pytest.raises(ValueError, match="sampler_correction is token, which needs sampler_logprobs_NT"):
        policy_loss(one, one, one[0], one, denominator=1, sampler_correction="token")
    with pytest.raises(ValueError, match="sampler_logprobs_NT has shape"):
        policy_loss(one, one, one[0], one, denominator=1, sampler_logprobs_NT=torch.ones(1, 2))


def batch() -> dict[str, Tensor]:
    learner_NT, sampler_NT = logprobs()
    moved_NT = learner_NT + torch.tensor([[0.3, -0.1, 0.05], [-0.4, 0.02, 0.0]])
    return {
        "logprobs_NT": moved_NT,
        "old_logprobs_NT": learner_NT,
        "advantages": torch.tensor([1.0, -0.5]),
        "mask_NT": MASK_NT,
        "sampler_logprobs_NT": sampler_NT,
    }


def loss_and_gradient(**settings: object) -> tuple[Tensor, Tensor, dict[str, float]]:
    given = batch() | settings
    logprobs_NT = given.pop("logprobs_NT").clone().requires_grad_()  # pyright: ignore
    loss = policy_loss(logprobs_NT, denominator=2, **given)  # pyright: ignore
    loss.value.backward()
    assert logprobs_NT.grad is not None
    return loss.value.detach(), logprobs_NT.grad, merge_statistics([loss.statistics])


def test_off_changes_no_bit() -> None:
    plain = loss_and_gradient(sampler_logprobs_NT=None)
    off = loss_and_gradient(sampler_correction="off")
    assert torch.equal(plain[0], off[0])
    assert torch.equal(plain[1], off[1])
    assert plain[2] == off[2]
    assert "importance_weight" not in off[2]


@pytest.mark.parametrize("surrogate", ["token", "sequence", "geometric", "cispo"])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_surrogate_is_weighted_token_by_token_and_the_kl_term_is_not(
    surrogate: str, level: Literal["token", "sequence"]
) -> None:
    weights_NT = importance_weights(*logprobs(), MASK_NT, level=level, cap=2.0)
    given = batch()
    log_ratio_NT = torch.where(MASK_NT, given["logprobs_NT"] - given["old_logprobs_NT"], 0.0)
    tokens = Tokens(
        log_ratio_NT, torch.where(MASK_NT, given["logprobs_NT"], 0.0), given["advantages"][:, None], MASK_NT
    )
    losses_NT = surrogate_terms(surrogate, tokens, {"clip_low": 0.2, "clip_high": 0.2, "beta": 0.1}).losses_NT
    penalty_NT = torch.where(MASK_NT, k3(given["old_logprobs_NT"] - 0.2 - given["logprobs_NT"]), 0.0)
    value, _, statistics = loss_and_gradient(
        surrogate=surrogate,
        aggregation="token",
        sampler_correction=level,
        kl_coefficient=0.3,
        ref_logprobs_NT=given["old_logprobs_NT"] - 0.2,
    )
    torch.testing.assert_close(value, (weights_NT * losses_NT + 0.3 * penalty_NT).sum() / 2)
    assert statistics["importance_weight"] == pytest.approx(float(weights_NT.sum()) / 5)
    assert statistics["importance_capped"] == pytest.approx(float((weights_NT >= 2).sum()) / 5)


def test_weights_of_one_are_the_loss_without() -> None:
    given = {"sampler_logprobs_NT": batch()["old_logprobs_NT"], "sampler_correction": "sequence"}
    torch.testing.assert_close(loss_and_gradient(**given)[:2], loss_and_gradient()[:2])


def test_the_mismatch_by_hand() -> None:
    statistics = sampler_mismatch(torch.tensor([0.5, -0.25, 0.0]))
    assert statistics == {
        "mismatch_mean": 0.25,
        "mismatch_max": 0.5,
        "kl": pytest.approx((math.exp(0.5) - 0.5 - 1 + math.exp(-0.25) + 0.25 - 1) / 3, rel=1e-6),
    }
    assert sampler_mismatch(torch.zeros(0)) == {"mismatch_mean": 0.0, "mismatch_max": 0.0, "kl": 0.0}
    assert all(math.isnan(value) for value in sampler_mismatch(torch.tensor([math.nan, 1.0])).values())
