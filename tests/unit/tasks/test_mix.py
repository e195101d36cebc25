"""Mixtures of tasks."""

import logging
from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from lampo.config.explain import describe_config, dump_config
from lampo.config.load import load_config, parse_config
from lampo.tasks import MixOptions
from lampo.types import LampoError
from lampo.verify import ExactOptions, MathOptions, NumericOptions, verifier_for

SUMS: dict[str, Any] = {"name": "arithmetic", "digits": 3, "num_train": 90, "num_heldout": 20}
WORDS: dict[str, Any] = {"name": "word_arithmetic", "num_train": 100, "num_heldout": 10}


def mix(*parts: dict[str, Any]) -> MixOptions:
    return MixOptions.model_validate({"parts": parts})


def shares(problems: Any) -> Counter[str]:
    return Counter(problem.id.split("/")[1] for problem in problems)


def test_parts_come_in_the_given_proportions_and_none_is_repeated(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="lampo"):
        task = mix({"task": SUMS, "weight": 3}, {"task": WORDS, "weight": 1}).load()
    assert shares(task.train) == {"1": 90, "2": 30}  # the first is used whole
    assert shares(task.heldout) == {"1": 20, "2": 10}  # held-out sides whole
    assert "mix, part 2 (word_arithmetic): 30 of its 100 problems to train on, 10 to measure on" in caplog.text
    for size in (8, 40, 100):
        assert abs(shares(task.train[:size])["1"] - 0.75 * size) <= 1
    problems = [*task.train, *task.heldout]
    assert len({problem.id for problem in problems}) == len({problem.prompt for problem in problems}) == len(problems)
    assert task == mix({"task": SUMS, "weight": 3}, {"task": WORDS, "weight": 1}).load()


def test_a_part_brings_its_verifier_and_two_parts_of_one_task_keep_their_ids_apart() -> None:
    other = SUMS | {"seed": 1, "digits": 4}
    task = mix({"task": SUMS}, {"task": other, "verifier": {"name": "math"}}).load()
    problems = [*task.train, *task.heldout]
    assert len({problem.id for problem in problems}) == len(problems)
    for problem in problems:
        expected = MathOptions() if problem.id.startswith("mix/2/") else NumericOptions()
        assert verifier_for(problem, None) == expected
        assert verifier_for(problem, ExactOptions()) == ExactOptions()  # a recipe's own verifier wins


def test_what_one_part_holds_out_no_other_trains_on(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    lines = [f'{{"prompt": "What is {n}?", "answer": "{n}"}}\n' for n in range(10)]
    (tmp_path / "all.jsonl").write_text("".join(lines))
    (tmp_path / "seen.jsonl").write_text("".join(lines[:4]))
    (tmp_path / "other.jsonl").write_text('{"prompt": "Another?", "answer": "1"}\n')
    first = {"name": "files", "train": f"{tmp_path}/all.jsonl", "heldout": f"{tmp_path}/other.jsonl"}
    second = {"name": "files", "train": f"{tmp_path}/other.jsonl", "heldout": f"{tmp_path}/seen.jsonl"}
    task = mix({"task": first, "weight": 6}, {"task": second}).load()
    assert {problem.answer for problem in task.train} == {"4", "5", "6", "7", "8", "9"}
    assert "mix, part 1: left out 4 training problems" in caplog.text


def test_a_benchmark_in_a_mixture_is_only_measured_on(tmp_path: Any) -> None:
    file = tmp_path / "aime.jsonl"
    file.write_text('{"problem": "What is 5 squared?", "answer": "025"}\n')
    task = mix({"task": SUMS, "weight": 2}, {"task": {"name": "aime24", "file": str(file)}}).load()
    assert shares(task.train) == {"1": 90}
    assert shares(task.heldout) == {"1": 20, "2": 1}


def test_mixtures_nest() -> None:
    inner = {"name": "mix", "parts": [{"task": SUMS}, {"task": WORDS}]}
    assert shares(mix({"task": inner}, {"task": SUMS | {"digits": 4}}).load().train) == {"1": 90, "2": 90}


def test_a_recipe_with_a_mixture_is_written_and_read_back(tmp_path: Any) -> None:
    values = {
        "run": {"name": "x"},
        "model": {"path": "nowhere"},
        "task": {"name": "mix", "parts": [{"task": SUMS, "weight": 2}, {"task": WORDS, "verifier": {"name": "math"}}]},
    }
    config = parse_config(values, "here")
    for write in (dump_config, describe_config):
        (tmp_path / "recipe.yaml").write_text(write(config))
        assert load_config(tmp_path / "recipe.yaml") == config


@pytest.mark.parametrize("parts", [[], [{"task": SUMS, "weight": 0}], [{"weight": 1}], [{"task": {"name": "no"}}]])
def test_mix_refuses(parts: list[Any]) -> None:
    with pytest.raises(ValidationError):
        mix(*parts)


def test_a_mistake_in_a_part_is_named() -> None:
    task = {"name": "mix", "parts": [{"task": SUMS | {"digit": 2}}]}
    with pytest.raises(LampoError, match=r"task\.parts\[0\]\.task\..*digit is not a setting"):
        parse_config({"run": {"name": "x"}, "model": {"path": "nowhere"}, "task": task}, "here")
