"""`lampo eval` on benchmarks, end to end on a tiny model: records, going on after a kill, comparing, refusals."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lampo.cli import app
from lampo.config.explain import dump_config
from lampo.evaluation.measure import MOST_FAILURES
from lampo.evaluation.records import read_records
from lampo.types import LampoError

from ..helpers import warm
from ..helpers.chat_server import Server, Start, chat_servers, completion
from ..helpers.small_run import curve, run_to_end, small_config

QUESTIONS = 8


@pytest.fixture
def serve() -> Iterator[Start]:
    with chat_servers() as start:
        yield start


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
        (["eval", "x", "--benchmarks", "word_arithmetic", "--backend", "ftp://me:s3cret@h"], "no backend 'ftp://h'"),
        (
            ["eval", "x", "--benchmarks", "aime24", "--data", "aime25=x"],
            "--data aime25 has no effect on the benchmarks aime24",
        ),
        (
            ["eval", "x", "--seed", "1"],
            "--seed has no effect on the held-out problems of a run or recipe, without --benchmarks",
        ),
        (
            ["eval", "x", "--output", "y", "--data", "a=b", "--backend", "vllm"],
            "--backend, --data, --output have no effect",
        ),
        (["eval", "x", "--concurrency", "3"], "--concurrency has no effect"),
        (
            ["eval", "x", "--benchmarks", "aime24", "--tries", "3", "--timeout", "1"],
            "--timeout, --tries have no effect without a server",
        ),
        (
            ["eval", "x", "--benchmarks", "aime24", "--backend", "http://h/v1", "--set", "run.seed=1"],
            "--set has no effect with a server",
        ),
        (["eval", "x", "--compare", "a", "b", "--samples", "2"], "a model, --samples have no effect with --compare"),
        (["eval", "x", "--temperature", "-1"], "--temperature -1: give a number above 0"),
        (["eval", "x", "--temperature", "0"], "--temperature 0: give a number above 0"),
        (["eval", "x", "--temperature", "nan"], "--temperature nan: give a number above 0"),
        (["eval", "x", "--benchmarks", "aime24", "--temperature", "inf"], "--temperature inf: give a number above 0"),
        (
            ["eval", "x", "--benchmarks", "aime24", "--backend", "http://h/v1", "--temperature", "-0.5"],
            "--temperature -0.5: give a number of at least 0",
        ),
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


def test_options_are_used_on_held_out_problems_too(recipe: Path) -> None:
    words = ["--samples", "3", "--temperature", "0.5", "--max-new-tokens", "2", "--problems", "4"]
    line = invoke("eval", str(recipe), *words).splitlines()[-1]
    assert "4 problems x 3 samples at temperature 0.5" in line
    assert "mean length 2 tokens" in line


@pytest.mark.parametrize("measured", ["lampo.evaluation.command.measure", "lampo.evaluation.heldout.evaluate"])
def test_ctrl_c_says_what_is_there(
    measured: str, recipe: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(measured, interrupted)
    is_heldout = "heldout" in measured
    words = ["eval", str(recipe)] if is_heldout else arguments(recipe, data, tmp_path / "out")
    result = CliRunner().invoke(app, words)
    there = f"Stopped. What was answered is in {tmp_path / 'out'}. The same command goes on with the others."
    assert result.exit_code == 130
    assert result.output.splitlines()[-1] == ("Stopped before anything was measured." if is_heldout else there)


def served(serve: Start, data: Path, output: Path, plan: Callable[[str, int], object], *more: str) -> Server:
    server = serve(plan)
    start = ["eval", "model", "--benchmarks", "aime24", "--data", f"aime24={data}", "--output", str(output)]
    words = [*start, "--backend", server.url.replace("http://", "http://me:s3cret@"), *more]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, LampoError)
    server.told, server.shown = str(result.exception), result.stderr
    return server


@pytest.fixture
def many(tmp_path: Path) -> Path:
    file = tmp_path / "many.jsonl"
    file.write_text("".join(json.dumps({"problem": f"{n}+{n}=", "answer": 2 * n}) + "\n" for n in range(60)))
    return file


def test_a_server_that_stops_answering_ends_the_evaluation(serve: Start, many: Path, tmp_path: Path) -> None:
    def plan(text: str, _: int) -> object:
        return completion("\\boxed{4}") if text in ("1+1=", "0+0=", "2+2=") else 500

    options = ["--concurrency", "1", "--tries", "1"]
    server = served(serve, many, tmp_path / "out", plan, *options)
    # the probe, those that were answered, those in a row, and what was on its way by then
    assert 1 + 3 + MOST_FAILURES <= len(server.requests) < 40
    assert (
        "aime24: 5 of 60 problems could not be asked, the first aime24/4: 500 Internal Server Error: planned."
        in server.told
    )
    assert "The rest was not asked." in server.told
    assert server.shown.startswith(
        "failed: aime24/4, try 1 of 1: 500 Internal Server Error: planned\n"
    )  # as it happened
    assert len(list(read_records(tmp_path / "out" / "aime24"))) == 3
    assert "s3cret" not in server.told + (tmp_path / "out" / "aime24" / "settings.yaml").read_text()
    assert "backend: http://127.0.0.1:" in (tmp_path / "out" / "aime24" / "settings.yaml").read_text()


def test_failures_that_are_not_in_a_row_end_nothing(serve: Start, many: Path, tmp_path: Path) -> None:
    def plan(text: str, _: int) -> object:
        return 500 if int(text.partition("+")[0]) % 2 else completion("\\boxed{4}")

    server = served(serve, many, tmp_path / "out", plan, "--concurrency", "1", "--tries", "1")
    assert "30 of 60 problems could not be asked" in server.told
    assert "The rest was not asked." not in server.told
    assert len(list(read_records(tmp_path / "out" / "aime24"))) == 30


def test_a_key_that_is_withdrawn_ends_the_evaluation_at_once(serve: Start, many: Path, tmp_path: Path) -> None:
    def plan(text: str, _: int) -> object:
        time.sleep(0.03)
        return 401 if text == "3+3=" else completion("4")

    server = served(serve, many, tmp_path / "out", plan, "--concurrency", "1")
    assert "1 of 60 problems could not be asked" in server.told
    assert "401 Unauthorized: planned. The rest was not asked." in server.told


def test_a_server_that_is_none_is_told_after_one_request(serve: Start, data: Path, tmp_path: Path) -> None:
    server = served(serve, data, tmp_path / "out", lambda *_: b"<html><h1>Welcome</h1>")
    assert len(server.requests) == 1
    assert server.told.endswith(
        "cannot be asked for model: the reply is no completion (Expecting value: line 1 column 1 (char 0)): Welcome"
    )


@pytest.mark.parametrize("where", ["| head -c 0", ">&- 2>&-"])
def test_an_evaluation_whose_output_fails_is_the_same(where: str, recipe: Path, data: Path, tmp_path: Path) -> None:
    python = [sys.executable] if ">&-" in where else warm.python()  # whose client hands its streams on
    words = shlex.join([*python, "-m", "lampo", *arguments(recipe, data, tmp_path / "out")])
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words} {where}"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert len(list(read_records(tmp_path / "out" / "aime24"))) == QUESTIONS
    assert (tmp_path / "out" / "summary.md").exists()
