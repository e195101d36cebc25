import subprocess
import sys
from pathlib import Path

import pytest

from lampo.types import LampoError
from lampo.view.trackers import open_trackers

tensorboard = pytest.importorskip("tensorboard")


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_back_what_was_logged(tmp_path: Path):
    from accelerate import PartialState

    config = {"model": {"name": "tiny", "lora": None}, "seed": 3, "betas": [0.9, 0.99]}
    with open_trackers(["tensorboard"], tmp_path, "a run", config) as trackers:
        trackers.log({"stage": "warmstart", "step": 2, "loss/value": 1.5}, step=2)
        trackers.log(
            {"stage": "train", "step": 1, "reward/total": 0.25, "loss/entropy": float("nan"), "note": "x"}, step=1
        )
        trackers.log({"stage": "train", "step": 2, "reward/total": 0.75}, step=2)
        trackers.log({"stage": "evaluation", "step": 2, "evaluation/accuracy": 0.5}, step=2)
    assert scalars(tmp_path / "tensorboard") == {
        "warmstart/loss/value": [(2, 1.5)],
        "reward/total": [(1, 0.25), (2, 0.75)],
        "evaluation/accuracy": [(2, 0.5)],
    }
    (settings,) = tmp_path.glob("tensorboard/*/hparams.yml")
    assert settings.read_text() == "betas: '[0.9, 0.99]'\nmodel/lora: None\nmodel/name: tiny\nseed: 3\n"
    assert PartialState._shared_state == {}  # an Accelerator made later starts afresh


def test_wandb_is_never_asked_to_go_back_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    logged: list[tuple[dict, int | None]] = []
    axes: dict[str, str] = {}

    class Tracker:
        name = "wandb"

        def __init__(self, project: str, **settings: object) -> None:
            assert (project, settings) == ("lampo", {"name": "a run", "dir": tmp_path})
            self.tracker = self

        def start(self) -> None: ...
        def store_init_configuration(self, values: dict) -> None: ...
        def finish(self) -> None: ...

        def define_metric(self, name: str, step_metric: str) -> None:
            axes[name] = step_metric

        def log(self, values: dict, step: int | None = None) -> None:
            logged.append((values, step))

    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("accelerate.tracking.WandBTracker", Tracker)
    with open_trackers(["wandb"], tmp_path, "a run", {}) as trackers:
        trackers.log({"stage": "warmstart", "step": 9, "loss/value": 1.5}, step=9)
        trackers.log({"stage": "train", "step": 1, "loss/value": 0.5}, step=1)
    assert logged == [
        ({"warmstart/loss/value": 1.5, "warmstart/step": 9}, None),
        ({"loss/value": 0.5, "step": 1}, None),
    ]
    assert axes == {"warmstart/loss/value": "warmstart/step", "loss/value": "step"}


def test_without_names_nothing_is_imported_or_written(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from lampo.view.trackers import open_trackers\n"
        f"with open_trackers([], Path({str(tmp_path)!r}), 'a run', {{'seed': 1}}) as trackers:\n"
        "    trackers.log({'a': 1.0}, 1)\n"
        "assert not {'accelerate', 'tensorboard', 'wandb'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name_is_refused_with_the_nearest(tmp_path: Path):
    with pytest.raises(LampoError, match="no tracker 'TensorBoad'. Did you mean tensorboard[?]"):
        open_trackers(["TensorBoad"], tmp_path, "a run", {})
    with pytest.raises(LampoError, match="known ones are tensorboard, wandb, trackio, mlflow"):
        open_trackers(["xyz"], tmp_path, "a run", {})


def test_a_tracker_that_is_not_installed_is_refused_before_any_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name == "tensorboard" else None)
    with pytest.raises(LampoError, match="pip install mlflow"):
        open_trackers(["tensorboard", "mlflow"], tmp_path, "a run", {})
    assert list(tmp_path.iterdir()) == []
