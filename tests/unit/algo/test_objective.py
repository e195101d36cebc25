"""The clipped loss as arithmetic: clip branches, aggregations, k3, split invariance, poisoned padding, refusals."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from lampo.algo.objective import Loss, loss_denominator, merge_statistics, policy_loss
from lampo.types import Aggregation

AGGREGATIONS = get_args(Aggregation)
every_aggregation = pytest.mark.parametrize("aggregation", AGGREGATIONS)
MAX_COMPLETION_TOKENS = 8


def one_token(ratio: float, advantage: float, **settings: Any) -> tuple[float, float, Loss]:
    """Value, and gradient for the log-prob, of a single token with this ratio and advantage."""
    old_logprobs_NT = torch.full((1, 1), -1.5, dtype=torch.float64)
    logprobs_NT = (old_logprobs_NT + math.log(ratio)).requires_grad_()
    advantages_N = torch.tensor([advantage], dtype=torch.float64)
    mask_NT = torch.ones(1, 1, dtype=torch.bool)
    loss = policy_loss(logprobs_NT, old_logprobs_NT, advantages_N, mask_NT, denominator=1, **settings)
    loss.value.backward()
    assert logprobs_NT.grad is not None
    return loss.value.item(), logprobs_NT.grad.item(), loss


def make_batch(seed: int = 0, num_rows: int = 6) -> dict[str, Any]:
    """Rows of 0, 1, ... num_rows - 1 tokens; a fair share of the ratios outside the clip range."""
    generator = torch.Generator().manual_seed(seed)
    shape = num_rows, num_rows

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    old_logprobs_NT = -normal(*shape).abs()
    return {
        "logprobs_NT": old_logprobs_NT + 0.3 * normal(*shape),
        "old_logprobs_NT": old_logprobs_NT,
        "advantages": normal(num_rows),
        "mask_NT": torch.arange(num_rows) < torch.arange(num_rows)[:, None],
        "ref_logprobs_NT": old_logprobs_NT + 0.3 * normal(*shape),
        "entropy_NT": normal(*shape).abs(),
    }


def step_denominator(mask_NT: Tensor, aggregation: Aggregation) -> float:
    return loss_denominator(len(mask_NT), int(mask_NT.sum()), MAX_COMPLETION_TOKENS, aggregation)


def value_and_gradient(batch: dict[str, Any], **settings: Any) -> tuple[Tensor, Tensor, Loss]:
    logprobs_NT = batch["logprobs_NT"].clone().requires_grad_()
    loss = policy_loss(**{**batch, "logprobs_NT": logprobs_NT}, **settings)
    loss.value.backward()
    assert logprobs_NT.grad is not None
    return loss.value.detach(), logprobs_NT.grad, loss


# The surrogate


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "gradient", "clipped"),
    [
        # inside the range, A > 0 and A < 0: -r A, with gradient -r A
        (1.1, 2.0, -1.1 * 2.0, -1.1 * 2.0, ""),
        (0.9, -2.0, 0.9 * 2.0, 0.9 * 2.0, ""),
        # too likely and good, too unlikely and bad: the clip holds
        (1.5, 2.0, -1.3 * 2.0, 0.0, "high"),
        (0.5, -2.0, 0.8 * 2.0, 0.0, "low"),
        # outside the range on the side where the min keeps the ratio: the way back stays open
        (1.5, -2.0, 1.5 * 2.0, 1.5 * 2.0, ""),
        (0.5, 2.0, -0.5 * 2.0, -0.5 * 2.0, ""),
        (1.5, 0.0, 0.0, 0.0, ""),
    ],
)
def test_branches_of_the_clip(ratio: float, advantage: float, value: float, gradient: float, clipped: str) -> None:
    actual_value, actual_gradient, loss = one_token(ratio, advantage, clip_low=0.2, clip_high=0.3)
    assert actual_value == pytest.approx(value, abs=1e-12)
    assert actual_gradient == pytest.approx(gradient, abs=1e-12)
    assert int(loss.statistics["clipped_low"]) == (clipped == "low")
    assert int(loss.statistics["clipped_high"]) == (clipped == "high")


def test_on_policy_gradient_is_that_of_reinforce() -> None:
    value, gradient, _ = one_token(1.0, 0.7)
    assert (value, gradient) == (-0.7, -0.7)


def test_against_the_textbook_formula() -> None:
    batch = make_batch()
    ratio_NT = (batch["logprobs_NT"] - batch["old_logprobs_NT"]).exp()
    advantages_N1 = batch["advantages"][:, None]
    surrogate_NT = torch.minimum(ratio_NT * advantages_N1, ratio_NT.clamp(1 - 0.2, 1 + 0.28) * advantages_N1)
    value, _, loss = value_and_gradient(batch, denominator=15, aggregation="token", clip_low=0.2, clip_high=0.28)
    torch.testing.assert_close(value, -surrogate_NT[batch["mask_NT"]].sum() / 15)
    assert loss.statistics["clipped_low"] > 0
    assert loss.statistics["clipped_high"] > 0


@every_aggregation
@pytest.mark.parametrize("kl_coefficient", [0.0, 0.3])
def test_gradcheck(aggregation: Aggregation, kl_coefficient: float) -> None:
    batch = make_batch()

    def value(logprobs_NT: Tensor) -> Tensor:
        inputs = {**batch, "logprobs_NT": logprobs_NT}
        return policy_loss(**inputs, denominator=3.0, aggregation=aggregation, kl_coefficient=kl_coefficient).value

    assert torch.autograd.gradcheck(value, batch["logprobs_NT"].clone().requires_grad_())


def test_the_gradient_goes_to_the_learning_policy_only() -> None:
    batch = make_batch()
    for name in ("logprobs_NT", "old_logprobs_NT", "advantages", "ref_logprobs_NT", "entropy_NT"):
        batch[name].requires_grad_()
    loss = policy_loss(**batch, denominator=1, kl_coefficient=0.1)
    loss.value.backward()
    assert [name for name, tensor in batch.items() if tensor.grad is not None] == ["logprobs_NT"]
    assert not any(tensor.requires_grad for tensor in loss.statistics.values())


def test_overflowing_ratios() -> None:
    logprobs_NT = torch.tensor([[1e4], [1e4], [-1e4], [-1e4]], requires_grad=True)
    advantages_N = torch.tensor([0.0, 1.0, -1.0, 1.0])
    loss = policy_loss(logprobs_NT, torch.zeros(4, 1), advantages_N, torch.ones(4, 1), denominator=1)
    loss.value.backward()
    # no advantage: 0; clipped at 1.2; clipped at 0.8; a ratio of 0
    assert loss.value.item() == pytest.approx(0 - 1.2 + 0.8 - 0)
    assert torch.equal(torch.zeros(4, 1), logprobs_NT.grad if logprobs_NT.grad is not None else torch.empty(0))
    # an infinite ratio that counts is not hidden
    assert policy_loss(
        logprobs_NT[:1], torch.zeros(1, 1), -torch.ones(1), torch.ones(1, 1), denominator=1
    ).value.isinf()
    missing = torch.tensor([[math.nan]])
    assert policy_loss(missing, torch.zeros(1, 1), torch.ones(1), torch.ones(1, 1), denominator=1).value.isnan()


# Aggregation and denominators


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("sequence", -(3.0 * 3 / 3 + 5.0 * 1 / 1) / 3),
        ("token", -(3.0 * 3 + 5.0 * 1) / (3 + 1)),
        ("constant", -(3.0 * 3 + 5.0 * 1) / (3 * MAX_COMPLETION_TOKENS)),
    ],
)
def test_aggregation(aggregation: Aggregation, expected: float) -> None:
    """Three rows of 3, 1 and 0 tokens with advantages 3, 5 and 7, on policy: a token's loss is minus the advantage."""
    mask_NT = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]])
    logprobs_NT = torch.full((3, 3), -1.0)
    denominator = step_denominator(mask_NT, aggregation)
    loss = policy_loss(
        logprobs_NT,
        logprobs_NT,
        torch.tensor([3.0, 5.0, 7.0]),
        mask_NT,
        denominator=denominator,
        aggregation=aggregation,
    )
    assert loss.value.item() == pytest.approx(expected)


