"""RLPR: where an answer begins, the likelihood reward by its definition, and the filter with its moving average."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from lampo.algo.estimate import estimate_advantages
from lampo.algo.registry import GrpoOptions
from lampo.config.load import parse_config
from lampo.config.schema import SamplingOptions, SpreadFilterOptions
from lampo.learner.answer_likelihood import answer_begins, answer_likelihoods, refuse_unfit_answers, with_answer
from lampo.learner.batch import collate
from lampo.learner.spread_filter import SpreadFilter, reward_std
from lampo.model.policy import Policy
from lampo.rewards import LikelihoodReward, RougeLReward, VerifierReward, score
from lampo.types import Group, LampoError, Likelihood, Problem, Reward, Rollout, Verdict

PROBLEM = Problem("0", "7+5=", "12", reference="7+5=12")


@pytest.mark.parametrize(
    ("text", "extracted", "answer", "before"),
    [
        (r"So \boxed{13}.", "13", "12", r"So \boxed{"),
        ("12 and 13, so 13", "13", "12", "12 and 13, so "),
        ("it is B. Because", "B", "C", "it is "),  # not the B of Because
        ("x13", "13", "12", "x"),
        ("no number but 12", None, "12", "no number but "),
        ("112", None, "12", "112"),  # the right answer must stand alone
        ("nothing", "13", "12", "nothing"),
        ("", None, "12", ""),
        ("12", "", "12", ""),
    ],
)
def test_where_the_answer_begins(text: str, extracted: str | None, answer: str, before: str) -> None:
    assert text[: answer_begins(text, extracted, answer)] == before


def rollout(policy: Policy, text: str, *, finished: bool = True) -> Rollout:
    ids = torch.tensor([*policy.encode(text), *([policy.end_ids[0]] if finished else [])], dtype=torch.int64)
    return Rollout(torch.tensor(policy.encode("7+5=")), ids, torch.full((len(ids),), -1.0), finished, text)


def mean_probability(policy: Policy, before: str, answer: str) -> float:
    """The definition, one forward pass for the whole text."""
    ids, length = policy.encode(before + answer), len(policy.encode(answer))
    with torch.no_grad():
        probabilities = policy.model(torch.tensor([ids])).logits[0].float().softmax(-1)
    chosen = [float(probabilities[len(ids) - length + t - 1, ids[len(ids) - length + t]]) for t in range(length)]
    return sum(chosen) / length


@pytest.mark.parametrize("tokens_per_microbatch", [10_000, 20])
def test_the_reward_by_its_definition(policy: Policy, tokens_per_microbatch: int) -> None:
    texts, extracted = ["0+7+5=12\n=12", "0+7+5=13\n=13", "+++", ""], ["12", "13", None, None]
    problems = [PROBLEM, Problem("1", "1+1=", "2")]
    rollouts = [[rollout(policy, text) for text in texts], [rollout(policy, "1+1=2", finished=False)]]
    verdicts = [[Verdict("unknown", extracted=given) for given in extracted], [Verdict("right", extracted="2")]]
    prompts = [torch.tensor(policy.encode(problem.prompt)) for problem in problems]
    answered = answer_likelihoods(policy, problems, prompts, rollouts, verdicts, tokens_per_microbatch)
    likelihoods = [[likelihood.value for likelihood in answered_G] for answered_G in answered]
    assert [likelihood.num_tokens for likelihood in answered[0]] == [len("0+7+5=12\n="), len("0+7+5=13\n="), 3, 0]
    without = mean_probability(policy, "7+5=", "12")
    befores = ["7+5=0+7+5=12\n=", "7+5=0+7+5=13\n=", "7+5=+++", "7+5="]
    expected = [min(1.0, max(0.0, mean_probability(policy, before, "12") - without)) for before in befores]
    assert likelihoods[0] == pytest.approx(expected, abs=1e-5)
    assert likelihoods[0][3] == pytest.approx(0, abs=1e-6)  # a response without a word changes nothing
    gain = mean_probability(policy, "1+1=1+1=", "2") - mean_probability(policy, "1+1=", "2")
    assert likelihoods[1] == pytest.approx([min(1.0, max(0.0, gain))], abs=1e-5)
    assert max(likelihoods[0]) > 0


def test_credit_for_the_reasoning_alone(policy: Policy) -> None:
    rollouts = [rollout(policy, text) for text in ("7+5=12", "=13", "12")]
    verdicts = [Verdict("wrong")] * 3
    likelihoods = [Likelihood(0.75, 4), Likelihood(0.5, 1), Likelihood(0.0, 0)]
    both = [
        estimate_advantages(
            [score(PROBLEM, rollouts, verdicts, [LikelihoodReward(credit=credit)], 64, likelihoods)],
            GrpoOptions(name="grpo"),
        )
        for credit in ("response", "reasoning")
    ]
    assert both[0].by_token_N is None
    assert both[1].by_token_N is not None
    assert both[1].advantages_N.equal(both[0].advantages_N)
    a, b, _ = both[0].advantages_N.tolist()
    expected = [[a] * 4 + [0] * 3, [b, 0, 0, 0], [0, 0, 0]]  # the answer and the end have none
    assert [row_T.tolist() for row_T in both[1].by_token_N] == expected


class Words:
    """A tokenizer of words with the space before them, as byte-level BPE has it."""

    end_ids = (0,)
    words = ("", "it", " is", " Paris", "Paris", " Rome", "ris")

    def encode(self, text: str) -> list[int]:
        ids = []
        while text:
            longest = max((word for word in self.words[1:] if text.startswith(word)), key=len)
            ids.append(self.words.index(longest))
            text = text[len(longest) :]
        return ids

    def decode(self, ids: list[int]) -> str:
        return "".join(self.words[index] for index in ids)


def test_a_token_that_reaches_over_the_boundary_goes_with_the_answer() -> None:
    ids = torch.tensor([1, 2, 3, 0])  # "it is Paris" and the end
    response = Rollout(torch.tensor([1]), ids, -torch.ones(4), True, "it is Paris")
    begin = answer_begins(response.text, "Paris", "Rome")
    assert with_answer(Words(), response, begin, "Paris") == ([1, 2], [3])  # pyright: ignore[reportArgumentType]
    whole = with_answer(Words(), response, len(response.text), "Paris")  # pyright: ignore[reportArgumentType]
    assert whole == ([1, 2, 3], [4])


def test_a_response_that_leaves_no_room_in_the_context_loses_its_end(policy: Policy) -> None:
    long = rollout(policy, "1" * (policy.context.length - 4), finished=False)
    prompt = torch.tensor(policy.encode("7+5="))
    (likelihoods,) = answer_likelihoods(policy, [PROBLEM], [prompt], [[long]], [[Verdict("wrong")]], 1000)
    assert 0 <= likelihoods[0].value <= 1


def test_answers_without_a_likelihood_are_refused_before_the_start(policy: Policy) -> None:
    refuse_unfit_answers([PROBLEM], policy, 2)
    for answer in ("", "123"):
        with pytest.raises(LampoError, match=r"problem '7' is empty or longer than sampling\.max_new_tokens=2"):
            refuse_unfit_answers([Problem("7", "?", answer)], policy, 2)


def test_likelihoods_stand_in_the_place_of_correctness_and_make_every_row_valid(policy: Policy) -> None:
    rollouts = [rollout(policy, text) for text in ("7+5=12", "7+5=13", "7+5=12")]
    verdicts = [Verdict(status) for status in ("right", "wrong", "unknown")]
    options = [VerifierReward(weight=0), LikelihoodReward(), RougeLReward(weight=0.6)]
    likelihoods = [Likelihood(value, 4) for value in (0.25, 0.5, 0.75)]
    rewards = score(PROBLEM, rollouts, verdicts, options, 64, likelihoods).rewards_G
    assert [reward.total for reward in rewards] == pytest.approx([0.25 + 0.6, 0.5 + 0.6 * 5 / 6, 0.75 + 0.6])
    assert all(reward.valid for reward in rewards)
    assert [reward.valid for reward in score(PROBLEM, rollouts, verdicts, [VerifierReward()], 64).rewards_G] == [
        True,
        True,
        False,
    ]


def group(rewards: list[float | None]) -> Group:
    one = torch.ones(1)
    return Group(
        PROBLEM,
        tuple(Rollout(one.long(), one.long(), -one, True, "") for _ in rewards),
        tuple(Verdict("unknown" if reward is None else "right") for reward in rewards),
        tuple(Reward({}, math.nan) if r is None else Reward({}, r) for r in rewards),
    )


def spread(std: float) -> Group:
    """Two rewards with this standard deviation (ddof 1)."""
    return group([0.0, std * math.sqrt(2)])


def test_the_std_is_unbiased_and_that_of_valid_rewards() -> None:
    assert reward_std(group([0.0, 1.0, None, 0.5])) == pytest.approx(math.sqrt(2 * 0.25 / 2))
    assert reward_std(spread(0.3)) == pytest.approx(0.3)
    assert reward_std(group([1.0, None])) is None


def test_the_moving_average_and_who_is_left_out(tmp_path) -> None:
    filter_ = SpreadFilter(SpreadFilterOptions(share=0.5, decay=0.9, average_from=2, filter_from=4))
    steps = [[9.0, 9.0], [0.1, 0.3], [0.2, 0.4], [0.13, 0.19], [0.12, 0.121], [1.0, 0.01]]
    averages = [0.0, 0.0, 0.0, (0.2 + 0.3) / 2]  # before steps 1 to 4: step 1 does not enter
    averages.append(0.9 * averages[3] + 0.1 * 0.16)
    averages.append(0.9 * averages[4] + 0.1 * 0.1205)
    assert 0.12 < 0.5 * averages[4] < 0.121
    left_out = [[], [], [], [], [0], [1]]
    for step, stds in enumerate(steps, start=1):
        resumed = SpreadFilter(SpreadFilterOptions(share=0.5, decay=0.9, average_from=2, filter_from=4))
        filter_.save(tmp_path)
        resumed.load(tmp_path)
        groups = [spread(std) for std in stds] + [group([1.0, None])]  # without a std: never left out, never averaged
        out, record = filter_.left_out(groups, step)
        assert (out, record) == resumed.left_out(groups, step)
        assert sorted(out) == left_out[step - 1]
        assert record["spread/least"] == pytest.approx(0.5 * averages[step - 1] if step >= 4 else 0, abs=1e-7)
        assert record["spread/groups_left_out"] == len(out) / 3


def test_groups_left_out_get_no_advantage_and_are_not_counted() -> None:
    groups = [spread(0.3), spread(0.1), spread(0.2)]
    estimate = estimate_advantages(groups, GrpoOptions(name="grpo"), left_out={1})
    assert estimate.advantages_N[2:4].eq(0).all()
    assert estimate.advantages_N[[0, 1, 4, 5]].ne(0).all()
    whole = estimate_advantages([groups[0], groups[2]], GrpoOptions(name="grpo"))
    assert estimate.advantages_N[[0, 1, 4, 5]].equal(whole.advantages_N)
    batch = collate(groups, estimate.token_advantages, keep_all=True, left_out=estimate.left_out)
    assert batch.num_rows == len(batch.rows) == 4


def test_dynamic_sampling_keeps_what_lies_in_the_range_and_never_all_or_nothing() -> None:
    def judged(right: int, wrong: int, unknown: int = 0) -> Group:
        verdicts = (Verdict("right"),) * right + (Verdict("wrong"),) * wrong + (Verdict("unknown"),) * unknown
        return replace(group([0.0] * len(verdicts)), verdicts_G=verdicts)

    groups = [judged(0, 8), judged(1, 7), judged(1, 4, 3), judged(4, 4), judged(4, 1), judged(7, 1), judged(8, 0)]
    groups.append(judged(0, 0, 8))
    narrow, wide = SamplingOptions(accuracy_range=(0.2, 0.8)), SamplingOptions()
    assert [narrow.keeps(group) for group in groups] == [False, False, True, True, True, False, False, False]
    assert [wide.keeps(group) for group in groups] == [False, True, True, True, True, True, False, False]


def test_what_belongs_to_a_method_goes_with_it() -> None:
    recipe = {
        "run": {"name": "x"},
        "method": "rlpr",
        "model": {"config": {"model_type": "qwen3"}, "characters": "0"},
        "task": {"name": "arithmetic"},
    }
    rlpr = parse_config(recipe, "a recipe")
    assert rlpr.rewarded_by(LikelihoodReward)
    assert rlpr.spread_filter == SpreadFilterOptions()
    prime = parse_config(recipe, "a recipe", ["method=prime"])
    assert (prime.rewarded_by(VerifierReward), prime.spread_filter) == (True, None)
    assert prime.sampling.accuracy_range == (0.2, 0.8)
    grpo = parse_config(recipe, "a recipe", ["method=grpo"])
    assert (grpo.sampling.resample, grpo.sampling.accuracy_range) == (0, (0.0, 1.0))
