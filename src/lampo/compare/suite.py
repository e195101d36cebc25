"""A suite: tasks with starts that are kept as files, into which a method is entered without running the others again.

The settings of a task are those of a study whose results are kept. Its methods began from other starts, so they are compared with
the study's own baseline. The methods that were run from the suite's starts are rows, each a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from ..config.explain import explain_errors
from ..config.load import parse_setting, read_yaml
from ..config.methods import METHODS
from ..messages import did_you_mean, joined
from ..options import OWN, Name, Options
from ..types import LampoError
from .results import RunResult, read_note, read_results
from .study import MethodEntry, Plan, Planned, load_study

PACKAGED = "suite"
ROW = "row.parquet"
RATE = "optimizer.learning_rate"
SHARED = (
    *("run", "engine", "model", "task", "decontamination", "prompt", "verifier", "warmstart", "evaluation"),
    *("training.steps", "rewards.verifier"),
)
"""Settings that a method cannot bring: all methods have those of the task."""

_PACKAGE = Path(__file__).resolve().parents[1]


class SuiteTask(Options):
    """One task of a suite. Paths are relative to the suite's file."""

    study: str
    """Folder of the study that it takes its settings from: it holds study.yaml and results.parquet."""
    task: str | None = None
    """The task, where the study has several."""
    also: list[str] = Field(default_factory=list)
    """Studies of the same task, of one task each, whose further methods stand in the table too."""
    start: str
    """Folder of the model that every run begins from."""


class Suite(Options):
    """A suite of tasks, on which methods are compared with a baseline."""

    name: Name
    """Name of the suite. What is entered here lives in FOLDER/NAME."""
    tasks: dict[Name, SuiteTask] = Field(min_length=1)
    """The tasks by the names that tables give them."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings over those of the studies, for all runs, as `section.key: value`."""
    baseline: str = "grpo"
    """The method that the others are compared with."""
    seeds: int = Field(default=10, gt=0)
    """Runs of a method on each task: 0, 1, ..."""
    names: dict[str, str] = Field(default_factory=dict)
    """What tables call a method that has another name in a study."""
    folder: str = "runs"
    """Where the folder of the suite is made."""


