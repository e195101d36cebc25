"""Checkpoints on disk: which there are, which is whole, and how far the run had come."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..types import LampoError
from .files import find_corruption

Stage = Literal["warmstart", "train"]

POSITION = "position.json"
_OLD_POSITION = "place.json"
"""Its name in the checkpoints of older runs."""

_NAME = re.compile(r"(warmstart|train)-(\d+)")


@dataclass(frozen=True, slots=True)
class Position:
    """How far a run has come.

    Attributes:
        stage: warmstart or train.
        step: steps of the stage that are done.
        metrics_bytes: size of metrics.jsonl at that moment; what lies beyond is undone on resume.
    """

    stage: Stage
    step: int
    metrics_bytes: int

    @property
    def order(self) -> tuple[bool, int]:
        """Later positions compare greater."""
        return (self.stage == "train", self.step)


def latest_checkpoint(folder: Path, unfit: Callable[[Path], str | None] | None = None) -> tuple[Path | None, list[str]]:
    """The latest checkpoint whose checksums hold, and a line for every one passed over.

    Args:
        folder: of the checkpoints.
        unfit: says of a whole one why it cannot be used all the same, or None.
    """
    complaints: list[str] = []
    for path in reversed(checkpoint_folders(folder)):
        wrong = find_corruption(path) or _find_wrong_position(path)
        if wrong is not None:
            complaints.append(f"Checkpoint {path} is damaged ({wrong}); falling back to the one before it.")
        elif unfit is not None and (wrong := unfit(path)) is not None:
            complaints.append(f"Checkpoint {path} cannot be used ({wrong}); falling back to the one before it.")
        else:
            return path, complaints
    return None, complaints


def _find_wrong_position(checkpoint: Path) -> str | None:
    try:
        position = read_position(checkpoint)
    except (OSError, ValueError, TypeError) as error:
        return f"{POSITION} cannot be read: {error}"
    named = f"{position.stage}-{position.step:06d}"
    return None if named == checkpoint.name else f"it holds {named}"


def is_run(folder: Path) -> bool:
    """Whether a folder is a run directory, and not a model."""
    return (folder / "config.yaml").is_file() and not (folder / "config.json").exists()


def model_folder(run: Path) -> Path:
    """Where a run keeps its model at its end. A run that goes on deletes it with the next checkpoint."""
    return run / "model"


def model_of_run(run: Path) -> Path:
    """The weights that a run directory stands for: the model it kept, else its latest whole checkpoint.

    Raises:
        LampoError: it has neither.
    """
    if model_folder(run).is_dir():
        return model_folder(run)
    checkpoint, complaints = latest_checkpoint(run / "checkpoints")
    if checkpoint is None:
        raise LampoError(
            " ".join(
                [
                    f"The run {run} has no model yet: neither {model_folder(run).name}/ nor a whole checkpoint.",
                    *complaints,
                ]
            )
        )
    return checkpoint


def read_position(checkpoint: Path) -> Position:
    """How far the run had come when the checkpoint was written."""
    folder = checkpoint / "training"
    file = folder / POSITION if (folder / POSITION).is_file() else folder / _OLD_POSITION
    return Position(**json.loads(file.read_text()))


def checkpoint_folders(folder: Path) -> list[Path]:
    """Checkpoints in order. Half-written ones have another name."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=checkpoint_order)


def checkpoint_order(path: Path) -> tuple[bool, int]:
    """What `checkpoint_folders` sorts by: later ones compare greater."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return (match[1] == "train", int(match[2]))
