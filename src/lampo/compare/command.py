"""`lampo compare`: run a study, choose the learning rates, compare."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..files import write_file
from ..types import LampoError
from .collect import collect
from .results import Phase, RunResult, write_results
from .schedule import is_finished, run_all
from .statistics import tuned_methods
from .study import Plan, Planned, dump_study


def compare(plan: Plan, console: Console) -> list[RunResult]:
    """Bring a study to its end, from wherever it stands, and write its results into its folder.

    Returns:
        What every run came to.

    Raises:
        LampoError: a warm start crashed twice, so that its seed has no common start.
        KeyboardInterrupt: the user stopped it; the same call goes on.
    """
    study = plan.study
    plan.folder.mkdir(parents=True, exist_ok=True)
    write_file(plan.folder / "study.yaml", dump_study(study).encode())
    _, crashed = _phase("warm starts", plan.starts(), plan, console)
    if crashed:
        raise LampoError("A warm start crashed: " + "; ".join(f"{path}: {reason}" for path, reason in crashed.items()))
    tuning, crashed = _phase("tuning", plan.tuning(), plan, console)
    results = _results(tuning, "tuning", crashed)
    chosen = {}
    for task in study.tasks:
        for tuned in tuned_methods([result for result in results if result.task == task]):
            chosen[task, tuned.method] = tuned.learning_rate
            edge = f", at the {tuned.edge} end of its grid" if tuned.edge else ""
            console.print(f"{task}: {tuned.method} goes on with the learning rate {tuned.learning_rate:g}{edge}")
    test, crashed = _phase("comparison", plan.test(chosen), plan, console)
    results += _results(test, "test", crashed)
    write_results(plan.folder / "results.parquet", results)
    return results


def finished_so_far(plan: Plan) -> list[RunResult]:
    """What the runs that are finished came to, without running any."""
    tuning = [run for run in plan.tuning() if is_finished(run)]
    results = _results(tuning, "tuning", {})
    chosen = {}
    for task in plan.study.tasks:
        for tuned in tuned_methods([result for result in results if result.task == task]):
            chosen[task, tuned.method] = tuned.learning_rate
    results += _results([run for run in plan.test(chosen) if is_finished(run)], "test", {})
    write_results(plan.folder / "results.parquet", results)
    return results


def _results(runs: Sequence[Planned], phase: Phase, crashed: dict[Path, str]) -> list[RunResult]:
    return [collect(run, phase, crashed.get(run.path)) for run in runs]


def _phase(
    name: str, runs: Sequence[Planned], plan: Plan, console: Console
) -> tuple[Sequence[Planned], dict[Path, str]]:
    """Bring the runs of one phase to their end, with a bar and a line for each."""
    if not runs:
        return runs, {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=len(runs))
        done = 0

        def tell(run: Planned, error: str | None) -> None:
            nonlocal done
            done += 1
            progress.advance(task)
            console.print(
                f"{name} {done}/{len(runs)}: {run.task} {run.path.name} {_outcome(run, error)}", highlight=False
            )

        return runs, run_all(runs, plan.study.workers, plan.study.threads, tell)


def _outcome(run: Planned, error: str | None) -> str:
    if error is not None:
        return f"crashed twice: {error}"
    points = collect(run, "test", None).points
    if run.phase == "start" or not points:
        return "is ready"
    return f"{points[0].accuracy:.1%} -> {points[-1].accuracy:.1%} in {points[-1].seconds:.0f} s"


def versions() -> dict[str, str]:
    """What the results depend on: this package with its commit, Python, and the libraries that compute."""
    from ..run import manifest

    facts = manifest()
    return {
        "python": facts["python"],
        "commit": facts["git_commit"] or "unknown",
        "platform": facts["platform"],
        **facts["versions"],
    }


def command_line() -> str:
    """The command as it was typed."""
    return " ".join(["lampo", *sys.argv[1:]])
