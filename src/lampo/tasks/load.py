"""Tasks and benchmarks as a run needs them: by name, decontaminated, their answers checked."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from pydantic import Field

from ..messages import did_you_mean
from ..options import Options
from ..types import LampoError, Problem
from . import OLD_NAMES, TASKS
from .decontaminate import NGRAM, overlaps
from .files import iterate_rows
from .task import Task, TaskOptions

logger = logging.getLogger("lampo")


class DecontaminationOptions(Options):
    """Training problems that share text with benchmarks are left out."""

    benchmarks: list[str] = Field(default_factory=list)
    """Names of the benchmarks, such as aime24. Empty: nothing is left out."""
    data: dict[str, str] = Field(default_factory=dict)
    """Local files of benchmarks, by name. The others come from the hub."""
    ngram: int = Field(default=NGRAM, ge=1)
    """Words in a row that two problems have to share."""


def load_task(options: TaskOptions, decontamination: DecontaminationOptions) -> Task:
    """The task of a recipe, without training problems that share text with the benchmarks named.

    Raises:
        LampoError: the task or a benchmark cannot be read.
    """
    task = options.load()
    for name in decontamination.benchmarks:
        heldout = load_benchmark(name, decontamination.data)
        shared = {overlap.train.id for overlap in overlaps(task.train, heldout, decontamination.ngram)}
        if shared:
            logger.warning(
                "left out %d of %d training problems that share %d words in a row with %s",
                len(shared),
                len(task.train),
                decontamination.ngram,
                name,
            )
            task = Task([problem for problem in task.train if problem.id not in shared], task.heldout)
    return task


def load_benchmark(name: str, data: Mapping[str, str]) -> Sequence[Problem]:
    """The problems of a task that are measured on.

    Args:
        name: of the task.
        data: local files by the task's name; where there is none, the task knows where its problems are.

    Raises:
        LampoError: there is no task of that name, it has no such file, or it cannot be read.
    """
    options = TASKS.get(OLD_NAMES.get(name, name))
    if options is None:
        raise LampoError(f"There is no benchmark {name!r}.{did_you_mean(name, TASKS)} Known: {', '.join(TASKS)}.")
    file, fields = data.get(name), options.model_fields
    required = [key for key, field in fields.items() if field.is_required()]
    if required and not {"file", "heldout"} & fields.keys():
        raise LampoError(
            f"A name does not say what {name} is: it needs {', '.join(required)}. Write a recipe with it as its task, and "
            "measure on what it holds out: lampo eval RECIPE."
        )
    if file is None:
        if required:
            raise LampoError(f"The benchmark {name} needs a file: --data {name}=FILE.")
        return options().load().heldout
    columns = _usual_columns(file, options) if "columns" in fields else {}
    if "file" in fields:
        return options.model_validate({"file": file, **columns}).load().heldout
    if "heldout" in fields:
        return options.model_validate({"train": file, "heldout": file, **columns}).load().heldout
    raise LampoError(f"The benchmark {name} is generated, so it takes no file. Leave --data {name}=... out.")


def _usual_columns(file: str, options: type[TaskOptions]) -> dict[str, dict[str, str]]:
    """The column of the question, where the file calls it by another of the usual names than the data set itself."""
    expected = options.model_fields["columns"].default.prompt
    present = next((row for _, row in iterate_rows(file, ("test", "validation", "train"))), {})
    found = next((name for name in (expected, "problem", "question", "prompt") if name in present), expected)
    return {"columns": {"prompt": found}}
