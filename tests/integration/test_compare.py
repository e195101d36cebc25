"""Small studies from end to end: crashes, retries, Ctrl-C, going on, and the numbers that come out."""

import fcntl
import io
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from lampo.compare.command import compare, compare_study, finished_so_far
from lampo.compare.results import RunResult, read_results
from lampo.compare.study import load_study
from lampo.store.lock import lock
from lampo.types import LampoError

from ..helpers import warm
from ..helpers.small_study import RECIPE
from ..helpers.small_study import SMALL as STUDY

SMALL = STUDY | {
    "warmstart.steps": 10,
    "sampling.max_new_tokens": 12,
    "training.steps": 3,
    "evaluation.every": 1,
}


def write_study(folder: Path, **changes: Any) -> Path:
    values = {
        "name": "small",
        "recipe": str(RECIPE),
        "settings": SMALL | {"evaluation.final_problems": 5, "evaluation.final_samples": 2},
        "methods": ["grpo", "lampo"],
        "seeds": 2,
        "workers": 2,
        "folder": str(folder),
        **changes,
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[RunResult]]:
    """A study that tuned and tested, and what came out."""
    file = write_study(
        tmp_path_factory.mktemp("ended"),
        methods=["grpo", "dapo", "cot", "rloo"],
        learning_rates=[1e-4, 1e-3],
        tuning={"seeds": 1, "problems": 3},
    )
    return file, compare(load_study(file), Console(quiet=True))


def test_a_study_ends_with_results_that_can_be_read_and_is_not_run_again(ended: tuple[Path, list[RunResult]]) -> None:
    file, results = ended
    plan = load_study(file)
    assert read_results(plan.folder / "results.parquet") == results
    tuning, test = ([result for result in results if result.phase == phase] for phase in ("tuning", "test"))
    assert len(tuning) == 3 * 2
    assert len(test) == 4 * 2
    assert {result.status for result in results} == {"finished"}
    of = {(result.method, result.seed): result for result in test}
    grpo, dapo, cot = (of[name, 0] for name in ("grpo", "dapo", "cot"))
    assert [point.step for point in grpo.points] == [0, 1, 2, 3]
    assert [point.rollouts for point in grpo.points] == [0, 16, 32, 48]
    assert dapo.points[-1].rollouts > 48  # what dynamic sampling throws away counts
    assert [point.step for point in cot.points] == [0]
    assert grpo.points[0].accuracy == dapo.points[0].accuracy == cot.points[0].accuracy  # the same weights
    assert [(point.problems, point.samples) for point in grpo.points] == [(5, 2), (4, 1), (4, 1), (5, 2)]
    shares = grpo.points[-1].by_problem
    assert shares is not None
    assert (len(shares), sum(shares) / 5) == (5, pytest.approx(grpo.points[-1].accuracy))
    assert grpo.points[-1].pass_at_k is not None
    assert grpo.points[-1].pass_at_k >= grpo.points[-1].accuracy
    before = {path: path.stat().st_mtime_ns for path in plan.folder.rglob("metrics.jsonl")}
    assert compare(load_study(file), Console(quiet=True)) == results
    assert {path: path.stat().st_mtime_ns for path in plan.folder.rglob("metrics.jsonl")} == before
    assert not list(plan.folder.glob("runs/*/grpo*/checkpoints"))
    assert not list(plan.folder.glob("runs/*/*/model"))


def first_step(folder: Path, result: Any) -> list[dict[str, Any]]:
    from lampo.store.rollouts import read_groups

    (run,) = folder.glob(f"runs/task/{result.method}-*-seed{result.seed}")
    return read_groups(run, 1)


def test_a_crash_is_tried_again_told_and_loses_no_neighbour(tmp_path: Path) -> None:
    broken = {
        "name": "broken",
        "method": "lampo",
        "settings": {"optimizer.learning_rate": 1e30, "optimizer.warmup_steps": 0, "rewards.rouge_l.weight": 0.5},
    }
    plan = load_study(write_study(tmp_path, methods=["grpo", broken], seeds=1))
    console = Console(file=io.StringIO())
    came_out = compare(plan, console)
    told = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert (
        finished_so_far(load_study(tmp_path / "study.yaml")) == came_out
    )  # a crash is no less one when it is only reported
    results = {result.method: result for result in came_out}
    assert results["grpo"].status == "finished"
    assert results["broken"].status == "crashed"
    assert "not finite" in results["broken"].error
    assert results["broken"].points  # as far as it got
    run = next(run for run in plan.test({}) if run.method == "broken")
    assert run.log.read_text().count("not finite") == 2
    assert told.count(f"task {run.path.name} begins, its output goes to {run.log}\n") == 2
    assert told.count(f"task {run.path.name} crashed and is tried once more: ") == 1
    assert f"2/2: task {run.path.name} crashed twice: " in told


def test_warm_starts_that_crash_for_one_reason_tell_it_once(tmp_path: Path) -> None:
    plan = load_study(write_study(tmp_path, settings=SMALL | {"model.path": str(tmp_path / "nowhere")}))
    with pytest.raises(LampoError, match="A warm start crashed") as crash:
        compare(plan, Console(file=io.StringIO()))
    told = str(crash.value)
    assert told.count("There is no folder") == 1
    assert all(str(run.path) in told for run in plan.starts())


