"""Checkpoints: Hugging Face folders that also hold what it takes to go on as if nothing had happened."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import safetensors.torch

from .files import damage, write_folder
from .optimizer import Optimizer
from .policy import Policy
from .types import LampoError

Stage = Literal["warmstart", "train"]
_NAME = re.compile(r"(warmstart|train)-(\d+)")


@dataclass(frozen=True, slots=True)
class Place:
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
        """Later places compare greater."""
        return (self.stage == "train", self.step)


class Companion(Protocol):
    """What a method keeps from step to step beside the policy and its optimiser."""

    def save(self, folder: Path) -> None:
        """Write everything that later steps depend on into an empty folder, without pickle."""
        ...

    def load(self, folder: Path) -> None:
        """Go on, bit for bit, with what `save` wrote."""
        ...


def save_checkpoint(
    folder: Path,
    place: Place,
    policy: Policy,
    optimizer: Optimizer | None,
    companions: Mapping[str, Companion],
    *,
    keep: int,
) -> Path:
    """Write `folder/STAGE-STEP` whole or not at all, then delete all but the `keep` latest up to it.

    Later ones stay, until the run comes to their step: it went on from an earlier one because they are damaged.

    The weights lie in the folder itself (transformers and vLLM load it as it is), the optimiser's state and the place in its
    subfolder `training`, and each companion in a folder of its own below that. Schedule, order of problems and random numbers are
    functions of the place and the seed.

    Raises:
        LampoError: the disk is full or cannot be written.
    """

    def fill(aside: Path) -> None:
        policy.save(aside)
        training = aside / "training"
        training.mkdir()
        save_optimizer(training, optimizer)
        for name, companion in companions.items():
            (training / name).mkdir()
            companion.save(training / name)
        (training / "place.json").write_text(
            json.dumps({"stage": place.stage, "step": place.step, "metrics_bytes": place.metrics_bytes})
        )

    path = folder / f"{place.stage}-{place.step:06d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_folder(path, fill)
    except OSError as error:
        raise LampoError(
            f"Cannot write the checkpoint {path}: {error}. The checkpoints before it are whole; "
            "make room and go on with --resume."
        ) from None
    for old in [other for other in _folders(folder) if _order(other) <= place.order][:-keep]:
        shutil.rmtree(old)
    return path


def latest_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """The latest checkpoint whose checksums hold, and a line for every damaged one passed over."""
    complaints: list[str] = []
    for path in reversed(_folders(folder)):
        wrong = damage(path)
        if wrong is None:
            return path, complaints
        complaints.append(f"Checkpoint {path} is damaged ({wrong}); falling back to the one before it.")
    return None, complaints


def read_place(checkpoint: Path) -> Place:
    """Where the run stood when the checkpoint was written."""
    return Place(**json.loads((checkpoint / "training" / "place.json").read_text()))


def restore_checkpoint(checkpoint: Path, optimizer: Optimizer, companions: Mapping[str, Companion]) -> None:
    """Put back the optimiser's state and that of the companions."""
    load_optimizer(checkpoint / "training", optimizer)
    for name, companion in companions.items():
        companion.load(checkpoint / "training" / name)


def save_optimizer(folder: Path, optimizer: Optimizer | None) -> None:
    """Write an optimiser's state into a folder."""
    state = {} if optimizer is None else {name: value.contiguous() for name, value in optimizer.state().items()}
    safetensors.torch.save_file(state, folder / "optimizer.safetensors")


def load_optimizer(folder: Path, optimizer: Optimizer) -> None:
    """Put back what `save_optimizer` wrote."""
    optimizer.load_state(safetensors.torch.load_file(folder / "optimizer.safetensors"))


def _folders(folder: Path) -> list[Path]:
    """Checkpoints in order; half-written ones have another name."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=_order)


def _order(path: Path) -> tuple[bool, int]:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return (match[1] == "train", int(match[2]))
