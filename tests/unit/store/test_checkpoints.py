import json
from pathlib import Path

import pytest

from lampo.store.checkpoints import Position, latest_checkpoint, read_position
from lampo.store.files import write_folder


def checkpoint(run: Path, name: str, position_file: str = "position.json") -> Path:
    stage, _, step = name.partition("-")

    def fill(folder: Path) -> None:
        (folder / "training").mkdir()
        position = {"stage": stage, "step": int(step), "metrics_bytes": 7}
        (folder / "training" / position_file).write_text(json.dumps(position))

    write_folder(run / "checkpoints" / name, fill)
    return run / "checkpoints" / name


@pytest.mark.parametrize("file", ["position.json", "place.json"])  # the second is that of old runs
def test_a_checkpoint_says_how_far_the_run_had_come(tmp_path: Path, file: str) -> None:
    assert read_position(checkpoint(tmp_path, "train-000012", file)) == Position("train", 12, 7)


def test_training_comes_after_the_warm_start(tmp_path: Path) -> None:
    for name in ("warmstart-000400", "train-000002", "train-000010"):
        checkpoint(tmp_path, name)
    latest, complaints = latest_checkpoint(tmp_path / "checkpoints")
    assert latest is not None
    assert (latest.name, complaints) == ("train-000010", [])
    (latest / "training" / "position.json").write_text("{")
    latest, (complaint,) = latest_checkpoint(tmp_path / "checkpoints")
    assert latest is not None
    assert latest.name == "train-000002"
    assert "train-000010 is damaged" in complaint
    assert latest_checkpoint(tmp_path / "nowhere") == (None, [])
