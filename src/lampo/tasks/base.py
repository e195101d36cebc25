"""What a source of problems has to offer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..options import Options
from ..types import LampoError, Problem


@dataclass(frozen=True, slots=True)
class Task:
    """Problems to train on and problems to measure on; the two never overlap."""

    train: Sequence[Problem]
    heldout: Sequence[Problem]

    def __post_init__(self) -> None:
        for split in ("train", "heldout"):
            if not getattr(self, split):
                raise LampoError(
                    f"The task has no {split} problems. Check the path, the split and the columns of the recipe's `task`."
                )


class TaskOptions(Options):
    """Settings common to all tasks; a task adds a `name` and its own."""

    def load(self) -> Task:
        """Read or generate the problems. Raises LampoError for what the user can mend."""
        raise NotImplementedError
