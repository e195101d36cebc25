"""A study file: which methods, seeds and tasks, and from it the recipe of every run."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from ..config.explain import explain_errors
from ..config.load import load_config, read_yaml
from ..config.recipes import find_recipe
from ..config.schema import TrainConfig
from ..messages import joined
from ..options import NAME, OWN, Name, Options
from ..types import LampoError
from .results import MeasureName, Phase

TUNING_SEED = 1_000_000
"""Seeds of tuning runs begin here, so that none of them is a seed of the comparison."""

Settings = dict[str, Any]
START = "start"


class MethodEntry(Options):
    """One competitor: a method, and what is different about it."""

    name: Name
    """Name in tables and on the page."""
    method: str | None
    """Name of the method (`lampo methods`). null for none, as with an advantage of your own in `settings`, where it may be left out."""
    settings: Settings = Field(default_factory=dict)
    """Settings over those of the method, as `section.key: value`."""
    learning_rates: list[float] | None = None
    """Its own grid. Unset: that of the study."""


def _entry(entry: Any) -> Any:
    """An entry of `methods` as it is meant: a name alone is a method, or an advantage of one's own, which needs no method."""
    if isinstance(entry, str) and entry.startswith(OWN):
        return {"name": entry.rpartition(".")[2], "method": None, "settings": {"advantage.name": entry}}
    if isinstance(entry, str):
        return {"name": entry, "method": entry}
    settings = entry.get("settings") if isinstance(entry, Mapping) else None
    if isinstance(settings, Mapping) and str(settings.get("advantage.name", "")).startswith(OWN):
        return {"method": None, **entry}
    return entry


class TuningOptions(Options):
    """How the learning rate of each method is chosen."""

    seeds: int = Field(default=2, gt=0)
    """Runs for each learning rate of the grid, with seeds that the comparison does not use."""
    problems: int = Field(default=200, gt=0)
    """Held-out problems that only tuning is measured on, drawn by a hash of their ids. The comparison is measured on the others."""


class Study(Options):
    """A comparison of methods over seeds, and over tasks if there are several."""

    name: Name
    """Name of the study. Its runs live in FOLDER/NAME."""
    recipe: str
    """The recipe that all runs share: a path relative to the study file, or the name of a packaged one, such as quickstart."""
    settings: Settings = Field(default_factory=dict)
    """Settings over those of the recipe, for all runs, as `section.key: value`."""
    tasks: dict[str, Settings] = Field(default={"task": {}}, min_length=1)
    """Settings of each task by its name. Unset: one task, that of the recipe."""
    methods: list[MethodEntry] = Field(min_length=1)
    """Names of methods, python:module.function for an advantage of your own, or entries with settings of their own."""
    baseline: str = "grpo"
    """The one of the methods that the others are compared with."""
    primary: MeasureName | None = None
    """The measure that the study is judged by, which its page has first. Unset: samples after training."""
    seeds: Annotated[int, Field(gt=0)] | dict[str, Annotated[int, Field(gt=0)]] = 10
    """Runs of every method. A mapping has those of each, with `default` for the others. Runs are paired with the baseline's by seed."""
    learning_rates: list[float] = Field(default_factory=list)
    """Grid tried for every method before the comparison. Empty or one: nothing is tuned."""
    tuning: TuningOptions = TuningOptions()
    """How the learning rate is chosen."""
    workers: int = Field(default=1, gt=0)
    """Runs at once."""
    threads: int = Field(default=1, gt=0)
    """CPU threads of each."""
    folder: str = "runs"
    """Where the folder of the study is made."""

    @field_validator("methods", mode="before")
    @classmethod
    def _plain_names(cls, entries: Any) -> Any:
        if not isinstance(entries, list):
            return entries
        return [_entry(entry) for entry in entries]

    @model_validator(mode="after")
    def _names_are_known(self) -> Study:
        names = [entry.name for entry in self.methods]
        if len(set(names)) < len(names):
            raise ValueError(f"two methods have the same name: {', '.join(names)}")
        if self.baseline not in names:
            raise ValueError(f"the baseline {self.baseline!r} is not among the methods {', '.join(names)}")
        if isinstance(self.seeds, dict) and (unknown := set(self.seeds) - {*names, "default"}):
            raise ValueError(f"seeds names {', '.join(sorted(unknown))}, which are not among the methods")
        for entry in self.methods:
            if len({f"{rate:g}" for rate in self.grid(entry)}) < len(self.grid(entry)):
                raise ValueError(f"the learning rates of {entry.name} are not six digits apart: {self.grid(entry)}")
        if START in names:
            raise ValueError(f"no method can be called {START}: that is the name of the runs that warm up")
        if any(not re.match(NAME, task) for task in self.tasks):
            raise ValueError(f"the names of tasks must be fit for folders: {', '.join(self.tasks)}")
        return self

    def seeds_of(self, method: str) -> range:
        """The seeds of a method: 0, 1, ..."""
        count = self.seeds if isinstance(self.seeds, int) else self.seeds.get(method, self.seeds.get("default", 10))
        return range(count)

    def grid(self, entry: MethodEntry) -> list[float]:
        """The learning rates to choose from. At most one: there is nothing to choose."""
        return self.learning_rates if entry.learning_rates is None else entry.learning_rates