def test_denominators() -> None:
    assert [loss_denominator(4, 50, 20, aggregation) for aggregation in AGGREGATIONS] == [4.0, 50.0, 4.0 * 20]
    assert [loss_denominator(0, 0, 20, aggregation) for aggregation in AGGREGATIONS] == [1.0] * 3


@every_aggregation
def test_a_constant_on_all_advantages_rewards_being_short_under_sequence_alone(aggregation: Aggregation) -> None:
    """(18a) of docs/method.md, on all responses of a policy that ends after each token with one probability, and after three."""
    logit = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    ends, goes_on = logit.sigmoid().log(), (-logit).sigmoid().log()
    nothing = torch.zeros_like(logit)
    logprobs_NT = torch.stack(
        [torch.stack(row) for row in ([ends] + [nothing] * 2, [goes_on, ends, nothing], [goes_on] * 2 + [nothing])]
    )
    mask_NT = torch.ones(3, 3).tril()
    drawn_N = logprobs_NT.sum(1).exp()
    (of_brevity,) = torch.autograd.grad((drawn_N / mask_NT.sum(1)).sum(), logit, retain_graph=True)

    constants_N = 2.0 * drawn_N  # each response as often as it is drawn
    loss = policy_loss(logprobs_NT, logprobs_NT, constants_N, mask_NT, denominator=1, aggregation=aggregation)
    (step,) = torch.autograd.grad(-loss.value, logit)
    torch.testing.assert_close(step, 2 * of_brevity if aggregation == "sequence" else torch.zeros_like(step))


