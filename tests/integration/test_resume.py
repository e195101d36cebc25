"""Killed for real at many points, then resumed: weights and metrics as if nothing had happened."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lampo.train.run import Run
from lampo.train.session import Stopped
from lampo.types import LampoError

from ..helpers import warm
from ..helpers.small_run import curve, resume, run_to_end, small_config

# (module, attribute, call): the process kills itself with SIGKILL when this function is called for the so manieth time.
DEATHS = {
    "before the first step": ("lampo.train.loop", "warm_start", 1),
    "in the warm start": ("lampo.train.loop", "imitate", 4),
    "in the first evaluation": ("lampo.train.session", "evaluate", 1),
    "in an update": ("lampo.train.loop", "update", 4),
    "between rollouts and update": ("lampo.train.loop", "collate", 5),
    "in a checkpoint, half its files written": ("lampo.learner.optimizer.safetensors.torch", "save_file", 3),
    "in a checkpoint, before its checksums": ("lampo.store.files", "_digest", 20),
    "in a checkpoint, before the rename": ("lampo.store.files", "sync_folder", 28),
    "after a checkpoint, before the old one is deleted": ("lampo.train.checkpoint.shutil", "rmtree", 4),
    "in the last checkpoint": ("lampo.train.run", "save_checkpoint", 5),
}

# What some of them leave in the folder of checkpoints, to be sure that they happen where they say.
LEFT_BEHIND = {
    "before the first step": [],
    "in the warm start": ["warmstart-000002"],
    "in a checkpoint, half its files written": [".train-000002.partial", "warmstart-000002", "warmstart-000004"],
    "in a checkpoint, before its checksums": [".train-000002.partial", "warmstart-000002", "warmstart-000004"],
    "in a checkpoint, before the rename": [".train-000002.partial", "warmstart-000002", "warmstart-000004"],
    "after a checkpoint, before the old one is deleted": ["train-000002", "warmstart-000002", "warmstart-000004"],
}


def die_at(folder: Path, death: tuple[str, str, int], changes: dict[str, Any]) -> None:
    module_path, attribute, call = death
    parts = module_path.split(".")
    __import__(".".join(parts[:3]))
    target: Any = sys.modules[".".join(parts[:3])]
    for part in parts[3:]:
        target = getattr(target, part)
    original, count = getattr(target, attribute), 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(target, attribute, deadly)
    run_to_end(small_config(folder, **changes))


@pytest.fixture(scope="module")
def server() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lampo.train.loop"])
    return context


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_to_end(small_config(tmp_path_factory.mktemp("uninterrupted")))


def same(path: Path, expected: Path) -> None:
    assert curve(path) == curve(expected)
    for name in ("model.safetensors", "training/optimizer.safetensors"):
        ours, theirs = (load_file(run / "checkpoints" / "train-000006" / name) for run in (path, expected))
        assert ours.keys() == theirs.keys()
        assert all(ours[key].equal(theirs[key]) for key in ours)
    for step in range(1, 7):
        name = f"rollouts/{step:06d}.jsonl.gz"
        assert (path / name).read_bytes() == (expected / name).read_bytes()
    assert not list(path.rglob("*.partial"))


@pytest.mark.parametrize("when", list(DEATHS))
def test_killed_and_resumed_equals_uninterrupted(when: str, tmp_path: Path, server: Any, uninterrupted: Path) -> None:
    process = server.Process(target=die_at, args=(tmp_path, DEATHS[when], {}))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "the run ended before it was killed"
    left = sorted(folder.name for folder in (tmp_path / "small" / "checkpoints").glob("*"))
    assert left == LEFT_BEHIND.get(when, left)
    assert resume(tmp_path / "small") == []
    same(tmp_path / "small", uninterrupted)


def test_killed_twice_from_outside(tmp_path: Path, server: Any, uninterrupted: Path) -> None:
    path = tmp_path / "small"
    process = server.Process(target=run_to_end, args=(small_config(tmp_path),))
    for target, wait_for in ((process, 6), (server.Process(target=resume, args=(path,)), 10)):
        target.start()
        deadline = time.monotonic() + 60
        while target.is_alive() and time.monotonic() < deadline:
            lines = (path / "metrics.jsonl").read_bytes().count(b"\n") if (path / "metrics.jsonl").exists() else 0
            if lines >= wait_for:
                target.kill()
            time.sleep(0.001)
        target.join()
        assert target.exitcode == -signal.SIGKILL
    resume(path)
    same(path, uninterrupted)


def test_a_half_written_line_of_metrics_is_undone(tmp_path: Path, uninterrupted: Path) -> None:
    path = tmp_path / "small"
    shutil.copytree(uninterrupted, path)
    shutil.rmtree(path / "checkpoints" / "train-000006")
    with (path / "metrics.jsonl").open("ab") as stream:
        stream.write(b'{"stage": "train", "st')
    resume(path)
    same(path, uninterrupted)


@pytest.mark.parametrize("damage", ["flip a bit", "cut short", "delete a file", "delete the checksums"])
def test_a_damaged_checkpoint_is_passed_over_and_told(tmp_path: Path, uninterrupted: Path, damage: str) -> None:
    path = tmp_path / "small"
    shutil.copytree(uninterrupted, path)
    checkpoint = path / "checkpoints" / "train-000006"
    weights = checkpoint / "model.safetensors"
    match damage:
        case "flip a bit":
            data = bytearray(weights.read_bytes())
            data[-5] ^= 1
            weights.write_bytes(data)
        case "cut short":
            weights.write_bytes(weights.read_bytes()[:1000])
        case "delete a file":
            (checkpoint / "training" / "optimizer.safetensors").unlink()
        case _:
            (checkpoint / "checksums.json").unlink()
    (complaint,) = resume(path)
    assert "train-000006 is damaged" in complaint
    assert "falling back to the one before it" in complaint
    same(path, uninterrupted)


def test_a_run_that_fell_back_keeps_what_it_saves(
    tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small"
    shutil.copytree(uninterrupted, path)
    for folder in (path / "checkpoints").iterdir():
        (folder / "checksums.json").unlink()
    assert len(list((path / "checkpoints").iterdir())) == 2  # the last two steps that were saved, both damaged
    log, count = Run.log, 0

    def interrupting(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return log(*args)

    monkeypatch.setattr(Run, "log", interrupting)
    with pytest.raises(Stopped, match="Stopped after step 1 of the train stage, with a checkpoint"):
        resume(path)
    run, complaints = Run.resume(path)
    assert (run.position.stage, run.position.step) == ("train", 1)
    assert len(complaints) == 2
    run.close()
    resume(path)
    same(path, uninterrupted)
    assert sorted(folder.name for folder in (path / "checkpoints").iterdir()) == ["train-000004", "train-000006"]


@pytest.mark.parametrize("damage", ["a bit", "all of it"])
def test_a_reference_that_is_damaged_in_mid_training_is_not_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    path = run_to_end(small_config(tmp_path, loss__kl_coefficient=0.05, training__steps=2, run__keep_checkpoints=9))
    reference = path / "reference"
    if damage == "a bit":
        data = bytearray((reference / "model.safetensors").read_bytes())
        data[-5] ^= 1
        (reference / "model.safetensors").write_bytes(data)
    else:
        shutil.rmtree(reference)
    with pytest.raises(
        LampoError, match="reference, the policy that reinforcement learning started from, cannot be used"
    ):
        resume(path)
    shutil.rmtree(path / "checkpoints" / "train-000002")  # before the first training step it can be made anew
    expected = run_to_end(small_config(tmp_path / "whole", loss__kl_coefficient=0.05, training__steps=2))
    resume(path)
    assert curve(path) == curve(expected)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, uninterrupted: Path) -> None:
    path = tmp_path / "small"
    shutil.copytree(uninterrupted, path)
    resume(path)
    same(path, uninterrupted)


@pytest.mark.parametrize(("lines", "stage"), [(2, "warmstart"), (7, "train")])
def test_ctrl_c_ends_after_the_step_with_a_checkpoint(
    tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch, lines: int, stage: str
) -> None:
    log, count = Run.log, 0

    def interrupting(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == lines:
            os.kill(os.getpid(), signal.SIGINT)
        return log(*args)

    monkeypatch.setattr(Run, "log", interrupting)
    with pytest.raises(Stopped, match=f"of the {stage} stage, with a checkpoint"):
        run_to_end(small_config(tmp_path))
    resume(tmp_path / "small")
    same(tmp_path / "small", uninterrupted)


def test_lora_and_kl_runs_resume_too(tmp_path: Path, server: Any) -> None:
    changes = {"model__lora": {"rank": 2}, "loss__kl_coefficient": 0.05, "training__updates_per_batch": 2}
    expected = run_to_end(small_config(tmp_path / "whole", **changes))
    process = server.Process(target=die_at, args=(tmp_path, ("lampo.train.loop", "update", 4), changes))
    process.start()
    process.join()
    resume(tmp_path / "small")
    assert curve(tmp_path / "small") == curve(expected)


FULL_DISK = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))  # the operating system refuses larger files, as a full disk does
sys.argv = ["lampo", "train", sys.argv[1]]
from lampo.cli import main
main()
"""


