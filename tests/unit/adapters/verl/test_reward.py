"""compute_score as verl calls it: one response, in a coroutine. No verl needed."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from lampo import LampoError
from lampo.adapters.verl.reward import compute_score
from lampo.adapters.verl.unknown import UNKNOWN


def score(text: str, answer: str = "12", info: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    return asyncio.run(compute_score("some/data", text, answer, info, **settings))


def hangs(completion: str, answer: str) -> bool:
    while completion == "hang":
        time.sleep(0.1)
    return completion == answer


def brevity(completion: str, answer: str, *, unit: str, limit: int = 4) -> float | None:
    return None if unit == "?" else float(len(completion) <= limit)


HANGS = {"name": f"python:{__name__}.hangs", "timeout_s": 0.5}


def test_a_verifier_by_its_name() -> None:
    right = score("So 7+5=12", verifier="numeric")
    texts = {"verdict": "right", "detail": "", "row": "", "absent": ""}
    assert right == {"score": 1.0, "acc": 1.0, "unknown": 0.0, "pred": "12", "reward/verifier": 1.0} | texts
    assert score("So 7+5=13", verifier="numeric")["score"] == 0.0


def test_a_row_says_who_judges_it_and_the_command_line_wins() -> None:
    info = {"verifier": json.dumps({"name": "exact", "ignore_case": True})}
    assert score("East", "east", info)["score"] == 1.0
    assert score("East", "east", info, verifier={"name": "exact"})["score"] == 0.0


def test_a_list_of_rewards() -> None:
    rewards = [
        {"name": "verifier"},
        {"name": "rouge_l", "weight": 0.6},
        {"name": "format", "pattern": "[0-9+=]+", "weight": 0.1},
    ]
    said = score("7+5=13", info={"reference": "7+5=12"}, verifier="numeric", rewards=rewards)
    assert said["reward/rouge_l"] == pytest.approx(5 / 6)
    assert said["score"] == pytest.approx(0.6 * 5 / 6 + 0.1)
    in_the_row = {"reference": "7+5=12", "rewards": json.dumps(rewards), "verifier": '{"name": "numeric"}'}
    assert score("7+5=13", info=in_the_row) == said
    assert score("7+5=13", info=in_the_row | {"reference": ""})["reward/rouge_l"] == 0.0


def test_a_verifier_that_hangs_is_stopped_and_the_others_do_not_wait() -> None:
    async def both() -> tuple[dict[str, Any], dict[str, Any], float]:
        begin = time.perf_counter()
        slow = asyncio.create_task(compute_score("some/data", "hang", "12", verifier=HANGS))
        quick = await compute_score("some/data", "12", "12", verifier=HANGS)
        return await slow, quick, time.perf_counter() - begin

    hung, answered, seconds = asyncio.run(both())
    assert answered["score"] == 1.0
    assert hung.pop("detail")
    texts = {"verdict": "unknown", "row": "", "absent": "verifier"}
    assert hung == {"score": UNKNOWN, "acc": 0.0, "unknown": 1.0, "pred": "", "reward/verifier": 0.0} | texts
    assert seconds < 20


def test_an_own_reward_gets_the_columns_of_the_row_and_may_say_that_it_does_not_know() -> None:
    rewards = [{"name": "verifier"}, {"name": f"python:{__name__}.brevity", "weight": 0.5, "limit": 2}]
    settings: dict[str, Any] = {"verifier": "numeric", "rewards": rewards}
    assert score("12", info={"fields": '{"unit": "m"}'}, **settings)["score"] == 1.5
    assert score("12", info={"fields": '{"unit": "?"}'}, **settings)["score"] == UNKNOWN


OVERLONG = [{"name": "verifier"}, {"name": "overlong", "weight": 0.5}]


def test_a_penalty_for_length_leaves_an_unknown_response_unknown() -> None:
    """verl's manager dapo takes it off the number that says unknown."""
    length = {"num_tokens": 95, "max_new_tokens": 100}
    said = score("12", info=length, verifier="numeric", rewards=OVERLONG)
    assert said["score"] == pytest.approx(1 - 0.5 * 0.75)  # 15 of the last 20 tokens
    assert (said["length"], said["reward/overlong"]) == (95, -0.75)
    assert score("hang", info=length, verifier=HANGS, rewards=OVERLONG)["score"] == UNKNOWN


def test_every_response_has_the_same_keys() -> None:
    """verl makes arrays of them."""
    rewards = [{"name": "verifier"}, {"name": "rouge_l"}]
    keys = [list(score(text, verifier="numeric", rewards=rewards)) for text in ("12", "", "no")]
    assert keys[0] == keys[1] == keys[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "Which verifier judges the responses"),
        ({"verifier": "nummeric"}, "nummeric"),
        ({"verifier": "numeric", "rewards": [{"name": "rouge"}]}, "list of rewards"),
        ({"verifier": "numeric", "rewards": [{"name": "likelihood"}]}, "computed by the policy"),
        ({"verifier": "numeric", "rewards": [{"name": "overlong"}]}, "reward_manager.name=CountingRewardManager"),
        ({"verifier": "numeric", "rewards": [{"name": "python:a.b", "batch": True}]}, "batch: true"),
    ],
)
def test_what_cannot_be_set_up_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LampoError, match=message):
        score("12", **settings)