@every_aggregation
def test_the_gradient_is_the_same_for_every_split(aggregation: Aggregation) -> None:
    batch = make_batch(num_rows=7)
    settings = {"aggregation": aggregation, "kl_coefficient": 0.2}
    settings["denominator"] = step_denominator(batch["mask_NT"], aggregation)
    value, gradient_NT, whole = value_and_gradient(batch, **settings)
    expected = merge_statistics([whole.statistics])
    for sizes in ([1] * 7, [3, 4], [5, 1, 1], [1, 6]):
        rows = {name: tensor.split(sizes) for name, tensor in batch.items()}
        parts = [
            value_and_gradient({name: tensors[k] for name, tensors in rows.items()}, **settings)
            for k in range(len(sizes))
        ]
        torch.testing.assert_close(sum(part[0] for part in parts), value)
        torch.testing.assert_close(torch.cat([part[1] for part in parts]), gradient_NT)
        assert merge_statistics([part[2].statistics for part in parts]) == pytest.approx(expected)


# Padding


@every_aggregation
def test_poisoned_padding_does_not_leak(aggregation: Aggregation) -> None:
    clean = make_batch()
    settings: dict[str, Any] = {"aggregation": aggregation, "denominator": 5, "kl_coefficient": 0.2}
    value, gradient_NT, loss = value_and_gradient(clean, **settings)
    for poison in (math.nan, math.inf, -math.inf, 1e308):
        poisoned = {
            name: torch.where(clean["mask_NT"], tensor, poison)
            if name.endswith("logprobs_NT") or name == "entropy_NT"
            else tensor
            for name, tensor in clean.items()
        }
        poisoned_value, poisoned_gradient_NT, poisoned_loss = value_and_gradient(poisoned, **settings)
        assert torch.equal(poisoned_value, value)
        assert torch.equal(poisoned_gradient_NT, gradient_NT)
        assert merge_statistics([poisoned_loss.statistics]) == merge_statistics([loss.statistics])
    assert torch.equal(gradient_NT[~clean["mask_NT"]], torch.zeros_like(gradient_NT[~clean["mask_NT"]]))


@every_aggregation
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (2, 3)])
def test_no_tokens_no_loss(aggregation: Aggregation, shape: tuple[int, int]) -> None:
    logprobs_NT = torch.full(shape, math.nan, requires_grad=True)
    loss = policy_loss(
        logprobs_NT,
        logprobs_NT.detach(),
        torch.ones(shape[0]),
        torch.zeros(shape, dtype=torch.bool),
        denominator=1,
        aggregation=aggregation,
    )
    loss.value.backward()
    assert loss.value.item() == 0
    assert logprobs_NT.grad is not None
    assert torch.equal(logprobs_NT.grad, torch.zeros(shape))
    merged = merge_statistics([loss.statistics])
    assert merged == merge_statistics([])
    assert merged == {
        "clip_fraction_low": 0,
        "clip_fraction_high": 0,
        "kl_old": 0,
        "ratio_min": 1,
        "ratio_max": 1,
        "num_tokens": 0,
    }


# The KL term


@pytest.mark.parametrize("difference", [-0.7, 0.0, 0.4])
def test_kl_term_is_k3(difference: float) -> None:
    ref_logprobs_NT = torch.full((1, 1), -1.5 + difference, dtype=torch.float64)
    value, gradient, loss = one_token(1.0, 2.0, kl_coefficient=0.25, ref_logprobs_NT=ref_logprobs_NT)
    k3 = math.exp(difference) - difference - 1
    assert value == pytest.approx(-2.0 + 0.25 * k3, abs=1e-12)
    assert gradient == pytest.approx(-2.0 + 0.25 * (1 - math.exp(difference)), abs=1e-12)
    assert float(loss.statistics["kl_ref"]) == pytest.approx(k3, abs=1e-12)


def test_kl_is_a_penalty_also_where_the_clip_holds_and_the_advantage_is_zero() -> None:
    ref_logprobs_NT = torch.full((1, 1), -1.5, dtype=torch.float64)
    for ratio, advantage in [(2.0, 1.0), (2.0, 0.0)]:
        _, gradient, _ = one_token(ratio, advantage, kl_coefficient=0.5, ref_logprobs_NT=ref_logprobs_NT)
        assert gradient == pytest.approx(0.5 * (1 - 1 / ratio), abs=1e-12)