def test_a_disk_that_takes_no_more_loses_nothing_that_was_saved(tmp_path: Path, uninterrupted: Path) -> None:
    from lampo.config.explain import dump_config

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_config(small_config(tmp_path)))
    result = subprocess.run([*warm.python(), "-c", FULL_DISK, str(recipe)], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "error: " in result.stderr
    assert "File too large" in result.stderr
    assert "Traceback" not in result.stderr
    path = tmp_path / "small"
    assert not list((path / "checkpoints").iterdir())  # whole or absent
    resume(path)
    same(path, uninterrupted)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        LampoError, match=r"Cannot make a run directory in .*file/runs: Not a directory.*--set run\.folder"
    ):
        Run.create(small_config(tmp_path / "file" / "runs"))


def test_a_resumed_run_that_cannot_start_deletes_nothing(tmp_path: Path, uninterrupted: Path) -> None:
    path = tmp_path / "small"
    shutil.copytree(uninterrupted, path)
    for weights in (path / "checkpoints").glob("*/model.safetensors"):
        weights.write_bytes(b"damaged")
    recipe = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(recipe.replace("device: auto", "device: cuda:7"))
    with pytest.raises(LampoError, match="cuda:7"):
        resume(path)
    assert len(list((path / "checkpoints").iterdir())) == 2


def test_a_run_keeps_the_tokens_of_a_micro_batch_that_the_machine_chose(tmp_path: Path, monkeypatch: Any) -> None:
    path = run_to_end(small_config(tmp_path, "training.tokens_per_microbatch=auto", training__steps=2))
    chosen = json.loads((path / "manifest.json").read_text())["chosen"]
    assert chosen == {"training.tokens_per_microbatch": max(1024, 512 * torch.get_num_threads())}
    monkeypatch.setattr("lampo.train.session.tokens_per_microbatch", lambda *_: 7)  # another machine
    resume(path, "training.steps=3")
    assert json.loads((path / "manifest.json").read_text())["chosen"] == chosen
    assert "tokens_per_microbatch: auto" in (path / "config.yaml").read_text()
