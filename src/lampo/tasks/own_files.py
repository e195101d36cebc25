"""The user's own problems, from files."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ..types import LampoError
from .columns import Columns, drop_overlap, prompt_key, tell_contradictions, to_problems
from .files import read_rows
from .split import is_heldout
from .task import Task, TaskOptions


class FilesOptions(TaskOptions):
    """Your own problems, as CSV, JSONL, Parquet or a Hugging Face dataset folder: a prompt and an answer a row."""

    name: Literal["files"] = "files"
    """Selects this task."""
    train: str
    """Problems to train on: a CSV, JSONL or Parquet file, or a Hugging Face dataset folder, whose split `train` is taken."""
    heldout: str | None = None
    """Problems to measure on, likewise. Of a dataset folder the split `test` is taken, else `validation`."""
    heldout_fraction: float | None = Field(default=None, gt=0, lt=1)
    """Without `heldout`: the share of `train` that is held out, chosen by a hash of the prompt's text."""
    columns: Columns = Columns()
    """Names of the columns. The others are kept, and given to your own reward function by their names."""

    @model_validator(mode="after")
    def _one_heldout(self) -> Self:
        if (self.heldout is None) == (self.heldout_fraction is None):
            raise ValueError("give either `heldout` (a file) or `heldout_fraction` (a share of `train`), and not both")
        return self

    def load(self) -> Task:
        """Read the files. A prompt that is in both is left out of training. One file on both sides is a benchmark.

        Raises:
            LampoError: a file, split or column is missing, a line is malformed, or a side of two is empty.
        """
        train_rows = read_rows(self.train, ("train",))
        problems = to_problems(train_rows, self.columns, source=self.train, id_prefix="files/train")
        tell_contradictions(problems, self.train)
        if self.heldout is not None:
            heldout_rows = read_rows(self.heldout, ("test", "validation"))
            heldout = to_problems(heldout_rows, self.columns, source=self.heldout, id_prefix="files/heldout")
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
