"""Where problems come from, one file per source."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .arithmetic import ArithmeticOptions, worked_solution
from .base import Task, TaskOptions
from .files import Columns
from .gsm8k import Gsm8kOptions
from .jsonl import JsonlOptions
from .word_arithmetic import WordArithmeticOptions

AnyTask = Annotated[
    ArithmeticOptions | WordArithmeticOptions | Gsm8kOptions | JsonlOptions, Field(discriminator="name")
]
"""The section `task` of a recipe: a name, and the options of that task."""

TASKS: dict[str, type[TaskOptions]] = {
    "arithmetic": ArithmeticOptions,
    "word_arithmetic": WordArithmeticOptions,
    "gsm8k": Gsm8kOptions,
    "jsonl": JsonlOptions,
}
"""All tasks by name; the first line of a class's docstring says what it is."""

__all__ = [
    "TASKS",
    "AnyTask",
    "ArithmeticOptions",
    "Columns",
    "Gsm8kOptions",
    "JsonlOptions",
    "Task",
    "TaskOptions",
    "WordArithmeticOptions",
    "worked_solution",
]
