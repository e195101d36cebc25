"""Where problems come from, one file per source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from .arithmetic import ArithmeticOptions, worked_solution
from .arithmetic_choice import ArithmeticChoiceOptions
from .benchmark import Aime24Options, Aime25Options, Math500Options
from .code import CodeTaskOptions
from .columns import Columns
from .gpqa import GpqaDiamondOptions
from .gsm8k import Gsm8kOptions
from .math import MathTaskOptions
from .mix import MixOptions, MixPart
from .mixture_of_thoughts import MixtureOfThoughtsOptions
from .own_files import FilesOptions
from .reasoning_gym import ReasoningGymTaskOptions
from .small_programs import SmallProgramsOptions
from .task import Task, TaskOptions
from .word_arithmetic import WordArithmeticOptions
from .word_problems import WordProblemsOptions

OLD_NAMES = {"jsonl": "files"}
"""Earlier names of tasks, which recipes and commands may still use."""


def _under_its_name(values: Any) -> Any:
    """The section `task` of a recipe, with the task's name of today."""
    if isinstance(values, Mapping) and values.get("name") in OLD_NAMES:
        return {**values, "name": OLD_NAMES[values["name"]]}
    return values


AnyTask = Annotated[
    ArithmeticOptions
    | WordArithmeticOptions
    | WordProblemsOptions
    | ArithmeticChoiceOptions
    | SmallProgramsOptions
    | Gsm8kOptions
    | MathTaskOptions
    | MixtureOfThoughtsOptions
    | CodeTaskOptions
    | ReasoningGymTaskOptions
    | FilesOptions
    | MixOptions
    | Math500Options
    | Aime24Options
    | Aime25Options
    | GpqaDiamondOptions,
    Field(discriminator="name"),
    BeforeValidator(_under_its_name),
]
"""The section `task` of a recipe: a name, and the options of that task."""

MixPart.model_rebuild(_types_namespace={"AnyTask": AnyTask})  # a mixture holds tasks, and is one
MixOptions.model_rebuild()

TASKS: dict[str, type[TaskOptions]] = {
    "arithmetic": ArithmeticOptions,
    "word_arithmetic": WordArithmeticOptions,
    "word_problems": WordProblemsOptions,
    "arithmetic_choice": ArithmeticChoiceOptions,
    "small_programs": SmallProgramsOptions,
    "gsm8k": Gsm8kOptions,
    "math": MathTaskOptions,
    "mixture_of_thoughts": MixtureOfThoughtsOptions,
    "code": CodeTaskOptions,
    "reasoning_gym": ReasoningGymTaskOptions,
    "files": FilesOptions,
    "mix": MixOptions,
    "math500": Math500Options,
    "aime24": Aime24Options,
    "aime25": Aime25Options,
    "gpqa_diamond": GpqaDiamondOptions,
}
"""All tasks by name. The first line of a class's docstring says what it is."""

__all__ = [
    "TASKS",
    "Aime24Options",
    "Aime25Options",
    "AnyTask",
    "ArithmeticChoiceOptions",
    "ArithmeticOptions",
    "CodeTaskOptions",
    "Columns",
    "FilesOptions",
    "GpqaDiamondOptions",
    "Gsm8kOptions",
    "Math500Options",
    "MathTaskOptions",
    "MixOptions",
    "MixPart",
    "MixtureOfThoughtsOptions",
    "ReasoningGymTaskOptions",
    "SmallProgramsOptions",
    "Task",
    "TaskOptions",
    "WordArithmeticOptions",
    "WordProblemsOptions",
    "worked_solution",
]