def test_without_a_coefficient_the_reference_is_only_measured() -> None:
    ref_logprobs_NT = torch.full((1, 1), 3.0, dtype=torch.float64)
    value, gradient, loss = one_token(1.0, 2.0, ref_logprobs_NT=ref_logprobs_NT)
    assert (value, gradient) == (-2.0, -2.0)
    assert loss.statistics["kl_ref"] > 0


def test_k3_does_not_cancel() -> None:
    _, _, loss = one_token(math.exp(1e-7), 1.0)
    assert float(loss.statistics["kl_old"]) == pytest.approx(1e-14 / 2, rel=1e-3, abs=0)


# Statistics


def test_statistics_are_averages_over_the_tokens_of_the_step() -> None:
    ratios = [[1.5, 0.5, 1.0], [0.5, 1.5, 0.25]]
    logprobs_NT = torch.tensor(ratios, dtype=torch.float64).log()
    mask_NT = torch.tensor([[True, True, True], [True, True, False]])
    entropy_NT = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, math.nan]])
    losses = [
        policy_loss(
            logprobs_NT[row],
            torch.zeros(1, 3).double(),
            advantages_N,
            mask_NT[row],
            denominator=1,
            entropy_NT=entropy_NT[row],
        )
        for row, advantages_N in [(slice(0, 1), torch.tensor([1.0])), (slice(1, 2), torch.tensor([-1.0]))]
    ]
    merged = merge_statistics([loss.statistics for loss in losses])
    assert merged == pytest.approx(
        {
            "clip_fraction_low": 1 / 5,
            "clip_fraction_high": 1 / 5,
            "kl_old": sum(r - 1 - math.log(r) for r in (1.5, 0.5, 1.0, 0.5, 1.5)) / 5,
            "entropy": (1 + 2 + 3 + 4 + 5) / 5,
            "ratio_min": 0.5,
            "ratio_max": 1.5,
            "num_tokens": 5,
        }
    )


def test_statistics_of_micro_batches_must_agree() -> None:
    batch = make_batch()
    with_entropy = policy_loss(**batch, denominator=1).statistics
    without = policy_loss(**{**batch, "entropy_NT": None}, denominator=1).statistics
    with pytest.raises(ValueError, match=r"some lack one of .*'entropy'"):
        merge_statistics([with_entropy, without])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    logprobs_NT = torch.full((1, 2), -1.0, dtype=dtype, requires_grad=True)
    loss = policy_loss(
        logprobs_NT, torch.full((1, 2), -1.0, dtype=dtype), torch.ones(1), torch.ones(1, 2), denominator=1
    )
    loss.value.backward()
    assert loss.value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert logprobs_NT.grad is not None
    assert logprobs_NT.grad.tolist() == [[-0.5, -0.5]]


# Refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aggregation": "mean"}, "aggregation must be one of sequence, token, constant; not 'mean'"),
        ({"denominator": 0}, "denominator must be a finite positive number; not 0"),
        ({"denominator": math.nan}, "denominator must be a finite positive number; not nan"),
        ({"clip_low": -0.1}, "clip_low must be finite and not negative; not -0.1"),
        ({"clip_high": math.inf}, "clip_high must be finite and not negative; not inf"),
        ({"kl_coefficient": -1.0}, "kl_coefficient must be finite and not negative; not -1.0"),
        ({"kl_coefficient": 0.1, "ref_logprobs_NT": None}, "kl_coefficient is 0.1, which needs ref_logprobs_NT"),
        ({"logprobs_NT": torch.zeros(6)}, r"logprobs_NT must have the shape \(N, T\), not \(6,\)"),
        ({"old_logprobs_NT": torch.zeros(6, 5)}, r"old_logprobs_NT has shape \(6, 5\).*expected \(6, 6\)"),
        ({"advantages": torch.zeros(6, 1)}, r"advantages has shape \(6, 1\).*expected \(6, 6\)"),
        ({"mask_NT": torch.zeros(1, 6)}, r"mask_NT has shape \(1, 6\)"),
        ({"ref_logprobs_NT": torch.zeros(6)}, r"ref_logprobs_NT has shape \(6,\)"),
        ({"entropy_NT": torch.zeros(1, 1)}, r"entropy_NT has shape \(1, 1\)"),
    ],
)
def test_refusals(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policy_loss(**{**make_batch(), "denominator": 1, **settings})


def test_an_unknown_aggregation_has_no_denominator() -> None:
    with pytest.raises(ValueError, match="aggregation must be one of"):
        loss_denominator(1, 1, 1, "mean")  # pyright: ignore[reportArgumentType]