def test_where_every_run_crashes_at_once_the_page_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = SMALL | {"warmstart.steps": 0, "model.path": str(tmp_path / "nowhere")}
    compare_study(write_study(tmp_path, seeds=1, settings=settings), Console(quiet=True))
    told = capsys.readouterr().out
    assert "grpo: 1 of 1 crashed before the first evaluation: " in told
    assert "nowhere" in told
    assert (tmp_path / "small" / "comparison.html").is_file()


def test_a_mistake_in_a_function_of_ones_own_ends_a_study_before_its_first_run(tmp_path: Path) -> None:
    own = "python:tests.helpers.own_functions.wrong_shape"
    plan = load_study(write_study(tmp_path, methods=["grpo", own], seeds=1))
    with pytest.raises(
        LampoError, match=r"The method wrong_shape of the study cannot be run\. .* returned a tensor \(1,\)"
    ):
        compare(plan, Console(quiet=True))
    assert not (plan.folder / "runs").exists()


def test_a_study_does_not_move_into_a_run(tmp_path: Path) -> None:
    plan = load_study(write_study(tmp_path, methods=["grpo"], seeds=1))
    plan.folder.mkdir()
    (plan.folder / "config.yaml").touch()
    with pytest.raises(LampoError, match="small is a run, and a study needs a folder of its own"):
        compare(plan, Console(quiet=True))
    assert [path.name for path in plan.folder.iterdir()] == ["config.yaml"]


def test_a_study_runs_once_at_a_time(tmp_path: Path) -> None:
    plan = load_study(write_study(tmp_path, methods=["grpo"], seeds=1))
    plan.folder.mkdir()
    with (plan.folder / "study.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LampoError, match="under way in another process"):
            compare(plan, Console(quiet=True))
    with pytest.raises(LampoError, match="No run of the study .* has ended yet"):
        finished_so_far(plan)


def test_a_run_directory_that_a_kill_left_empty_is_made_anew_once_whoever_works_there_has_ended(tmp_path: Path) -> None:
    plan = load_study(write_study(tmp_path, methods=["grpo"], seeds=1, settings=SMALL | {"warmstart.steps": 0}))
    (run,) = plan.test({})
    (run.path / "rollouts").mkdir(parents=True)
    (run.path / ".config.yaml.partial").write_text("mod")
    run.log.parent.mkdir(parents=True)
    run.log.touch()
    orphan = lock(run.log.with_suffix(".lock"), "It")
    told, ended = "waiting for another process that works on this run", threading.Event()

    def end() -> None:
        while told not in run.log.read_text() and not ended.wait(0.05):
            pass
        orphan.release()

    thread = threading.Thread(target=end)
    thread.start()
    (result,) = compare(plan, Console(quiet=True))
    ended.set()
    thread.join()
    assert result.status == "finished"
    assert run.log.read_text().startswith(told)
    assert [path.name for path in run.path.parent.iterdir()] == [run.path.name]


def test_what_is_reported_on_the_way_waits_for_the_learning_rate(
    ended: tuple[Path, list[RunResult]], tmp_path: Path
) -> None:
    file, results = ended
    plan = load_study(file)
    test = [result for result in results if result.phase == "test"]
    grpo, rloo = (next(result for result in test if result.method == name) for name in ("grpo", "rloo"))
    asked = [[group["problem"]["id"] for group in first_step(plan.folder, result)] for result in (grpo, rloo)]
    assert asked[0] == asked[1]  # of one seed
    (lost,) = (run for run in plan.tuning() if run.method == "rloo" and run.config.optimizer.learning_rate == 1e-3)
    lost.path.rename(tmp_path / "lost")
    try:
        reported = finished_so_far(plan)
    finally:
        (tmp_path / "lost").rename(lost.path)
    assert {result.method for result in reported if result.phase == "test"} == {"grpo", "dapo", "cot"}
    assert len([result for result in reported if result.phase == "tuning"]) == 5


def test_other_settings_under_the_same_name_are_refused(tmp_path: Path) -> None:
    compare(load_study(write_study(tmp_path, methods=["grpo"], seeds=1)), Console(quiet=True))
    changed = write_study(tmp_path, methods=["grpo"], seeds=1, settings=SMALL | {"sampling.temperature": 0.5})
    with pytest.raises(LampoError, match=r"made with other settings.*sampling\.temperature"):
        compare(load_study(changed), Console(quiet=True))


def test_ctrl_c_ends_with_checkpoints_and_the_same_command_gives_what_an_undisturbed_study_gives(
    tmp_path: Path,
) -> None:
    settings = SMALL | {"training.steps": 40, "evaluation.every": 10, "run.checkpoint_every": 1000}
    disturbed, undisturbed = tmp_path / "a", tmp_path / "b"
    for folder in (disturbed, undisturbed):
        folder.mkdir()
        write_study(folder, seeds=1, settings=settings)
    command = [*warm.python(), "-m", "lampo", "compare", str(disturbed / "study.yaml")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any(
        record["stage"] == "train" for file in disturbed.rglob("lampo-*/metrics.jsonl") for record in lines(file)
    ):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Go on with: lampo compare" in output
    assert list(disturbed.rglob("checkpoints/train-*")), output
    ours, theirs = (
        compare(load_study(folder / "study.yaml"), Console(quiet=True)) for folder in (disturbed, undisturbed)
    )
    assert [[(p.step, p.accuracy, p.rollouts) for p in result.points] for result in ours] == [
        [(p.step, p.accuracy, p.rollouts) for p in result.points] for result in theirs
    ]
