"""Reasoning Gym's problems, judged by its own scorers."""

import json
from collections import Counter
from typing import Any

import pytest

from lampo.tasks import ReasoningGymTaskOptions
from lampo.tasks.check import check_answers
from lampo.types import LampoError, Problem
from lampo.verify import VerifierPool, judge
from lampo.verify.reasoning_gym import ReasoningGymOptions, _scorer, dump_entry, library, read_entry


@pytest.fixture
def legs() -> Problem:
    pytest.importorskip("reasoning_gym", reason="needs the extra reasoning-gym")
    return ReasoningGymTaskOptions(num_train=1, num_heldout=1).load().train[0]


def test_problems_of_several_kinds_in_equal_shares_without_overlap(legs: Problem) -> None:
    datasets: dict[str, Any] = {"leg_counting": {}, "chain_sum": {"min_terms": 2, "max_terms": 2}}
    options = ReasoningGymTaskOptions(datasets=datasets, num_train=60, num_heldout=10)
    task = options.load()
    assert (len(task.train), len(task.heldout)) == (60, 10)
    assert min(Counter(problem.id.split("/")[0] for problem in task.train).values()) > 20
    problems = [*task.train, *task.heldout]
    assert len({problem.id for problem in problems}) == len({problem.prompt for problem in problems}) == 70
    assert options.load() == task
    other = ReasoningGymTaskOptions(datasets=datasets, num_train=60, num_heldout=10, seed=1).load()
    assert not {problem.prompt for problem in other.heldout} & {problem.prompt for problem in task.train}
    with VerifierPool() as pool:
        assert check_answers(problems, None, pool.verify_all).failing == ()


def test_the_warm_start_may_imitate_answers(legs: Problem) -> None:
    assert legs.demonstration is None
    shown = ReasoningGymTaskOptions(num_train=1, num_heldout=1, demonstrate_answers=True).load().train[0]
    assert shown.demonstration is not None
    assert judge(ReasoningGymOptions(), shown.demonstration, shown.answer).status == "right"


def test_what_comes_twice_is_taken_once(legs: Problem, caplog: pytest.LogCaptureFixture) -> None:
    config = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    task = ReasoningGymTaskOptions(datasets={"chain_sum": config}, num_train=2000).load()
    assert len({problem.prompt for problem in task.train}) == len(task.train) < 200
    assert "asked before" in caplog.text


def test_an_empty_answer_is_left_out(legs: Problem, caplog: pytest.LogCaptureFixture) -> None:
    task = ReasoningGymTaskOptions(datasets={"string_manipulation": {}}, num_train=1000, num_heldout=20).load()
    assert "with an empty answer" in caplog.text
    assert all(read_entry(problem.answer)[1]["answer"] for problem in task.train)


def test_the_verifier_asks_the_scorer(legs: Problem) -> None:
    gold = read_entry(legs.answer)[1]["answer"]
    for completion, status, extracted in (
        (f"<think><answer>1</answer></think> So <answer> {gold} </answer>.", "right", gold),
        (f"<answer>{gold}</answer>, no: <answer>-1</answer>", "wrong", "-1"),
        (f"It is {gold}.", "wrong", None),
        ("<answer></answer>", "wrong", None),
        (f"<think>It is <answer>{gold}</answer>", "wrong", None),
    ):
        verdict = judge(ReasoningGymOptions(), completion, legs.answer)
        assert (verdict.status, verdict.extracted) == (status, extracted), completion
    marked = ReasoningGymOptions(marker="ANSWER:")
    assert judge(marked, f"ANSWER: 3? ANSWER: {gold}", legs.answer).status == "right"
    assert judge(marked, marked.answer_text(legs.answer) or "", legs.answer).status == "right"
    for answer in ("", "{", "7", json.dumps({"dataset": "leg_counting"})):
        assert judge(ReasoningGymOptions(), "<answer>1</answer>", answer).status == "unknown"


def test_a_scorer_may_give_a_part(legs: Problem) -> None:
    task = ReasoningGymTaskOptions(datasets={"sentence_reordering": {}}, num_train=3, num_heldout=1).load()
    name, entry = read_entry(task.train[0].answer)
    swapped = " ".join(reversed(entry["answer"].split()))
    verdict = judge(ReasoningGymOptions(), f"<answer>{swapped}</answer>", dump_entry(name, entry))
    assert verdict.status == "wrong"
    assert verdict.score is not None
    assert 0 <= verdict.score < 1


def test_data_sets_without_an_answer_of_their_own_are_scored_only(legs: Problem) -> None:
    task = ReasoningGymTaskOptions(datasets={"graph_color": {}}, num_train=3, num_heldout=1).load()
    check = check_answers(task.train, None, lambda triples: [judge(*triple) for triple in triples])
    assert (check.num_checked, check.num_uncheckable) == (0, 3)


@pytest.mark.parametrize("datasets", [{"leg_countin": {}}, {"leg_counting": {"max_animals": -1}}])
def test_what_the_library_refuses_is_said(legs: Problem, datasets: dict[str, Any]) -> None:
    with pytest.raises(LampoError, match="reasoning-gym cannot make its data set 'leg_countin"):
        ReasoningGymTaskOptions(datasets=datasets).load()


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr("lampo.verify.reasoning_gym.import_module", missing)
    _scorer.cache_clear()
    with pytest.raises(LampoError, match=r"pip install 'lampo\[reasoning-gym\]'"):
        ReasoningGymTaskOptions().load()
    with pytest.raises(LampoError, match="reasoning-gym"):
        ReasoningGymOptions().prepare()
    answer = dump_entry("leg_counting", {"question": "?", "answer": "4", "metadata": {}})
    assert judge(ReasoningGymOptions(), "<answer>4</answer>", answer).status == "unknown"


def test_the_scorer_of_a_data_set_is_made_once(legs: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    gym, made = library(), []
    make = gym.get_score_answer_fn
    monkeypatch.setattr(gym, "get_score_answer_fn", lambda name: made.append(name) or make(name))
    _scorer.cache_clear()
    for _ in range(3):
        answer = ReasoningGymOptions().answer_text(legs.answer)
        assert answer is not None
        assert ReasoningGymOptions().verify(answer, legs.answer).status == "right"
    assert made == ["leg_counting"]


def test_an_entry_that_cannot_be_read_back_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be written down"):
        dump_entry("x", {"answer": object()})
