"""Own advantages and own losses: python:module.function."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from lampo.algo.estimate import estimate_advantages
from lampo.algo.objective import policy_loss
from lampo.algo.registry import AdvantageOptions, OwnEstimatorOptions
from lampo.types import Group, LampoError, Problem, Reward, Rollout, Verdict

OWN = "python:tests.helpers.own_functions"


def options(name: str, **settings: Any) -> Any:
    return TypeAdapter(AdvantageOptions).validate_python({"name": f"{OWN}.{name}", **settings})


def group(*totals: float) -> Group:
    rollouts = tuple(
        Rollout(torch.tensor([1]), torch.arange(1 + member), -torch.ones(1 + member), True, "")
        for member in range(len(totals))
    )
    rewards = tuple(Reward({}, total) for total in totals)
    return Group(Problem("0", "?", ""), rollouts, (Verdict("wrong"),) * len(totals), rewards)


NAN = float("nan")


def test_it_gets_what_it_names_and_its_own_options() -> None:
    groups = [group(1.0, 0.0, NAN), group(0.5, 0.5)]
    estimate = estimate_advantages(groups, options("above_mean", power=2.0))
    assert estimate.advantages_N.tolist() == [0.25, -0.25, 0.0, 0.0, 0.0]
    assert estimate.statistics["advantage/groups_without_spread"] == 0.5
    assert options("above_mean", power=2.0).title == "tests.helpers.own_functions.above_mean"


def test_its_parameters_may_have_other_names() -> None:
    assert estimate_advantages([group(1.0, 0.0)], options("plain_names")).advantages_N.tolist() == [0.5, -0.5]


def test_it_may_give_one_a_token_from_the_rollouts() -> None:
    estimate = estimate_advantages([group(1.0, 0.0)], options("by_token"))
    assert estimate.by_token_N is not None
    assert [row_T.tolist() for row_T in estimate.by_token_N] == [[1.0], [0.0, 0.0]]


def test_what_it_writes_into_its_arguments_changes_nothing_that_is_logged() -> None:
    groups = [group(1.0, 0.0), group(0.5, 0.5)]
    mine, plain = (estimate_advantages(groups, options(name)) for name in ("in_place", "plain_names"))
    assert mine.advantages_N.equal(plain.advantages_N)
    assert mine.statistics == plain.statistics


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "wrong_shape",
            r"returned a tensor \(1,\)\. It must return a tensor \(2,\), one a rollout, or \(2, 2\), one a token",
        ),
        ("not_finite", r"returned inf for rollout 0. Advantages must be finite"),
        ("shortness", r"asks for 'num_tokens', which there is not\. It may ask for: scores_N, valid_N, rollouts_N"),
        ("raises", r"failed\. KeyError: 'no such key' \(.*own_functions\.py, line"),
        ("no_such", r"has no function 'no_such'"),
    ],
)
def test_what_is_no_advantage_is_told(name: str, message: str) -> None:
    with pytest.raises(LampoError, match=message):
        estimate_advantages([group(1.0, 0.0)], options(name))


def test_an_advantage_that_averages_over_unknown_rewards_is_told_of_them() -> None:
    told = r"returned nan for rollout 0\. .* Where valid_N is False rewards_N is nan: leave those rollouts out\."
    with pytest.raises(LampoError, match=told):
        estimate_advantages([group(1.0, 0.0, NAN)], options("plain_names"))


def test_options_survive_writing_and_reading() -> None:
    chosen = options("above_mean", power=2.0)
    assert isinstance(chosen, OwnEstimatorOptions)
    assert TypeAdapter(AdvantageOptions).validate_python(chosen.model_dump()) == chosen


@pytest.mark.parametrize("surrogate", [f"{OWN}.reinforce", pytest.param(None, id="function")])
def test_an_own_surrogate(surrogate: Any) -> None:
    from tests.helpers.own_functions import reinforce

    logprobs_NT = torch.tensor([[0.0, 0.5]]).requires_grad_()
    old_NT, mask_NT = torch.zeros(1, 2), torch.tensor([[True, True]])
    loss = policy_loss(
        logprobs_NT,
        old_NT,
        torch.tensor([2.0]),
        mask_NT,
        denominator=1,
        surrogate=surrogate or reinforce,
        clip_high=0.3,
    )
    assert loss.value.item() == pytest.approx(-2 * (1 + 1.3) / 2)
    loss.value.backward()
    assert logprobs_NT.grad is not None
    assert logprobs_NT.grad.tolist() == [[-1.0, 0.0]]  # the second is clipped


def test_a_surrogate_that_is_none_is_told() -> None:
    zeros = torch.zeros(1, 2)
    with pytest.raises(LampoError, match=r"returned a tensor \(1, 1\)|returned a str"):
        policy_loss(zeros, zeros, torch.ones(1), torch.ones(1, 2), denominator=1, surrogate=lambda tokens: "no")
    with pytest.raises(LampoError, match=r"The surrogate .*raises failed\. KeyError"):
        policy_loss(zeros, zeros, torch.ones(1), torch.ones(1, 2), denominator=1, surrogate=f"{OWN}.raises")