@dataclass(frozen=True, slots=True)
class Row:
    """One method from the suite's starts, as its file has it.

    Attributes:
        name: of the method in tables.
        runs: on all tasks, each by its name in the suite.
        note: how they were made, each as JSON: `method`, the `commits` that ran it, `versions` of the first run, and the files of own
            `code` by name.
    """

    name: str
    runs: tuple[RunResult, ...]
    note: dict[str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """A method that is entered.

    Attributes:
        method: what it is.
        folder: where its runs and its row lie.
        kept: the row beside the suite's file that it adds to. None: it is new.
        runs: what is run here, seed by seed, so that one that is stopped early has all tasks of some seeds.
    """

    method: MethodEntry
    folder: Path
    kept: Row | None
    runs: tuple[Planned, ...]

    @property
    def settings(self) -> str:
        """The method as a row's note has it."""
        return self.method.model_dump_json(exclude_defaults=True)


class OpenSuite:
    """A suite with its studies and its rows.

    Raises:
        LampoError: a study, a task of it or a start is missing.
    """

    def __init__(self, suite: Suite, file: Path) -> None:
        self.suite = suite
        self._beside = file.parent.resolve()
        self.folder = Path(suite.folder) / suite.name
        self._plans = {label: self._plan(label) for label in suite.tasks}

    @cached_property
    def rows(self) -> list[Row]:
        """Those beside the suite's file, then those that were entered here.

        Raises:
            LampoError: one cannot be read, or two of the same name have other runs.
        """
        rows: dict[str, Row] = {}
        for file in (*self._kept_files, *sorted(self.folder.glob(f"*/{ROW}"))):
            row = read_row(file)
            if unknown := {run.task for run in row.runs} - set(self.suite.tasks):
                raise LampoError(f"{file} has runs on {joined(sorted(unknown))}, which are no tasks of the suite.")
            kept = rows.get(row.name)
            if kept and not (set(kept.runs) <= set(row.runs) or set(row.runs) <= set(kept.runs)):
                raise LampoError(f"{file} has other runs of {row.name} than the suite's own row. Move it away.")
            if kept is None or len(kept.runs) < len(row.runs):
                rows[row.name] = row
        return list(rows.values())

    @cached_property
    def studies(self) -> list[list[RunResult]]:
        """The runs of each study on its task, by the suite's names of tasks and methods; those that made no update are left out."""
        found = []
        for label, task in self.suite.tasks.items():
            for folder in (task.study, *task.also):
                runs = read_results(self._beside / folder / "results.parquet")
                name = next(iter(self._plans[label].study.tasks)) if folder == task.study else None
                kept = [run for run in runs if run.phase == "test" and name in (None, run.task) and trained(run)]
                names = self.suite.names
                found.append([replace(run, task=label, method=names.get(run.method, run.method)) for run in kept])
        return found

    def entry(self, method: MethodEntry, seeds: int) -> Entry:
        """A method as it is run here: with so many seeds, and at the study's learning rate of the baseline if it brings none.

        Where the suite has a row of this method, what is missing in it is run.

        Raises:
            LampoError: the suite has a row of that name with other settings, or a setting does not hold.
        """
        kept = next((row for row in map(read_row, self._kept_files) if row.name == method.name), None)
        runs: list[Planned] = []
        for label, plan in self._plans.items():
            (name,) = plan.study.tasks
            entered = method.model_copy(update={"learning_rates": method.learning_rates or [self._rate(label)]})
            others = [each for each in plan.study.methods if each.name != method.name]
            begin = {"model.path": str(self._start(label)), "warmstart.steps": 0}
            runs += plan.changed(
                name=method.name,
                folder=str(self.folder),
                tasks={label: plan.study.tasks[name]},
                settings=plan.study.settings | self.suite.settings | begin,
                methods=[*others, entered],
                seeds=seeds,
            ).test({}, only=method.name)
        done = {(run.task, run.seed) for run in kept.runs} if kept else set()
        missing = sorted((run for run in runs if (run.task, run.seed) not in done), key=lambda run: run.seed)
        entry = Entry(method, self.folder / method.name, kept, tuple(missing))
        if kept and kept.note["method"] != entry.settings:
            raise LampoError(
                f"The suite has a row {method.name} with other settings: {kept.note['method']}. Give yours another name: --name mine."
            )
        return entry

    @property
    def _kept_files(self) -> list[Path]:
        return sorted(self._beside.glob("*.parquet"))

    def _plan(self, label: str) -> Plan:
        """The study of a task, with that task alone."""
        task = self.suite.tasks[label]
        plan = load_study(self._beside / task.study / "study.yaml")
        known = plan.study.tasks
        name = task.task or next(iter(known))
        if name not in known or (task.task is None and len(known) > 1):
            raise LampoError(f"The task {label} of the suite must name a task of {task.study}: {', '.join(known)}.")
        if not (self._start(label) / "config.json").is_file():
            raise LampoError(f"The task {label} of the suite has no start: there is no model in {self._start(label)}.")
        return plan.changed(tasks={name: known[name]})

    def _start(self, label: str) -> Path:
        return self._beside / self.suite.tasks[label].start

    def _rate(self, label: str) -> float:
        for study in self.studies:
            for run in study:
                if (run.task, run.method) == (label, self.suite.baseline):
                    return run.learning_rate
        raise LampoError(f"The study of the task {label} has no runs of {self.suite.baseline}.")


def trained(run: RunResult) -> bool:
    """Whether it made an update, as far as it got."""
    return any(point.updates > 0 for point in run.points)


def find_suite(path: Path) -> Path | None:
    """The file of a suite: the packaged one by its name, or a file whose tasks name studies. None: it is no suite."""
    if str(path) == PACKAGED and not path.exists():
        folders = _PACKAGE / "docs", _PACKAGE.parents[1] / "docs"
        folder = next((folder for folder in folders if folder.is_dir()), folders[0])
        return folder / "results" / "suite" / "suite.yaml"
    values = read_yaml(path, "study", "`recipe:` and `methods:`")
    return path if "tasks" in values and "recipe" not in values and "methods" not in values else None


def open_suite(file: Path) -> OpenSuite:
    """Read the file of a suite, and the studies that it names.

    Raises:
        LampoError: it cannot be read, a value does not hold, or a study or a start is missing.
    """
    values = read_yaml(file, "suite", "`name:` and `tasks:`")
    try:
        suite = Suite.model_validate(values)
    except ValidationError as error:
        raise LampoError(f"The suite {file} has settings that do not hold:\n{explain_errors(error, Suite)}") from None
    return OpenSuite(suite, file)


def entered_method(method: str, settings: Sequence[str], name: str | None) -> MethodEntry:
    """A method as the command line names it.

    Args:
        method: a method by name, or python:module.function for an advantage of one's own.
        settings: over those of the method, as section.key=value.
        name: of the row; that of the method or of the function if not given.

    Raises:
        LampoError: there is no such method, a setting is not a method's to bring, or there are settings and no name.
    """
    own = method.startswith(OWN)
    if not own and method not in METHODS:
        raise LampoError(
            f"There is no method {method!r}.{did_you_mean(method, METHODS)} Name one of {', '.join(METHODS)}, "
            f"or {OWN}module.function."
        )
    values: dict[str, Any] = dict(map(parse_setting, settings))
    for key in values:
        if shared := [section for section in SHARED if f"{key}.".startswith(f"{section}.")]:
            raise LampoError(f"--set {key}: all methods of a suite have the {shared[0]} of its tasks.")
    if settings and name is None:
        raise LampoError(f"With --set {settings[0]} it is not {method} any more. Give it a name: --name mine.")
    rate = values.pop(RATE, None)
    try:
        return MethodEntry(
            name=name or method.rpartition(".")[2],
            method=None if own else method,
            settings={"advantage.name": method, **values} if own else values,
            learning_rates=None if rate is None else [rate],
        )
    except ValidationError as error:
        raise LampoError(f"The method cannot be entered so:\n{explain_errors(error, MethodEntry)}") from None


def read_row(file: Path) -> Row:
    """A row from its file.

    Raises:
        LampoError: it cannot be read, or is not of one method.
    """
    runs, note = read_results(file), read_note(file)
    names = {run.method for run in runs}
    if len(names) != 1 or not {"method", "commits"} <= note.keys():
        raise LampoError(f"{file} is no row of a suite: lampo compare suite --method NAME writes one.")
    return Row(names.pop(), tuple(runs), note)
