"""Where problems come from, one file per source."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .arithmetic import ArithmeticOptions, worked_solution
from .base import Task, TaskOptions
from .benchmark import Aime24Options, Aime25Options, Math500Options
from .code import CodeTaskOptions
from .files import Columns
from .gpqa import GpqaDiamondOptions
from .gsm8k import Gsm8kOptions
from .jsonl import JsonlOptions
from .math import MathTaskOptions
from .mix import MixOptions, MixPart
from .mixture_of_thoughts import MixtureOfThoughtsOptions
from .reasoning_gym import ReasoningGymTaskOptions
from .word_arithmetic import WordArithmeticOptions

AnyTask = Annotated[
    ArithmeticOptions
    | WordArithmeticOptions
    | Gsm8kOptions
    | MathTaskOptions
    | MixtureOfThoughtsOptions
    | CodeTaskOptions
    | ReasoningGymTaskOptions
    | JsonlOptions
    | MixOptions
    | Math500Options
    | Aime24Options
    | Aime25Options
    | GpqaDiamondOptions,
    Field(discriminator="name"),
]
"""The section `task` of a recipe: a name, and the options of that task."""

MixPart.model_rebuild(_types_namespace={"AnyTask": AnyTask})  # a mixture holds tasks, and is one
MixOptions.model_rebuild()

TASKS: dict[str, type[TaskOptions]] = {
    "arithmetic": ArithmeticOptions,
    "word_arithmetic": WordArithmeticOptions,
    "gsm8k": Gsm8kOptions,
    "math": MathTaskOptions,
    "mixture_of_thoughts": MixtureOfThoughtsOptions,
    "code": CodeTaskOptions,
    "reasoning_gym": ReasoningGymTaskOptions,
    "jsonl": JsonlOptions,
    "mix": MixOptions,
    "math500": Math500Options,
    "aime24": Aime24Options,
    "aime25": Aime25Options,
    "gpqa_diamond": GpqaDiamondOptions,
}
"""All tasks by name; the first line of a class's docstring says what it is."""

__all__ = [
    "TASKS",
    "Aime24Options",
    "Aime25Options",
    "AnyTask",
    "ArithmeticOptions",
    "CodeTaskOptions",
    "Columns",
    "GpqaDiamondOptions",
    "Gsm8kOptions",
    "JsonlOptions",
    "Math500Options",
    "MathTaskOptions",
    "MixOptions",
    "MixPart",
    "MixtureOfThoughtsOptions",
    "ReasoningGymTaskOptions",
    "Task",
    "TaskOptions",
    "WordArithmeticOptions",
    "worked_solution",
]
