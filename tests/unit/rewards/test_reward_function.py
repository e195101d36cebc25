"""The form of TRL's reward functions: keyword arguments with all columns, a list with None for what does not apply."""

import pytest

from lampo.rewards import reward_function, reward_functions
from lampo.types import LampoError


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
    with pytest.raises(LampoError, match="There is no module 'no'"):
        reward_function("python:no.such.function")
    with pytest.raises(LampoError, match="no verifier or reward 'numerc'. Known: numeric"):
        reward_function("numerc")
    with pytest.raises(KeyError, match="no column 'answer'"):
        reward_function("numeric")(completions=["4"], target=["4"])


def test_trls_column_of_solutions_is_known_and_a_worked_solution_is_read() -> None:
    reward = reward_function("math")
    assert reward(completions=[r"\boxed{4}", r"\boxed{5}"], solution=[r"Two and two: $\boxed{4}$.", "4"]) == [1.0, 0.0]
    with pytest.raises(KeyError, match="no column 'answer' or 'solution'"):
        reward(completions=["4"], gold=["4"])


def test_a_batch_without_any_answer_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    reward = reward_function("math")
    for _ in range(2):
        assert reward(completions=["It may be 4", "who knows"], answer=["4", "4"]) == [0.0, 0.0]
    (record,) = caplog.records
    assert "None of 2 completions commits to an answer that the verifier math can see" in record.getMessage()
    assert "last_number=True" in record.getMessage()


def test_a_text_is_rewarded_by_its_form_and_its_overlap() -> None:
    reward = reward_function("format", pattern="<think>.*</think>.+")
    assert reward(completions=["<think>a</think>4", [{"role": "assistant", "content": "4"}]]) == [1.0, 0.0]
    assert reward_function("rouge_l")(completions=["2+2=4", "x"], reference=["2+2=4", "y"]) == [1.0, 0.0]
    with pytest.raises(LampoError, match="The reward 'format' cannot be set up: pattern"):
        reward_function("format")


def test_a_score_is_the_reward(caplog: pytest.LogCaptureFixture) -> None:
    reward = reward_function("python:tests.helpers.own_functions.closeness")
    assert reward(completions=["4", "9", "four"], answer=["4", "4", "4"]) == [1.0, 0.5, None]
    assert reward(completions=["four"], answer=["4"]) == [None]
    assert (
        "Every verdict of 1 is unknown: The verifier tests.helpers.own_functions.closeness failed. ValueError"
        in caplog.text
    )


def test_a_missing_column_is_told_without_what_trl_adds() -> None:
    with pytest.raises(
        KeyError, match=r"It has: gold\. Name the one with the answers: reward_function\(\.\.\., column=NAME\)"
    ):
        reward_function("numeric")(prompts=["2+3="], completions=["5"], trainer_state=None, gold=["5"])


def test_a_marker_that_no_response_has_is_named(caplog: pytest.LogCaptureFixture) -> None:
    assert reward_function("numeric", marker="####")(completions=["5"], answer=["5"]) == [0.0]
    assert "It looks behind the marker '####': ask for it in the prompt." in caplog.text


# A recipe's list


def test_a_list_of_rewards_is_functions_and_weights() -> None:
    functions, weights = reward_functions(
        [
            {"name": "verifier"},
            {"name": "rouge_l", "weight": 0.2},
            {"name": "overlong", "weight": 0.5, "label": "long"},
            {"name": "format", "pattern": "x", "weight": 0.0},
            {"name": "python:tests.helpers.own_functions.shortness", "weight": 0.1, "limit": 3},
        ],
        verifier={"name": "math", "last_number": True},
        max_completion_length=10,
    )
    assert [function.__name__ for function in functions] == ["verifier", "rouge_l", "long", "shortness"]
    assert weights == [1.0, 0.2, 0.5, 0.1]
    columns = {
        "prompts": ["2+2=", [{"role": "user", "content": "2+3="}]],
        "completions": ["4", [{"role": "assistant", "content": "so 5"}]],
        "completion_ids": [[1, 2], [1] * 9],
        "answer": ["4", "4"],
        "reference": ["4", None],
        "trainer_state": object(),
        "log_metric": print,
    }
    assert [function(**columns) for function in functions] == [[1.0, 0.0], [1.0, None], [0.0, -0.5], [1.0, 0.0]]


def test_which_none_means_unknown() -> None:
    entries = [{"name": "verifier"}, {"name": "rouge_l"}, {"name": "python:tests.helpers.own_functions.unknown"}]
    functions, _ = reward_functions(entries, verifier="numeric")
    assert [function.none_is_unknown for function in functions] == [True, False, True]
    assert reward_function("numeric").none_is_unknown


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "likelihood"}, "computed by the policy itself"),
        ({"name": "python:tests.helpers.own_functions.lengths", "batch": True}, "TRL may part a group"),
        ({"name": "overlong"}, "needs max_completion_length"),
        ({"name": "verifier"}, r"reward_functions\(..., verifier='math'\)"),
        ({"name": "rouge"}, "The reward 'rouge' cannot be set up"),
    ],
)
def test_what_trl_cannot_do_is_refused(entry: dict[str, object], message: str) -> None:
    with pytest.raises(LampoError, match=message):
        reward_functions([entry])
