"""What a resume relies on, damaged or changed: mended and told, or refused before the first step."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lampo.train.finish import finish
from lampo.train.run import Run
from lampo.types import LampoError

from ..helpers import warm
from ..helpers.small_run import curve, resume, run_to_end, small_config


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_to_end(small_config(tmp_path_factory.mktemp("uninterrupted"), run__keep_checkpoints=9))


@pytest.fixture
def path(uninterrupted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(uninterrupted, tmp_path / "small"))


def shorten(metrics: Path) -> None:
    metrics.write_bytes(b"".join(metrics.read_bytes().splitlines(keepends=True)[:-1]))


def flip(metrics: Path) -> None:
    lines = metrics.read_bytes().splitlines(keepends=True)
    lines[-2] = lines[-2].replace(b'"', b"\0", 1)
    metrics.write_bytes(b"".join(lines))


def shift(metrics: Path) -> None:
    metrics.write_bytes(metrics.read_bytes().replace(b'"train"', b'"train" ', 3))


@pytest.mark.parametrize("damage", [shorten, flip, shift])
def test_metrics_that_are_damaged_cost_the_steps_after_them_and_are_told(
    path: Path, uninterrupted: Path, damage: Callable[[Path], None]
) -> None:
    damage(path / "metrics.jsonl")
    notes = resume(path)
    assert notes[0].startswith(f"Checkpoint {path / 'checkpoints' / 'train-000006'} cannot be used (metrics.jsonl ")
    assert curve(path) == curve(uninterrupted)
    assert b"\0" not in (path / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("content", [None, b"", b"\0" * 5_000])
def test_metrics_that_are_gone_are_refused_and_nothing_is_touched(path: Path, content: bytes | None) -> None:
    if content is None:
        (path / "metrics.jsonl").unlink()
    else:
        (path / "metrics.jsonl").write_bytes(content)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != ".lock"}
    with pytest.raises(LampoError, match=r"cannot be resumed: .*had [\d,]+|damaged in line 1"):
        Run.resume(path)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != ".lock"} == before


@pytest.mark.parametrize("damage", ["cut short", "a folder", "missing", "zeros"])
def test_old_rollouts_that_are_damaged_are_told_and_do_not_cost_the_report(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = path / "rollouts" / "000001.jsonl.gz"
    data = shard.read_bytes()
    shard.unlink()
    match damage:
        case "cut short":
            shard.write_bytes(data[:-20])
        case "a folder":
            shard.mkdir()
        case "zeros":
            shard.write_bytes(b"\0" * len(data))
        case _:
            pass
    (path / "rollouts" / "notes.jsonl.gz").write_bytes(b"mine")  # not ours: left alone
    shutil.rmtree(path / "checkpoints" / "train-000006")
    run, notes = Run.resume(path)
    assert len(notes) == 1
    assert notes[0].startswith("Rollouts that cannot be read: step 1 (")
    run.close()
    finish(run)
    assert (path / "report.html").exists()
    assert ("leaves out the rollouts of step 1" in caplog.text) == (damage != "missing")
    assert (path / "rollouts" / "notes.jsonl.gz").exists()


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff", b'{"resumed": 1}'])
def test_a_manifest_that_is_lost_is_written_anew(path: Path, content: bytes | None) -> None:
    if content is None:  # as after a kill between configuration and manifest
        (path / "manifest.json").unlink()
    else:
        (path / "manifest.json").write_bytes(content)
    run, notes = Run.resume(path)
    run.close()
    assert len(notes) == 1
    assert "manifest.json is" in notes[0]
    assert "written anew" in notes[0]
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["versions"]["torch"]
    assert len(manifest["resumed"]) == 1
    run, notes = Run.resume(path)
    run.close()
    assert notes == []


@pytest.mark.parametrize("content", ["[]", "{}", "1", "{", "[" * 50_000])
def test_checksums_of_another_kind_are_damage(path: Path, content: str) -> None:
    (path / "checkpoints" / "train-000006" / "checksums.json").write_text(content)
    run, (note,) = Run.resume(path)
    run.close()
    assert "train-000006 is damaged (checksums.json" in note
    assert run.position.step == 4


def test_a_checkpoint_of_another_step_is_damage(path: Path) -> None:
    shutil.rmtree(path / "checkpoints" / "train-000006")
    shutil.copytree(path / "checkpoints" / "train-000002", path / "checkpoints" / "train-000006")
    run, (note,) = Run.resume(path)
    run.close()
    assert "train-000006 is damaged (it holds train-000002)" in note
    assert run.position.step == 4


def edit(path: Path, before: str, after: str) -> None:
    config = path / "config.yaml"
    assert before in config.read_text()
    config.write_text(config.read_text().replace(before, after, 1))


def test_an_edited_config_is_refused_unless_it_is_accepted_by_name(path: Path) -> None:
    edit(path, "group_size: 4", "group_size: 5")
    with pytest.raises(LampoError, match=r"sampling.group_size: 4 then, 5 now(.|\n)*--accept sampling.group_size"):
        Run.resume(path)
    run, notes = Run.resume(path, accepted=["sampling.group_size"])
    run.close()
    assert notes == ["config.yaml was edited: sampling.group_size was 4 and is 5"]
    assert json.loads((path / "manifest.json").read_text())["resumed"][-1]["accepted"] == ["sampling.group_size"]
    run, notes = Run.resume(path)  # from here on it is the run's own
    run.close()
    assert notes == []


def test_an_edited_setting_that_may_change_is_told(path: Path) -> None:
    edit(path, "checkpoint_every: 2", "checkpoint_every: 3")
    run, notes = Run.resume(path)
    run.close()
    assert notes == ["config.yaml was edited: run.checkpoint_every was 2 and is 3"]
    edit(path, "training:\n  steps: 6", "training:\n  steps: 3")
    with pytest.raises(LampoError, match=r"training.steps: 6 then, 3 now"):
        Run.resume(path)


def test_other_versions_are_told_and_every_resume_is_recorded(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    now = manifest["versions"]["torch"]
    manifest["versions"]["torch"] = "1.0"
    (path / "manifest.json").write_text(json.dumps(manifest))
    for expected in ([f"Other versions than before: torch 1.0 then, {now} now."], []):
        run, notes = Run.resume(path)
        run.close()
        assert [note[: len(text)] for note, text in zip(notes, expected, strict=True)] == expected
    resumed = json.loads((path / "manifest.json").read_text())["resumed"]
    assert [entry["versions"]["torch"] for entry in resumed] == [now, now]


def with_file(folder: Path) -> Path:
    data = folder / "problems.jsonl"
    rows = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(8) for b in range(8)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"name": "files", "train": str(data), "heldout_fraction": 0.2}
    config = small_config(folder, task=task, rewards={"verifier": {}}, warmstart__steps=0, training__steps=2)
    return run_to_end(config)


def test_other_data_is_refused_unless_it_is_accepted(tmp_path: Path) -> None:
    path = with_file(tmp_path)
    assert resume(path, "training.steps=3") == ["training goes on from step 2 to step 3, not 2"]
    data = tmp_path / "problems.jsonl"
    data.write_text(data.read_text().replace('"answer": "14"', '"answer": "15"'))
    files = [path / name for name in ("config.yaml", "manifest.json", "metrics.jsonl")]
    before = [file.read_bytes() for file in files]
    run, _ = Run.resume(path, ["training.steps=4"])
    with pytest.raises(LampoError, match=r"not those .* was made with: .*(train|heldout): .*--accept data"):
        _train(run)
    assert [file.read_bytes() for file in files] == before  # what is refused changes nothing
    run, _ = Run.resume(path, ["training.steps=4"], accepted=["data"])
    _train(run)
    assert [line["step"] for line in curve(path) if line["stage"] == "train"] == [1, 2, 3, 4]


def _train(run: Run) -> None:
    from lampo.train.loop import train
    from lampo.view.console import Progress

    with Progress("small") as progress:
        train(run, progress)


RESUMED = """
import sys
from pathlib import Path
from lampo.train.run import Run
print("open", flush=True)
Run.resume(Path(sys.argv[1]))
"""


def test_a_run_that_another_process_works_on_is_refused_and_left_alone(path: Path) -> None:
    shutil.rmtree(path / "checkpoints" / "train-000006")  # a resume would undo steps
    run, _ = Run.resume(path)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    ended = subprocess.run([*warm.python(), "-c", RESUMED, str(path)], capture_output=True, text=True, check=False)
    assert "is under way in process" in ended.stderr
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    run.close()
    ended = subprocess.run([*warm.python(), "-c", RESUMED, str(path)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_disk_that_is_full_at_the_report_still_shows_the_table(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    run, _ = Run.resume(path)
    run.close()
    monkeypatch.setattr("lampo.train.finish.write_report", full)
    with pytest.raises(
        LampoError, match=r"Cannot write .*report\.html: No space left on device. Make room, then: lampo"
    ):
        finish(run)
    output = capsys.readouterr().out
    assert "held-out accuracy" in output
    assert "rollouts: lampo inspect" in output


@pytest.mark.parametrize("content", [b"stage: [", b"", b"- 1\n", b"\0"])
def test_a_config_that_cannot_be_read_is_refused_and_nothing_is_touched(path: Path, content: bytes) -> None:
    (path / "config.yaml").write_bytes(content)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != ".lock"}
    with pytest.raises(LampoError, match=r"config\.yaml is (not valid YAML|empty or no mapping)"):
        Run.resume(path)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != ".lock"} == before


def test_a_resumed_run_is_never_deleted_even_if_nothing_is_left_of_it(path: Path) -> None:
    shutil.rmtree(path / "checkpoints")
    (path / "metrics.jsonl").write_bytes(b"")
    run, _ = Run.resume(path)
    run.close()
    assert not run.discard_unused()
    assert path.exists()
