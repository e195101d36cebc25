"""Checkpoints: Hugging Face folders that also hold what it takes to go on as if nothing had happened."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ..learner.optimizer import Optimizer, load_optimizer, save_optimizer
from ..model.policy import Policy
from ..store.checkpoints import POSITION, Position, checkpoint_folders, checkpoint_order
from ..store.files import write_folder
from ..types import LampoError


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
    position: Position,
    policy: Policy,
    optimizer: Optimizer | None,
    companions: Mapping[str, Companion],
    *,
    keep: int,
) -> Path:
    """Write `folder/STAGE-STEP` whole or not at all, then delete all but the `keep` latest up to it.

    Later ones stay, until the run comes to their step: it went on from an earlier one because they are damaged.

    The weights lie in the folder itself (transformers and vLLM load it as it is), the optimiser's state and the position in its
    subfolder `training`, and each companion in a folder of its own below that. Schedule, order of problems and random numbers are
    functions of the position and the seed.

    Raises:
        LampoError: the disk is full or cannot be written.
    """

    def fill(partial: Path) -> None:
        policy.save(partial)
        training = partial / "training"
        training.mkdir()
        save_optimizer(training, optimizer)
        for name, companion in companions.items():
            (training / name).mkdir()
            companion.save(training / name)
        (training / POSITION).write_text(json.dumps(dataclasses.asdict(position)))

    path = folder / f"{position.stage}-{position.step:06d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_folder(path, fill)
    except OSError as error:
        raise LampoError(
            f"Cannot write the checkpoint {path}: {error}. The checkpoints before it are whole. "
            "Make room, and resume with --resume."
        ) from None
    for old in [other for other in checkpoint_folders(folder) if checkpoint_order(other) <= position.order][:-keep]:
        shutil.rmtree(old)
    return path


def restore_checkpoint(checkpoint: Path, optimizer: Optimizer, companions: Mapping[str, Companion]) -> None:
    """Put back the optimiser's state and that of the companions."""
    load_optimizer(checkpoint / "training", optimizer)
    for name, companion in companions.items():
        companion.load(checkpoint / "training" / name)
