import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lampo.rewards import RougeLReward, VerifierReward, reasoning_trace, rouge_l, rouge_tokens, score
from lampo.types import Problem, Rollout
from lampo.verify import NumericOptions, judge

ROUGE_L = sys.modules["lampo.rewards.rouge_l"]  # the package has the function under the module's name
PROBLEM = Problem("0", "7+5=", "12", reference="7+5=12")


def rollout(text):
    one = torch.ones(1)
    return Rollout(one.long(), one.long(), -one, finished=True, text=text)


def rewards_of(texts, *others, problem=PROBLEM):
    rollouts = [rollout(text) for text in texts]
    return score(
        problem,
        rollouts,
        [judge(NumericOptions(), text, problem.answer) for text in texts],
        [VerifierReward(), *others],
        64,
    ).rewards_G


def common_length(a, b):
    """Longest common subsequence by its definition."""
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return 1 + common_length(a[1:], b[1:])
    return max(common_length(a[1:], b), common_length(a, b[1:]))


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=7), st.lists(st.sampled_from("abc"), max_size=7))
def test_rouge_l_by_its_definition(candidate, reference):
    common = common_length(candidate, reference)
    if common == 0:
        assert rouge_l(candidate, reference) == 0.0
    else:
        precision, recall = common / len(candidate), common / len(reference)
        assert rouge_l(candidate, reference) == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-15)
    assert rouge_l(candidate, reference) == rouge_l(reference, candidate)
    assert rouge_l(candidate, candidate) == (1.0 if candidate else 0.0)


def test_rouge_l_of_nothing_is_zero():
    assert [rouge_l([], []), rouge_l(["a"], []), rouge_l([], ["a"]), rouge_l(["a"], ["b"])] == [0.0] * 4


def test_rouge_tokens():
    assert rouge_tokens("x_1 = 10,\n X") == ["x", "_", "1", "=", "1", "0", ",", "X"]
    assert rouge_tokens("naïve 日本 ½ 😀") == ["naïve", "日本", "½", "😀"]
    assert rouge_tokens(" \n\t") == []


@pytest.mark.parametrize(
    ("text", "trace"),
    [
        ("<think>a</think>b", "a"),
        ("x<think>a</think>b", "a"),
        ("a</think>b", "a"),
        ("<think>a", "a"),
        ("x<think>a\nb", "a\nb"),
        ("b", ""),
        ("", ""),
        ("<think></think>b", ""),
        ("<think>a</think>b<think>c</think>d", "a\nc"),
        ("a</think>b<think>c", "a\nc"),
    ],
)
def test_reasoning_trace(text, trace):
    assert reasoning_trace(text) == trace


def test_total_is_correctness_plus_coefficient_times_rouge():
    right, wrong = rewards_of(["7+5=12", "7+5=1"], RougeLReward(weight=0.5))
    assert (right.parts, right.total) == ({"verifier": 1.0, "rouge_l": 1.0}, 1.0 + 0.5 * 1.0)
    assert wrong.parts == {"verifier": 0.0, "rouge_l": 2 * 5 / (5 + 6)}
    assert wrong.total == 0.5 * (2 * 5 / (5 + 6))


def test_unknown_is_masked_and_not_zero():
    verdict = judge(NumericOptions(), "12", "twelve")
    group = score(Problem("0", "?", "twelve", "12"), [rollout("12")], [verdict], [VerifierReward(), RougeLReward()], 64)
    (reward,) = group.rewards_G
    assert group.verdicts_G[0].status == "unknown"
    assert reward.parts["verifier"] is None
    assert not reward.valid
    assert math.isnan(reward.total)


def test_rouge_is_never_computed_at_coefficient_zero(monkeypatch):
    monkeypatch.setattr(ROUGE_L, "rouge_tokens", None)
    assert [reward.parts for reward in rewards_of(["12", "13"], RougeLReward(weight=0))] == [
        {"verifier": 1.0},
        {"verifier": 0.0},
    ]


def test_without_reference_rouge_adds_nothing():
    (reward,) = rewards_of(["12"], RougeLReward(weight=0.5), problem=Problem("0", "7+5=", "12"))
    assert (reward.parts["rouge_l"], reward.total) == (None, 1.0)


def test_reference_tokens_are_computed_once(monkeypatch):
    seen = []
    monkeypatch.setattr(ROUGE_L, "rouge_tokens", lambda text: seen.append(text) or list(text))
    rewards_of(["1", "2", "3"], RougeLReward())
    assert seen == ["7+5=12", "1", "2", "3"]


def test_scope_chooses_the_compared_text():
    text = "<think>7+5=12</think>The answer is twelve: 12"
    (response,) = rewards_of([text], RougeLReward())
    (trace,) = rewards_of([text], RougeLReward(scope="trace"))
    (no_trace,) = rewards_of(["7+5=12"], RougeLReward(scope="trace"))
    assert 0 < response.parts["rouge_l"] < 1
    assert (trace.parts["rouge_l"], trace.total) == (1.0, 2.0)
    assert (no_trace.parts["rouge_l"], no_trace.total) == (0.0, 1.0)


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_weights_that_make_no_sense_are_refused(weight):
    with pytest.raises(ValueError, match="weight"):
        RougeLReward(weight=weight)
