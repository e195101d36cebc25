"""`lampo compare suite`: the table of a suite, and a method that is entered into it."""

from __future__ import annotations

import inspect
import json
import os
import shlex
import sys
from pathlib import Path

from rich.console import Console

from ..algo.registry import OwnEstimatorOptions
from ..config.schema import TrainConfig
from ..options import OWN, load_function
from ..rewards import PythonReward
from ..store.files import write_file
from ..store.lock import lock
from ..types import LampoError
from ..view.output import say, unfailing_output
from .collect import collect
from .command import refuse_what_engines_cannot_do
from .comparison import compare_methods
from .comparison_page import write_comparison
from .progress import PhaseProgress
from .results import write_results
from .schedule import crash_of, has_ended, run_all
from .study import MethodEntry
from .suite import ROW, Entry, Row, open_suite, read_row
from .suite_table import suite_text

CODE = "code"
OWN_FUNCTIONS = (OwnEstimatorOptions, PythonReward)


def show_suite(file: Path) -> None:
    """The command without a method: print the table.

    Raises:
        LampoError: the suite, a study of it or a row cannot be read.
    """
    with unfailing_output():
        suite = open_suite(file)
        print(suite_text(suite.suite, suite.rows, suite.studies))


def enter(
    file: Path, method: MethodEntry, console: Console, *, seeds: int | None, workers: int | None, only_page: bool
) -> None:
    """The command with a method: run it on every task, from where it stands, and print it beside all others.

    Args:
        file: of the suite.
        method: what is entered.
        console: where progress is shown.
        seeds: how many of the suite's, from 0; all if not given.
        workers: runs at once; one a processor if not given.
        only_page: run nothing, and take the runs that ended by now.

    Raises:
        LampoError: the method cannot be run on a task, or its code is another one than that of its runs.
        SystemExit: with status 130, the user stopped it. The same call resumes.
    """
    with unfailing_output():
        suite = open_suite(file)
        if seeds is not None and seeds > suite.suite.seeds:
            raise LampoError(f"--seeds {seeds}: the suite has {suite.suite.seeds} seeds.")
        entry, left_out = suite.entry(method, seeds or suite.suite.seeds), []
        if not only_page:
            try:
                left_out = _run(entry, console, workers or os.cpu_count() or 1)
            except KeyboardInterrupt:
                told = f"Stopped. Go on with: {shlex.join(['lampo', *sys.argv[1:]])}"
                say(told)
                raise SystemExit(130) from None
        row = _write_row(entry)
        rows = [*(each for each in suite.rows if each.name != row.name), row]
        text = suite_text(suite.suite, rows, suite.studies, row.name)
        results = [run for each in rows for run in each.runs]
        page = write_comparison(
            entry.folder,
            compare_methods(results, suite.suite.baseline),
            results,
            baseline=suite.suite.baseline,
            command=shlex.join(["lampo", *sys.argv[1:]]),
            versions=json.loads(row.note["versions"]),
            study=file.read_text(encoding="utf-8"),
        )
        write_file(entry.folder / "suite.md", text.encode())
        print("\n".join([text, *left_out, f"page: {page}\nrow: {entry.folder / ROW}"]))


def _run(entry: Entry, console: Console, workers: int) -> list[str]:
    """Bring the runs of a method to their end, if any is missing.

    Returns:
        A sentence for each task that cannot be loaded here, whose runs are left out. The same call makes them once it can.
    """
    if not entry.runs:
        return []
    console.print("checking tasks, and functions of your own", markup=False)
    cannot = _check(entry)
    runs = [run for run in entry.runs if run.task not in cannot]
    left_out = [f"{task} is not run: {reason}" for task, reason in cannot.items()]
    for line in left_out:
        console.print(line, markup=False)
    with lock(entry.folder / "entry.lock", f"The entry in {entry.folder}"):
        progress = PhaseProgress(entry.method.name, len(runs), console)
        with progress.shown():
            run_all(runs, workers, 1, progress)
    return left_out


def _check(entry: Entry) -> dict[str, str]:
    """See before the first run which tasks can be loaded, and that the method can be run on them.

    Returns:
        Why a task cannot be loaded, by its name: a package that it needs is missing, for example.

    Raises:
        LampoError: no task can; the method cannot be run; or a file of its own is another one than that of the runs that are here.
    """
    from ..process import prepare
    from ..train.own_functions import try_own_functions
    from ..verify import VerifierPool

    one_of_task = {run.task: run for run in entry.runs}
    refuse_what_engines_cannot_do([*one_of_task.values()])
    prepare(entry.runs[0].config)
    cannot: dict[str, str] = {}
    with VerifierPool(1) as pool:
        for task, run in one_of_task.items():
            try:
                problems = run.config.task.load().train
            except LampoError as error:
                cannot[task] = str(error)
                continue
            try_own_functions(run.config, problems, pool)
    if len(cannot) == len(one_of_task):
        raise LampoError("\n".join(["No task can be run.", *(f"{task}: {reason}" for task, reason in cannot.items())]))
    entry.folder.mkdir(parents=True, exist_ok=True)
    for name, code in _own_code(entry.runs[0].config).items():
        if _code_of_runs(entry).get(name, code) != code:
            raise LampoError(
                f"{name} has changed since the runs of {entry.method.name} began. Give the new one another name with --name, or delete "
                f"{entry.folder}, which has it as it was."
            )
        (entry.folder / CODE).mkdir(exist_ok=True)
        write_file(entry.folder / CODE / name, code.encode())
    return cannot


def _own_code(config: TrainConfig) -> dict[str, str]:
    """The files that a method's own functions stand in, by name."""
    paths = [each.function for each in (config.advantage, *config.rewards) if isinstance(each, OWN_FUNCTIONS)]
    paths += [config.loss.surrogate.removeprefix(OWN)] if config.loss.surrogate.startswith(OWN) else []
    files = [Path(inspect.getfile(load_function(path, "the function"))) for path in paths]
    return {file.name: file.read_text(encoding="utf-8") for file in files}


def _code_of_runs(entry: Entry) -> dict[str, str]:
    """The files of own functions as the runs had them: those of the kept row, and those of the runs that began here."""
    kept = json.loads(entry.kept.note["code"]) if entry.kept else {}
    return kept | {file.name: file.read_text(encoding="utf-8") for file in sorted((entry.folder / CODE).glob("*"))}


def _write_row(entry: Entry) -> Row:
    """The runs that ended by now, those that the suite has included, and how they were made: a file that can be handed on.

    Raises:
        LampoError: none has ended.
    """
    ended = [run for run in entry.runs if has_ended(run)]
    made = [json.loads(file.read_text()) for run in ended if (file := run.path / "manifest.json").is_file()]
    kept, note = (entry.kept.runs, entry.kept.note) if entry.kept else ((), {})
    if not made and not kept:
        raise LampoError(f"No run of {entry.method.name} in {entry.folder} has ended yet, so there is no row to show.")
    if made:
        commits = {each["git_commit"] or "unknown" for each in made} | set(json.loads(note.get("commits", "[]")))
        versions = {key: made[0][key] for key in ("python", "platform")} | made[0]["versions"]
        note = {
            "method": entry.settings,
            "commits": json.dumps(sorted(commits)),
            "versions": json.dumps(versions),
            "code": json.dumps(_code_of_runs(entry)),
        }
    entry.folder.mkdir(parents=True, exist_ok=True)
    write_results(entry.folder / ROW, [*kept, *(collect(run, "test", crash_of(run)) for run in ended)], note)
    return read_row(entry.folder / ROW)
