"""The user's own problems, from JSONL or Parquet files."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ..types import LampoError
from .base import Task, TaskOptions
from .files import Columns, drop_overlap, prompt_key, read_rows, to_problems
from .split import is_heldout


class JsonlOptions(TaskOptions):
    """Your own problems from JSONL or Parquet files: a prompt, an answer, and a reference solution if there is one."""

    name: Literal["jsonl"] = "jsonl"
    """Selects this task."""
    train: str
    """File of the problems to train on (.jsonl or .parquet)."""
    heldout: str | None = None
    """File of the problems to measure on."""
    heldout_fraction: float | None = Field(default=None, gt=0, lt=1)
    """Without `heldout`: the share of `train` that is held out, chosen by a hash of the prompt's text."""
    columns: Columns = Columns()
    """Names of the columns."""

    @model_validator(mode="after")
    def _one_heldout(self) -> Self:
        if (self.heldout is None) == (self.heldout_fraction is None):
            raise ValueError("give either `heldout` (a file) or `heldout_fraction` (a share of `train`), and not both")
        return self

    def load(self) -> Task:
        """Read the files; a prompt that is in both is left out of training. One file on both sides is a benchmark.

        Raises:
            LampoError: a file or column is missing, a line is malformed, or a side of two is empty.
        """
        problems = to_problems(read_rows(self.train), self.columns, source=self.train, id_prefix="jsonl/train")
        if self.heldout is not None:
            heldout = to_problems(read_rows(self.heldout), self.columns, source=self.heldout, id_prefix="jsonl/heldout")
            train = drop_overlap(problems, heldout, self.train)
        else:
            fraction = self.heldout_fraction or 0.0
            heldout = [problem for problem in problems if is_heldout(prompt_key(problem.prompt), fraction)]
            train = [problem for problem in problems if not is_heldout(prompt_key(problem.prompt), fraction)]
        if (not train and self.heldout != self.train) or not heldout:
            raise LampoError(
                f"{self.train}: {len(train)} problems are left to train on and {len(heldout)} to measure on. "
                "Both sides need some: change task.heldout or task.heldout_fraction, or add problems."
            )
        return Task(train, heldout)
