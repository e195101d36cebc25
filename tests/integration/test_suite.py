"""A suite in miniature: a study that is kept, a method of the user's own that is entered, and what is refused."""

import json
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lampo.compare.results import Point, RunResult, read_results, write_results
from lampo.compare.suite import open_suite, read_row
from lampo.config.load import load_config
from lampo.model.policy import Policy
from lampo.store.lock import lock
from lampo.types import LampoError

from ..helpers import warm
from ..helpers.small_study import RECIPE
from ..helpers.small_study import SMALL as STUDY

SMALL = STUDY | {
    "sampling.max_new_tokens": 6,
    "training.steps": 2,
    "evaluation.every": 2,
    "evaluation.final_problems": 5,
    "evaluation.final_samples": 2,
}
TASKS = {"clean": {}, "noisy": {"rewards.verifier.false_positives": 0.4}}
MINE = """
def advantage(rewards_N, group_ids_N, *, scale=1.0):
    return scale * (rewards_N - rewards_N.mean())
"""


GRPO_NOTE = {
    "method": '{"name":"grpo","method":"grpo"}',
    "commits": '["1234"]',
    "versions": '{"torch": "2"}',
    "code": "{}",
}


def kept_run(task: str, method: str, seed: int) -> RunResult:
    ends = (0.1, 0.3 + 0.1 * (method == "lampo") + seed / 100)
    points = tuple(Point(step, 32 * step, 99, step, 1.0, end, None, 6.0, 0.0, 5, 2) for step, end in enumerate(ends))
    return RunResult(task, method, seed, 1e-3, "test", "finished", "", 0.5, 0.0, points)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of two tasks and its results, a start, and a suite of two seeds and two steps with the row of GRPO."""
    folder = tmp_path_factory.mktemp("kept")
    study = folder / "study"
    study.mkdir()
    values = {"name": "s", "recipe": str(RECIPE), "settings": SMALL, "tasks": TASKS, "learning_rates": [1e-3]}
    (study / "study.yaml").write_text(yaml.safe_dump(values | {"methods": ["grpo", "lampo"], "seeds": 3}))
    runs = [kept_run(task, method, seed) for task in TASKS for method in ("grpo", "lampo") for seed in range(3)]
    write_results(study / "results.parquet", runs)
    config = load_config(RECIPE, [f"{key}={json.dumps(value)}" for key, value in SMALL.items()])
    Policy.load(config.model, seed=0).save(folder / "start")
    grpo = [run for run in runs if run.method == "grpo" and run.seed < 2]
    write_results(folder / "grpo.parquet", grpo, GRPO_NOTE)
    tasks = {task: {"study": "study", "task": task, "start": "start"} for task in TASKS}
    (folder / "suite.yaml").write_text(yaml.safe_dump({"name": "mini", "tasks": tasks, "seeds": 2}))
    return folder


def lampo(folder: Path, *arguments: str, ok: bool = True) -> str:
    command = [*warm.python(), "-m", "lampo", "compare", *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert (ended.returncode == 0) == ok, ended.stdout + ended.stderr
    return " ".join((ended.stdout if ok else ended.stderr).split())


def test_an_advantage_of_ones_own_gets_a_row_beside_the_others(kept: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    suite = str(kept / "suite.yaml")
    enter = (suite, "--method", "python:mine.advantage", "--workers", "2")
    told = lampo(tmp_path, *enter)
    assert "advantage 4/4: " in told
    assert "row: runs/mini/advantage/row.parquet" in told
    assert "### advantage minus each: samples, after training" in told
    assert "| grpo | 2 | 2 | grpo |" in told
    assert "| lampo * | 3 | 3 | the studies |" in told
    folder = tmp_path / "runs" / "mini" / "advantage"
    row = read_row(folder / "row.parquet")
    assert {(run.task, run.seed) for run in row.runs} == {(task, seed) for task in TASKS for seed in (0, 1)}
    assert {run.learning_rate for run in row.runs} == {1e-3}  # the baseline's in the study
    assert [[(point.step, point.rollouts) for point in run.points] for run in row.runs] == [[(0, 0), (2, 32)]] * 4
    assert json.loads(row.note["code"]) == {"mine.py": MINE}
    configs = {run: load_config(run.parent / "config.yaml") for run in folder.rglob("metrics.jsonl")}
    assert {config.model.path for config in configs.values()} == {str(kept / "start")}
    assert {config.warmstart.steps for config in configs.values()} == {0}
    errors = {run.parts[-3]: config.rewards[0].false_positives for run, config in configs.items()}  # pyright: ignore
    assert errors == {"clean": 0.0, "noisy": 0.4}

    shown = lampo(tmp_path, suite)  # the rows that were entered here stand in the table
    assert "| advantage | 2 | 2 | advantage.name=python:mine.advantage |" in shown
    assert "minus each" not in shown
    assert lampo(tmp_path, *enter[:3], "--page").startswith("# mini: advantage")
    assert "### grpo minus each" in lampo(tmp_path, suite, "--method", "grpo")  # all there: nothing is run
    assert not list((tmp_path / "runs" / "mini" / "grpo").rglob("metrics.jsonl"))
    (tmp_path / "runs" / "mini" / "grpo" / "row.parquet").unlink()
    command = shlex.join([*warm.python(), "-m", "lampo", "compare", suite, "--method", "grpo"])
    ended = subprocess.run(f"{command} > /dev/full", shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr.count("The output cannot be written")) == (0, 1), ended.stderr
    assert (tmp_path / "runs" / "mini" / "grpo" / "row.parquet").is_file()

    with lock(folder / "entry.lock", "The entry"):
        assert "is under way in process" in lampo(tmp_path, *enter, ok=False)
    (tmp_path / "mine.py").write_text(MINE.replace("1.0", "2.0"))
    assert "mine.py has changed since the runs of advantage began" in lampo(tmp_path, *enter, ok=False)


def test_a_task_whose_package_is_missing_is_left_out_by_name(kept: Path, tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.mkdir()
    recipe = RECIPE.with_name("reasoning-gym.yaml")
    (words / "study.yaml").write_text(yaml.safe_dump({"name": "w", "recipe": str(recipe), "methods": ["grpo"]}))
    write_results(words / "results.parquet", [kept_run("task", "grpo", seed) for seed in range(2)])
    (tmp_path / "reasoning_gym.py").write_text("raise ImportError('not here')")
    start = str(kept / "start")
    tasks = {
        "words": {"study": "words", "start": start},
        "clean": {"study": str(kept / "study"), "task": "clean", "start": start},
    }
    values = {"name": "partly", "tasks": tasks, "seeds": 1}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(values))
    told = lampo(tmp_path, "suite.yaml", "--method", "rloo", "--workers", "1")
    cannot = "reasoning-gym cannot be imported (not here). Install it with: pip install 'lampo[reasoning-gym]'"
    assert told.count(f"words is not run: {cannot}") == 2  # before the runs, and under the table
    assert {run.task for run in read_row(tmp_path / "runs" / "partly" / "rloo" / "row.parquet").runs} == {"clean"}
    assert "| rloo | 1 | – | rloo |" in told

    del tasks["clean"]
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(values | {"name": "none"}))
    assert f"No task can be run. words: {cannot}" in lampo(tmp_path, "suite.yaml", "--method", "rloo", ok=False)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--method", "rloo", "--name", "grpo"], "has a row grpo with other settings"),
        (["--method", "lampa"], "There is no method 'lampa'. Did you mean lampo?"),
        (["--method", "lampo", "--set", "advantage.temperature=0.1"], "Give it a name: --name mine"),
        (
            ["--method", "lampo", "--set", "task.digits=4", "--name", "x"],
            "all methods of a suite have the task of its tasks",
        ),
        (["--method", "lampo", "--set", "rewards.verifier.weight=2", "--name", "x"], "have the rewards.verifier of"),
        (["--method", "lampo", "--name", "a/b"], "name: it names a folder: give letters without accents"),
        (["--method", "python:nowhere.f"], "There is no module 'nowhere'"),
        (["--method", "rloo", "--seeds", "3"], "--seeds 3: the suite has 2 seeds"),
        (["--method", "rloo", "--page"], "No run of rloo"),
        (["--page"], "--page is for a method that enters the suite"),
        (["--name", "x", "--seeds", "1"], "--name, --seeds is for a method that enters the suite"),
    ],
)
def test_what_cannot_be_entered_is_refused_before_anything_runs(
    kept: Path, tmp_path: Path, arguments: list[str], error: str
) -> None:
    assert error in lampo(tmp_path, str(kept / "suite.yaml"), *arguments, ok=False)
    assert not list(tmp_path.rglob("metrics.jsonl"))


@pytest.mark.parametrize(
    ("task", "error"),
    [
        ({"study": "study", "task": "claen", "start": "start"}, "must name a task of study: clean, noisy"),
        ({"study": "study", "start": "start"}, "must name a task of study"),
        ({"study": "nowhere", "start": "start"}, "Cannot read the study"),
        ({"study": "study", "task": "clean", "start": "strat"}, "has no start: there is no model in .*strat"),
        ({"studdy": "study"}, "tasks.a.studdy"),
    ],
)
def test_a_suite_that_names_what_is_not_there_is_refused(kept: Path, task: dict[str, Any], error: str) -> None:
    file = kept / "wrong.yaml"
    file.write_text(yaml.safe_dump({"name": "wrong", "tasks": {"a": task}}))
    with pytest.raises(LampoError, match=error):
        open_suite(file)


def test_a_file_that_is_no_row_and_other_runs_of_a_row_are_refused(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = tmp_path / "runs" / "mini" / "grpo" / "row.parquet"
    ours.parent.mkdir(parents=True)
    runs, note = read_results(kept / "grpo.parquet"), read_row(kept / "grpo.parquet").note
    longer = [*runs, replace(runs[0], seed=2)]
    for there, shown in ((longer, longer), (runs[:1], runs)):  # more and fewer seeds of the same row
        write_results(ours, there, note)
        assert [row.runs for row in open_suite(kept / "suite.yaml").rows] == [tuple(shown)]
    for wrong, error in (
        ([replace(run, entropy_end=0.1) for run in runs], "has other runs of grpo than the suite's own row"),
        ([replace(run, task="x") for run in runs], "runs on x, which are no tasks of the suite"),
    ):
        write_results(ours, wrong, note)
        with pytest.raises(LampoError, match=error):
            _ = open_suite(kept / "suite.yaml").rows
    write_results(ours, runs)
    with pytest.raises(LampoError, match="is no row of a suite: lampo compare suite --method NAME writes one"):
        _ = open_suite(kept / "suite.yaml").rows
