"""Rewards as a list: its forms, the sum, and a user's own functions."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from lampo.config.load import parse_config
from lampo.rewards import AnyReward, FormatReward, PythonReward, Responses, RewardOptions, VerifierReward, add_up
from lampo.types import LampoError, Problem, Verdict

OWN = "tests.helpers.own_functions"
RECIPE = {
    "run": {"name": "x"},
    "model": {"config": {"model_type": "qwen3"}, "characters": "0"},
    "task": {"name": "arithmetic"},
}


def rewards_of(rewards: Any, *settings: str) -> list[RewardOptions]:
    written = RECIPE if rewards is None else RECIPE | {"rewards": rewards}
    return parse_config(written, "a recipe", settings).rewards


def titles(rewards: list[RewardOptions]) -> dict[str, float]:
    return {reward.title: reward.weight for reward in rewards}


def test_a_list_is_the_whole_list_and_settings_name_its_entries() -> None:
    assert titles(rewards_of(None)) == {"verifier": 1.0}
    written = [
        {"name": "verifier"},
        {"name": "rouge_l", "weight": 0.2},
        {"name": f"python:{OWN}.shortness", "limit": 3},
    ]
    assert titles(rewards_of(written)) == {"verifier": 1.0, "rouge_l": 0.2, "shortness": 1.0}
    changed = rewards_of(
        written, "rewards.rouge_l.weight=0.4", "rewards.shortness.weight=-1", "rewards.overlong.share=0.5"
    )
    assert titles(changed) == {"verifier": 1.0, "rouge_l": 0.4, "shortness": -1.0, "overlong": 1.0}
    assert titles(rewards_of([{"name": "format", "pattern": "a"}])) == {"format": 1.0}
    assert titles(rewards_of(None, "rewards.rouge_l.weight=0.4")) == {"verifier": 1.0, "rouge_l": 0.4}
    assert titles(rewards_of(written, "rewards=[{name: verifier}]")) == {"verifier": 1.0}
    assert titles(rewards_of(written, "rewards.rouge_l=null")) == {"verifier": 1.0, "shortness": 1.0}


def test_what_is_written_comes_back() -> None:
    written = [{"name": "verifier"}, {"name": f"python:{OWN}.shortness", "limit": 3, "weight": 0.5, "label": "brief"}]
    rewards = rewards_of(written)
    dumped = [reward.model_dump() for reward in rewards]
    assert TypeAdapter(list[AnyReward]).validate_python(dumped) == rewards
    assert rewards_of(dumped) == rewards
    assert titles(rewards_of(dumped, "rewards.brief.weight=2")) == {"verifier": 1.0, "brief": 2.0}


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ({"overlong_penalty": 0.5}, r"overlong_penalty is no longer a setting: write rewards\.overlong\.weight"),
        ({"rouge_l": 0.2}, r"write rewards\.rouge_l\.weight=0\.2"),
        ({"source": "likelihood"}, r"source is no longer a setting: add the reward likelihood"),
        ([{"name": "verifier"}, {"name": "verifier"}], "two rewards are called verifier: give one of them a `label`"),
        ([{"weight": 1}], r"each reward needs a name, such as \{name: verifier\}"),
        ([{"name": "verifyer"}], r"rewards\[\d\]\.name is 'verifyer', but known are verifier, rouge_l"),
        ([{"name": "format"}], r"rewards\[\d\]\.pattern is required"),
        ([{"name": "format", "pattern": "("}], "is no regular expression"),
        (
            [{"name": "rouge_l", "wieght": 1}],
            r"rewards\[\d\]\.wieght is not a setting\. Did you mean rewards\[\d\]\.weight",
        ),
        ([], "rewards"),
    ],
)
def test_mistakes_are_told_with_the_new_spelling(rewards: Any, message: str) -> None:
    with pytest.raises(LampoError, match=message):
        rewards_of(rewards)


def responses(*texts: str, verdict: Verdict | None = None) -> Responses:
    problem = Problem("p", "2+2=", "4", fields={"level": 7})
    verdicts = [verdict or Verdict("right")] * len(texts)
    return Responses(problem, texts, verdicts, [len(text) for text in texts], 100)


def test_the_total_is_the_weighted_sum_and_each_part_is_kept() -> None:
    rewards = [
        VerifierReward(),
        FormatReward(pattern="[0-9]+", weight=0.5),
        PythonReward(function=f"{OWN}.closeness", weight=2.0),
    ]
    parts_G, totals_G = add_up(rewards, responses("4", "5"))
    assert parts_G[1] == {"verifier": 1.0, "format": 1.0, "closeness": 0.9}
    assert totals_G == pytest.approx([1 + 0.5 + 2, 1 + 0.5 + 2 * 0.9])


def test_unknown_is_left_out_whoever_says_it() -> None:
    parts_G, totals_G = add_up([VerifierReward(), PythonReward(function=f"{OWN}.unknown")], responses("4"))
    assert (parts_G, totals_G[0] != totals_G[0]) == ([{"verifier": 1.0, "unknown": None}], True)
    _, totals_G = add_up([VerifierReward(), PythonReward(function=f"{OWN}.unknown", weight=0)], responses("4"))
    assert totals_G == [1.0]


def test_a_function_gets_the_columns_that_it_names() -> None:
    assert PythonReward(function=f"{OWN}.shortness").values(responses("4", "5")) == [7.0, 7.0]
    assert PythonReward(function=f"{OWN}.lengths", batch=True).values(responses("4", "5,5")) == [1.0, 3.0]


@pytest.mark.parametrize(
    ("name", "batch", "message"),
    [
        ("text", False, "returned 'good'. It must return a number, or None for unknown"),
        ("text", True, r"returned 'good'\. With `batch` it must return a list of 1 numbers"),
        ("raises", False, r"failed\. KeyError: 'no such key' \(.*own_functions\.py, line"),
        ("no_number", False, r"returned nan\. It must return a finite number, or None for unknown"),
        ("leaves", False, r"failed\. SystemExit: 3 \(.*own_functions\.py, line"),
        (
            "asks",
            False,
            r"asks for 'unit', which there is not\. It may ask for: prompt, .*level.* Or give it a default",
        ),
        ("takes_one", False, r"failed\. TypeError: takes_one\(\) takes 1 .* given \(.*own_functions\.py, line \d+\)"),
    ],
)
def test_what_is_no_reward_is_told(name: str, batch: bool, message: str) -> None:
    with pytest.raises(LampoError, match=message):
        PythonReward(function=f"{OWN}.{name}", batch=batch).values(responses("4"))


def test_a_total_that_cannot_be_computed_with_is_refused() -> None:
    rewards = [VerifierReward(), PythonReward(function=f"{OWN}.huge")]
    said = r"problem 'p' come to 1e\+300, which is too large for float32: verifier 1, huge 1e\+300\. Bound them"
    with pytest.raises(LampoError, match=said):
        add_up(rewards, responses("4"))


def test_a_graded_verdict_is_worth_its_score() -> None:
    graded = Verdict("wrong", score=0.7, graded=True)
    assert add_up([VerifierReward()], responses("4", verdict=graded))[1] == [0.7]
    assert add_up([VerifierReward()], responses("4", verdict=Verdict("wrong", score=0.7)))[1] == [0.0]


def test_format_wants_the_whole_response() -> None:
    said = responses("<think>a\nb</think> 4 ", "x<think>a</think>4")
    assert FormatReward(pattern="<think>.+</think>.+").values(said) == [1.0, 0.0]
    assert FormatReward(pattern=".*<think>.+</think>.+").values(said) == [1.0, 1.0]


# Made-up errors of the verifier


def rewarded(reward: VerifierReward, status: str, answer: str, problem: str = "p") -> float | None:
    said = Responses(Problem(problem, "?", "4"), [f"it is {answer}"], [Verdict(status, answer)], [1], 9)  # pyright: ignore
    return reward.values(said)[0]


def test_a_share_of_wrong_answers_is_rewarded_and_always_the_same_ones() -> None:
    noisy = VerifierReward(false_positives=0.4)
    said = [rewarded(noisy, "wrong", str(number), f"p{number % 50}") for number in range(2000)]
    assert sum(value or 0 for value in said) / 2000 == pytest.approx(0.4, abs=0.04)
    assert said == [rewarded(noisy, "wrong", str(number), f"p{number % 50}") for number in range(2000)]
    assert {rewarded(noisy, "right", str(number)) for number in range(50)} == {1.0}
    assert rewarded(noisy, "unknown", "4") is None
    assert {rewarded(VerifierReward(false_positives=1.0), "wrong", str(number)) for number in range(50)} == {1.0}
    assert {rewarded(VerifierReward(false_negatives=1.0), "right", str(number)) for number in range(50)} == {0.0}


def test_persistent_errors_are_those_of_the_answer_and_independent_ones_of_the_response() -> None:
    def judged(errors: str) -> set[float | None]:
        reward = VerifierReward(false_positives=0.5, errors=errors)  # pyright: ignore
        texts = [f"{working} so 5" for working in range(40)]
        verdicts = [Verdict("wrong", "5")] * 40
        return set(reward.values(Responses(Problem("p", "?", "4"), texts, verdicts, [1] * 40, 9)))

    assert len(judged("persistent")) == 1
    assert judged("independent") == {0.0, 1.0}
