"""What a source of problems has to offer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..options import Options
from ..types import LampoError, Problem


@dataclass(frozen=True, slots=True)
class Task:
    """Problems to train on and problems to measure on. The two never overlap. A benchmark has none to train on."""

    train: Sequence[Problem]
    heldout: Sequence[Problem]

    def __post_init__(self) -> None:
        if not self.train and not self.heldout:
            raise LampoError(
                "The task has no problems. Check the path, the split and the columns of the recipe's `task`."
            )

    def for_training(self) -> Task:
        """The task itself, if it has what training needs.

        Raises:
            LampoError: it has nothing to train on, or nothing to measure on.
        """
        for split in ("train", "heldout"):
            if not getattr(self, split):
                raise LampoError(
                    f"The task has no {split} problems. A benchmark can only be evaluated on (lampo eval). Of any other "
                    "task, check the path, the split and the columns of the recipe's `task`."
                )
        return self


class TaskOptions(Options):
    """Settings common to all tasks. A task adds a `name` and its own."""

    def load(self) -> Task:
        """Read or generate the problems. Raises LampoError for what the user can mend."""
        raise NotImplementedError
