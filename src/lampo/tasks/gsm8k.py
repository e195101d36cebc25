"""GSM8K (arXiv 2110.14168): grade-school word problems whose answers are whole numbers."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal, Self

from pydantic import model_validator

from ..types import Problem
from .columns import Columns, drop_overlap, to_problems
from .hub import rows_of
from .task import Task, TaskOptions

MARKER = "####"
_CALCULATION = re.compile(r"<<[^<>]*>>")


class Gsm8kColumns(Columns):
    """Columns of GSM8K as it is published: the answer column holds the solution, `####` and the answer."""

    prompt: str = "question"
    """Column of the question."""


class Gsm8kOptions(TaskOptions):
    """GSM8K: 7,473 + 1,319 grade-school word problems, from the hub or from local files."""

    name: Literal["gsm8k"] = "gsm8k"
    """Selects this task."""
    path: str = "openai/gsm8k"
    """Data set on the Hugging Face hub, with splits train and test."""
    train: str | None = None
    """Local data to train on, instead of the hub: CSV, JSONL, Parquet, or a dataset folder."""
    heldout: str | None = None
    """Local data to measure on. It goes with `train`."""
    columns: Gsm8kColumns = Gsm8kColumns()
    """Names of the columns. With `reference`, the answer column needs no solution in it."""

    @model_validator(mode="after")
    def _both_files(self) -> Self:
        if (self.train is None) != (self.heldout is None):
            raise ValueError("give both `train` and `heldout` (local files), or neither (the hub)")
        return self

    def load(self) -> Task:
        """Read the problems. A reference is the solution without calculator marks, and ends in a line "#### answer".

        Raises:
            LampoError: the hub cannot be reached, or a file or column is missing.
        """
        train = self._side(self.train, "train")
        heldout = self._side(self.heldout, "test")
        return Task(drop_overlap(train, heldout, self.train or self.path), heldout)

    def _side(self, file: str | None, split: str) -> list[Problem]:
        advice = (
            "Without a network, set task.train and task.heldout to local files (CSV, JSONL, Parquet), "
            "and task.columns if their columns are not named question and answer."
        )
        rows = list(rows_of(file, self.path, "main", split, advice=advice))
        source = file or f"{self.path} ({split})"
        return [
            split_solution(problem)
            for problem in to_problems(rows, self.columns, source=source, id_prefix=f"gsm8k/{split}")
        ]


def split_solution(problem: Problem) -> Problem:
    r"""Part "solution #### answer" and clean both: no calculator marks <<...>>, no commas or $ in the answer.

    >>> problem = Problem("0", "48 and half as many?", "48/2 = <<48/2=24>>24\n48+24 = <<48+24=72>>72\n#### $1,072")
    >>> split_solution(problem).answer, split_solution(problem).reference
    ('1072', '48/2 = 24\n48+24 = 72\n#### 1072')
    """
    solution, _, answer = problem.answer.rpartition(MARKER)
    answer = answer.replace(",", "").replace("$", "").strip()
    solution = (problem.reference or solution).partition(MARKER)[0]
    solution = _CALCULATION.sub("", solution).strip()
    reference = f"{solution}\n{MARKER} {answer}" if solution else None
    return dataclasses.replace(problem, answer=answer, reference=reference)
