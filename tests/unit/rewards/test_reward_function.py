"""The form of TRL's reward functions: keyword arguments with all columns, a list with None for what does not apply."""

import pytest

from lampo.types import LampoError
from lampo.verify import reward_function


def test_texts_and_chats_right_wrong_and_unknown() -> None:
    reward = reward_function("numeric", column="gold")
    chat = [{"role": "assistant", "content": "so 5"}]
    rewards = reward(
        prompts=["?"] * 4, completions=["4", "5", chat, "4"], completion_ids=[[1]] * 4, gold=["4", 4, "5", "four"]
    )
    assert rewards == [1.0, 0.0, 1.0, None]
    assert reward.__name__ == "lampo_numeric"


def test_what_hangs_is_left_out() -> None:
    reward = reward_function("python:tests.helpers.pathological.verify", timeout_s=0.5)
    assert reward(completions=["4", "spin", "5"], answer=["4", "4", "4"]) == [1.0, None, 0.0]


def test_mistakes_are_told_before_training() -> None:
    with pytest.raises(LampoError, match="cannot be imported"):
        reward_function("python:no.such.function")
    with pytest.raises(LampoError, match="Known: numeric"):
        reward_function("numerc")
    with pytest.raises(KeyError, match="no column 'answer'"):
        reward_function("numeric")(completions=["4"], target=["4"])
