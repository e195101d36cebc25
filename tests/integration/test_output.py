"""Output that fails must never stop, shorten or change a run: closed pipes, a full disk, no output at all, real signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lampo.config.explain import dump_config

from ..helpers import warm
from ..helpers.small_run import curve, resume, run_to_end, small_config


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_to_end(small_config(tmp_path_factory.mktemp("uninterrupted")))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_config(small_config(tmp_path)))
    return path


def wait_for_lines(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 120
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < count:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("where", ["| head -1", "> /dev/full", ">&- 2>&-"])
def test_a_run_whose_output_fails_is_the_same_run(
    where: str, recipe: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    # a stream that is closed from the start is about the start of the process
    python = sys.executable if "&-" in where else " ".join(warm.python())
    command = f'set -o pipefail; {python} -m lampo train "{recipe}" {where}'
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr
    assert ("The output cannot be written" in result.stderr) == ("2>" not in where)
    assert curve(tmp_path / "small") == curve(uninterrupted)
    assert (tmp_path / "small" / "report.html").exists()
    assert (tmp_path / "small" / "model").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_run_that_is_asked_to_stop_after_its_reader_is_gone_writes_its_checkpoint(
    recipe: Path, tmp_path: Path, uninterrupted: Path, number: signal.Signals
) -> None:
    path = tmp_path / "small"
    command = [*warm.python(), "-m", "lampo", "train", str(recipe), "--set", "run.checkpoint_every=100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        wait_for_lines(path, 1, process)
        process.stdout.close()
        process.send_signal(number)
        errors = process.stderr.read()
    assert process.returncode == 130, errors
    assert "Stopping after this step, with a checkpoint. Press Ctrl-C again to stop at once." in errors
    assert f"Go on with: lampo train {path} --resume" in errors
    assert list((path / "checkpoints").iterdir())
    resume(path)
    assert curve(path) == curve(uninterrupted)


def test_a_second_ctrl_c_stops_at_once_and_says_so(recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "small"
    command = [*warm.python(), "-m", "lampo", "train", str(recipe)]
    long = ["--set", "warmstart.steps=2", "--set", "training.steps=1", "--set", "sampling.problems_per_step=30000"]
    with subprocess.Popen([*command, *long], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for_lines(path, 3, process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate()
    assert process.returncode == 130, errors
    assert (
        f"Stopped at once. What was done since the last checkpoint is lost. Go on with: lampo train {path} --resume"
        in output
    )
    assert "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_before_its_first_step_leaves_nothing(
    recipe: Path, tmp_path: Path, number: signal.Signals
) -> None:
    many = ["--set", "task.num_train=300000", "--set", "task.digits=6"]
    with subprocess.Popen(
        [*warm.python(), "-m", "lampo", "train", str(recipe), *many],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        while "run directory" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        output, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "Stopped at once. Nothing was done yet, and no run is left behind." in output
    assert os.listdir(tmp_path) == ["recipe.yaml"]
