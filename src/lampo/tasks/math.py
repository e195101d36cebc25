"""MATH (arXiv 2103.03874): competition problems with worked solutions."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ..types import LampoError, Problem
from ..verify import committed_answer
from .benchmark import ProblemColumns, with_math
from .columns import drop_overlap, to_problems
from .dropped import Dropped
from .files import Row
from .hub import rows_of
from .task import Task, TaskOptions

SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)


class MathTaskOptions(TaskOptions):
    """MATH: 7,500 + 5,000 competition problems, with worked solutions where the data set has them."""

    name: Literal["math"] = "math"
    """Selects this task."""
    path: str = "EleutherAI/hendrycks_math"
    """Data set on the Hugging Face hub, with a configuration for each subject and splits train and test."""
    train: str | None = None
    """Local data to train on, instead of the hub: CSV, JSONL, Parquet, or a dataset folder."""
    heldout: str | None = None
    """Local data to measure on. It goes with `train`."""
    levels: list[int] = Field(default=[1, 2, 3, 4, 5], min_length=1)
    """Levels of difficulty to train on, from 1 to 5. A problem without a level is kept."""
    columns: ProblemColumns = ProblemColumns()
    """Names of the columns. Where there is no answer column, the answer is the last box of `solution`."""

    @model_validator(mode="after")
    def _both_files(self) -> Self:
        if (self.train is None) != (self.heldout is None):
            raise ValueError("give both `train` and `heldout` (local files), or neither (the hub)")
        return self

    def load(self) -> Task:
        """Read the problems. The solution, where there is one, is the reference.

        Raises:
            LampoError: the hub cannot be reached, or a file or column is missing.
        """
        heldout = self._side(self.heldout, "test", range(1, 6))
        train = self._side(self.train, "train", self.levels)
        return Task(drop_overlap(train, heldout, self.train or self.path), heldout)

    def _side(self, file: str | None, split: str, levels: Sequence[int]) -> list[Problem]:
        advice = "Without a network, set task.train and task.heldout to local files (CSV, JSONL, Parquet)."
        subjects = [None] if file else list(SUBJECTS)
        rows = [row for subject in subjects for row in rows_of(file, self.path, subject, split, advice=advice)]
        source = file or f"{self.path} ({split})"
        dropped = Dropped(source)
        kept: list[Row] = []
        for number, (_, row) in enumerate(dropped.watch(rows), start=1):
            level = _level(row)
            if level is not None and level not in levels:
                dropped.add("of other levels")
                continue
            answer, solution = row.get(self.columns.answer), row.get("solution")
            if answer in (None, "") and isinstance(solution, str):
                answer = committed_answer(solution)
            if answer in (None, ""):
                dropped.add("without an answer")
                continue
            kept.append((number, row | {self.columns.answer: answer}))
        dropped.report()
        if not kept:
            raise LampoError(f"{source}: no problem is left. Check task.levels and the columns.")
        reference = {"reference": "solution"} if any("solution" in row for _, row in kept) else {}
        columns = self.columns.model_copy(update=reference if self.columns.reference is None else {})
        problems = to_problems(kept, columns, source=source, id_prefix=f"math/{split}")
        return [with_math(dataclasses.replace(problem, prompt=problem.prompt.strip())) for problem in problems]


def _level(row: dict[str, Any]) -> int | None:
    """The level of a row (column `level`, or `difficulty`): a number, or text such as "Level 3". None if it has none.

    >>> _level({"level": "Level 3"}), _level({"difficulty": 2.0}), _level({"level": "Level ?"})
    (3, 2, None)
    """
    digits = re.fullmatch(r"(?:Level\s*)?([0-9]+)(?:\.0)?", str(row.get("level", row.get("difficulty", ""))).strip())
    return int(digits[1]) if digits else None
