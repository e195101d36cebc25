"""Benchmarks in mathematics: problems to measure on, none to train on."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from ..types import Problem
from ..verify import MathOptions
from .columns import Columns, to_problems
from .hub import rows_of
from .task import Task, TaskOptions


class ProblemColumns(Columns):
    """Columns of the usual data sets in mathematics."""

    prompt: str = "problem"
    """Column of the question."""


class MathBenchmark(TaskOptions):
    """A benchmark whose answers are compared as mathematics. Each has a name and an address on the hub."""

    split: ClassVar[str] = "test"
    """Of the data set on the hub."""
    path: str
    """Data set on the Hugging Face hub."""
    file: str | None = None
    """Local data, instead of the hub: CSV, JSONL, Parquet, or a dataset folder."""
    columns: ProblemColumns = ProblemColumns()
    """Names of the columns."""

    def load(self) -> Task:
        """Read the problems. There is nothing to train on.

        Raises:
            LampoError: the hub cannot be reached, or the file or a column is missing.
        """
        name = type(self).model_fields["name"].default
        advice = f"Without a network, point it to a local file: --data {name}=FILE, or `file` of the task {name}."
        rows = list(rows_of(self.file, self.path, None, self.split, advice=advice))
        problems = to_problems(rows, self.columns, source=self.file or self.path, id_prefix=name)
        return Task([], [with_math(problem) for problem in problems])


class Math500Options(MathBenchmark):
    """MATH-500: the 500 problems of MATH's test set that arXiv 2305.20050 measures on."""

    name: Literal["math500"] = "math500"
    """Selects this task."""
    path: str = "HuggingFaceH4/MATH-500"
    """Data set on the Hugging Face hub."""


class Aime24Options(MathBenchmark):
    """AIME 2024, I and II: 30 problems whose answers are whole numbers from 0 to 999."""

    name: Literal["aime24"] = "aime24"
    """Selects this task."""
    path: str = "HuggingFaceH4/aime_2024"
    """Data set on the Hugging Face hub."""
    split: ClassVar[str] = "train"


class Aime25Options(MathBenchmark):
    """AIME 2025, I and II: 30 problems whose answers are whole numbers from 0 to 999."""

    name: Literal["aime25"] = "aime25"
    """Selects this task."""
    path: str = "math-ai/aime25"
    """Data set on the Hugging Face hub."""


def with_math(problem: Problem) -> Problem:
    """The problem, judged by the verifier `math`."""
    return dataclasses.replace(problem, verifier=MathOptions())