NOTHING = MethodEntry(name=START, method="cot")
WARMED_UP = ("model", "task", "decontamination", "prompt", "warmstart")
WARM_START: dict[str, Any] = {**dict.fromkeys(WARMED_UP, True), "training": {"tokens_per_microbatch"}}
"""What the weights after a warm start depend on, beside the seed."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One run of a study."""

    task: str
    method: str
    seed: int
    phase: Phase | Literal["start"]
    config: TrainConfig

    @property
    def path(self) -> Path:
        """Its run directory."""
        return Path(self.config.run.folder) / self.config.run.name

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.path.parent.parent.parent / "logs" / f"{self.task}-{self.path.name}.log"

    def last_line(self) -> str:
        """What it has written last. Empty if nothing."""
        try:
            with self.log.open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - 4_000))
                lines = log.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


class Plan:
    """The runs of a study.

    Where the recipe has a warm start, it is made once for each seed, and every method goes on from the same weights. So does every task
    that differs from an earlier one in nothing they depend on, in the size of its groups for example.
    """

    def __init__(self, study: Study, recipe: Path, file: Path) -> None:
        self.study = study
        self._recipe = recipe
        self._file = file
        self.folder = Path(study.folder) / study.name
        self._bare: dict[tuple[str, str], TrainConfig] = {}

    def starts(self) -> list[Planned]:
        """The warm starts that the other runs go on from. None if the recipe has none."""
        seeds: dict[tuple[str, int], None] = {}
        for task in self.study.tasks:
            for entry in self.study.methods:
                tuned = len(self.study.grid(entry)) > 1
                tuning = [TUNING_SEED + index for index in range(self.study.tuning.seeds)] if tuned else []
                seeds |= {(self._starts_with[task], seed): None for seed in [*tuning, *self.study.seeds_of(entry.name)]}
        runs = [self._start(task, seed) for task, seed in seeds]
        return [run for run in runs if run.config.warmstart.steps > 0]

    def tuning(self) -> list[Planned]:
        """The runs that choose learning rates."""
        return [
            self._run(task, entry, TUNING_SEED + index, rate, "tuning")
            for index in range(self.study.tuning.seeds)
            for task in self.study.tasks
            for entry in self.study.methods
            if len(self.study.grid(entry)) > 1 and self._trains(task, entry)
            for rate in self.study.grid(entry)
        ]

    def test(self, chosen: Mapping[tuple[str, str], float], *, only: str | None = None) -> list[Planned]:
        """The runs that are compared, with the learning rate chosen for (task, method); those of one method if `only` names it."""
        entries = [entry for entry in self.study.methods if only in (None, entry.name)]
        most = max(len(self.study.seeds_of(entry.name)) for entry in entries)
        runs = []
        for seed in range(most):  # seed by seed, so that a study that is stopped early has pairs
            for task in self.study.tasks:
                for entry in entries:
                    if seed in self.study.seeds_of(entry.name):
                        rate = chosen.get((task, entry.name), next(iter(self.study.grid(entry)), None))
                        runs.append(self._run(task, entry, seed, rate, "test"))
        return runs

    def _trains(self, task: str, entry: MethodEntry) -> bool:
        return self.config_of(task, entry).training.steps > 0

    @cached_property
    def _starts_with(self) -> dict[str, str]:
        """For each task the first one whose warm start is its own."""
        first: dict[str, str] = {}
        return {
            task: first.setdefault(self.config_of(task).model_dump_json(include=WARM_START), task)
            for task in self.study.tasks
        }

    def _start(self, task: str, seed: int) -> Planned:
        task = self._starts_with[task]
        settings = self._run_settings(task, f"start-seed{seed}", seed)
        settings += ["evaluation.final_problems=1", "evaluation.benchmarks=[]"]
        return Planned(task, "start", seed, "start", self._config(task, NOTHING, settings))

    def _run(self, task: str, entry: MethodEntry, seed: int, rate: float | None, phase: Phase) -> Planned:
        name = f"{entry.name}-seed{seed}" if rate is None else f"{entry.name}-lr{rate:g}-seed{seed}"
        settings = self._run_settings(task, name, seed)
        settings += [] if rate is None else [_setting("optimizer.learning_rate", rate)]
        self._refuse_another_contest(task, entry)
        start = self._start(task, seed)
        if start.config.warmstart.steps > 0:
            checkpoint = start.path / "checkpoints" / f"warmstart-{start.config.warmstart.steps:06d}"
            settings += [_setting("model.path", str(checkpoint)), "model.tokenizer=null", "warmstart.steps=0"]
        problems = self.study.tuning.problems
        tunes = any(len(self.study.grid(each)) > 1 for each in self.study.methods)
        if phase == "tuning":
            settings += [
                f"evaluation.problems={problems}",
                f"evaluation.final_problems={problems}",
                "evaluation.benchmarks=[]",
            ]
        elif tunes:
            settings += [f"evaluation.skip={self.config_of(task).evaluation.skip + problems}"]
        return Planned(task, entry.name, seed, phase, self._config(task, entry, settings))

    def changed(self, **changes: Any) -> Plan:
        """The same study with other values of some of its fields."""
        return Plan(self.study.model_copy(update=changes), self._recipe, self._file)

    def check(self) -> None:
        """See that every run can be set up and that tuning leaves problems to compare on, before the first run begins.

        Raises:
            LampoError: it does not; a method or a task cannot be set up; or the primary measure would not be measured.
        """
        self.test({})
        unmeasured = [task for task in self.study.tasks if not self.config_of(task).evaluation.greedy]
        if self.study.primary == "most_likely_response" and unmeasured:
            raise LampoError(
                f"The primary measure is the most likely response, which {joined(unmeasured)} would not measure. "
                "Set evaluation.greedy: true."
            )
        for task in dict.fromkeys(run.task for run in self.tuning()):
            config = self.config_of(task)
            count, used = len(config.task.load().heldout), config.evaluation.skip + self.study.tuning.problems
            if count <= used:
                raise LampoError(
                    f"The task {task} has {count} held-out problems, and tuning uses {used}, which leaves none to compare on. "
                    "Lower tuning.problems, give the task more held-out problems, or give one learning rate to each method."
                )

    def config_of(self, task: str, entry: MethodEntry = NOTHING) -> TrainConfig:
        """The recipe of a task, or of a method on it, without a run's name, folder and seed."""
        if (task, entry.name) not in self._bare:
            self._bare[task, entry.name] = self._config(task, entry, [])
        return self._bare[task, entry.name]

    def _refuse_another_contest(self, task: str, entry: MethodEntry) -> None:
        """Methods answer the same problems and are measured alike. Where there is a warm start, they share that too."""
        ours, theirs = self.config_of(task, entry), self.config_of(task)
        shared = WARMED_UP if theirs.warmstart.steps > 0 else ("task", "decontamination")
        differing = [
            section for section in (*shared, "evaluation") if getattr(ours, section) != getattr(theirs, section)
        ]
        if differing:
            raise LampoError(
                f"The method {entry.name} of the study has settings of its own in {', '.join(differing)}, which all methods share. "
                "Give them to the study or to a task."
            )

    def _run_settings(self, task: str, name: str, seed: int) -> list[str]:
        folder = self.folder / "runs" / task
        return [
            _setting("run.folder", str(folder)),
            _setting("run.name", name),
            f"run.seed={seed}",
            f"run.threads={self.study.threads}",
        ]

    def _config(self, task: str, entry: MethodEntry, settings: list[str]) -> TrainConfig:
        shared = [_setting(key, value) for key, value in (self.study.settings | self.study.tasks[task]).items()]
        own = [_setting(key, value) for key, value in entry.settings.items()]
        try:
            return load_config(
                self._recipe, [*shared, _setting("method", entry.method), *own, *settings], beside=self._file
            )
        except LampoError as error:
            raise LampoError(f"The method {entry.name} of the study cannot be set up. {error}") from None


def load_study(file: Path) -> Plan:
    """Read a study file.

    Raises:
        LampoError: it is missing or is not YAML, a key is unknown, a value does not hold.
    """
    values = read_yaml(file, "study", "`recipe:` and `methods:`")
    if "methods" not in values and {"model", "task"} <= values.keys():
        raise LampoError(
            f"{file} is a recipe and no study. A study names it: {{name: study, recipe: {file.name}, methods: [grpo, lampo]}}"
        )
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        raise LampoError(f"The study {file} has settings that do not hold:\n{explain_errors(error, Study)}") from None
    beside = Path(os.path.normpath(file.parent / study.recipe))
    is_file = beside.exists() or beside.suffix in (".yaml", ".yml")
    return Plan(study, find_recipe(beside if is_file else Path(study.recipe)), file)


def dump_study(study: Study) -> str:
    """Every setting of the study as YAML."""
    return yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _setting(key: str, value: Any) -> str:
    return f"{key}={json.dumps(value, default=str)}"
