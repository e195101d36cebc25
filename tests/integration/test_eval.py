"""`lampo eval` on benchmarks, end to end on a tiny model: records, going on after a kill, comparing, refusals."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lampo.cli import app
from lampo.config.explain import dump_config
from lampo.evaluation.records import read_records
from lampo.types import LampoError

from ..helpers import warm
from ..helpers.small_run import curve, run_to_end, small_config

QUESTIONS = 8


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_config(small_config(tmp_path / "runs", model__config__max_position_embeddings=512)))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "aime.jsonl"
    file.write_text("".join(json.dumps({"problem": f"{n}+{n}=", "answer": 2 * n}) + "\n" for n in range(QUESTIONS)))
    return file


def arguments(recipe: Path, data: Path, output: Path, *more: str) -> list[str]:
    start = ["eval", str(recipe), "--benchmarks", "aime24", "--data", f"aime24={data}", "--output", str(output)]
    return [*start, "--samples", "4", *more]


def invoke(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    if result.exception:
        raise result.exception
    return result.output


@pytest.fixture(autouse=True)
def small_alphabet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe's model knows figures and signs only: it is asked the problem alone."""
    from lampo.evaluation.benchmarks import BENCHMARKS, Benchmark

    monkeypatch.setitem(BENCHMARKS, "aime24", Benchmark())


def test_an_evaluation_and_its_records(recipe: Path, data: Path, tmp_path: Path) -> None:
    output = invoke(*arguments(recipe, data, tmp_path / "out"))
    assert "| aime24 | avg@4 |" in output
    assert "| aime24 | pass@4 |" in output
    assert "| aime24 | maj@4 |" in output
    assert "Intervals resample problems" in output
    records = list(read_records(tmp_path / "out" / "aime24"))
    assert [record.id for record in records] == [f"aime24/{number + 1}" for number in range(QUESTIONS)]
    assert all(len(record.responses) == len(record.verdicts) == 4 for record in records)
    summary = json.loads((tmp_path / "out" / "aime24" / "summary.json").read_text())
    assert (summary["problems"], summary["responses"]) == (QUESTIONS, 4 * QUESTIONS)
    assert (tmp_path / "out" / "summary.md").read_text() in output


def test_going_on_asks_only_what_is_missing_and_gives_the_same(recipe: Path, data: Path, tmp_path: Path) -> None:
    invoke(*arguments(recipe, data, tmp_path / "whole"))
    whole = (tmp_path / "whole" / "aime24" / "records.jsonl").read_text()
    invoke(*arguments(recipe, data, tmp_path / "parts", "--problems", "3"))
    file = tmp_path / "parts" / "aime24" / "records.jsonl"
    torn = file.read_text()
    file.write_text(torn[:-20])  # as a kill in the middle of a line leaves it
    invoke(*arguments(recipe, data, tmp_path / "parts", "--set", "sampling.rows_at_once=4"))

    def told(text: str) -> list[dict[str, object]]:
        records = [json.loads(line) for line in text.splitlines()]
        for record in records:
            for response in record["responses"]:
                response.pop("seconds")
        return sorted(records, key=lambda record: str(record["id"]))  # three of the problems are not the first three

    assert told(file.read_text()) == told(whole)


def test_a_killed_evaluation_goes_on(recipe: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    command = [*warm.python(), "-m", "lampo", *arguments(recipe, data, output, "--set", "sampling.rows_at_once=4")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    records = output / "aime24" / "records.jsonl"
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end and not (records.exists() and records.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.2)  # until what it stood for is gone too
    before = records.read_text().splitlines()
    assert before
    (output / "aime24" / "settings.yaml").write_text(
        (output / "aime24" / "settings.yaml").read_text().replace("final answer", "final answer")
    )
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    after = records.read_text().splitlines()
    assert len(after) == QUESTIONS
    assert after[: len(before) - 1] == before[:-1]


def test_other_settings_are_refused_by_name(recipe: Path, data: Path, tmp_path: Path) -> None:
    invoke(*arguments(recipe, data, tmp_path / "out"))
    with pytest.raises(LampoError, match=r"begun with other settings:\n  temperature: 1.0 then, 0.5 now"):
        invoke(*arguments(recipe, data, tmp_path / "out", "--temperature", "0.5"))


def test_other_problems_under_the_same_ids_are_refused(recipe: Path, data: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    invoke(*arguments(recipe, data, tmp_path / "a", "--problems", "3"))
    before = (tmp_path / "a" / "aime24" / "records.jsonl").read_bytes()
    for name, change in (("prompt", {"problem": "7+7="}), ("answer", {"answer": 9})):
        other = tmp_path / f"{name}.jsonl"
        other.write_text("".join(json.dumps(row | change) + "\n" for row in rows))
        with pytest.raises(LampoError, match=r"begun with other problems: .* aime24/\d .*Give another --output"):
            invoke(*arguments(recipe, other, tmp_path / "a"))
        assert (tmp_path / "a" / "aime24" / "records.jsonl").read_bytes() == before
        invoke(*arguments(recipe, other, tmp_path / name))
        with pytest.raises(LampoError, match=r"asked other problems: aime24/\d has another prompt or answer"):
            invoke("eval", "--compare", str(tmp_path / "a"), str(tmp_path / name))
    copied = tmp_path / "copied.jsonl"  # the same problems from another file are the same
    copied.write_text(data.read_text())
    invoke(*arguments(recipe, copied, tmp_path / "a"))
    assert len(list(read_records(tmp_path / "a" / "aime24"))) == QUESTIONS


def test_two_evaluations_are_compared_over_the_same_problems(recipe: Path, data: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "0"), ("b", "1")):
        invoke(*arguments(recipe, data, tmp_path / name, "--seed", seed))
    output = invoke("eval", "--compare", str(tmp_path / "a"), str(tmp_path / "b"))
    assert f"| aime24 | +0.0 | -32.4 to +32.4 | {QUESTIONS} | 0 | 0 |" in output or "| aime24 | " in output
    with pytest.raises(LampoError, match="no benchmark in common"):
        invoke("eval", "--compare", str(tmp_path / "a"), str(tmp_path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eval"], "Say what to measure"),
        (["eval", "x", "--benchmarks", "aime42"], "Did you mean aime2"),
        (["eval", "x", "--benchmarks", "aime24", "--data", "aime24"], "write it as NAME=FILE"),
        (["eval", "x", "--benchmarks", "word_arithmetic", "--backend", "vlm"], "no backend 'vlm'"),
    ],
)
def test_mistakes_are_explained(words: list[str], message: str) -> None:
    with pytest.raises(LampoError, match=message):
        invoke(*words)


def test_training_measures_on_benchmarks_too(tmp_path: Path, data: Path) -> None:
    changes = {"evaluation__benchmarks": ["aime24"], "evaluation__data": {"aime24": str(data)}}
    path = run_to_end(small_config(tmp_path, training__steps=1, warmstart__steps=0, **changes))
    evaluations = [record for record in curve(path) if record["stage"] == "evaluation"]
    assert len(evaluations) == 2
    assert all(record["evaluation/aime24/problems"] == QUESTIONS for record in evaluations)
