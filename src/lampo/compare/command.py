"""`lampo compare`: run a study, choose the learning rates, compare, or write the page of results that are there."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from ..config.load import names_own_function
from ..store.checkpoints import is_run
from ..store.files import write_file
from ..store.lock import lock
from ..types import LampoError
from ..view.output import say, unfailing_output
from .collect import collect
from .comparison import TunedMethod, compare_methods, tuned_methods
from .comparison_page import write_comparison
from .progress import PhaseProgress
from .results import Phase, RunResult, read_results, write_results
from .schedule import crash_of, has_ended, run_all
from .study import Plan, Planned, dump_study, load_study
from .table import markdown

RESULTS = "results.parquet"


def compare_study(study: Path, console: Console, *, only_page: bool = False) -> None:
    """The command: run the study unless only its page is wanted, write page and tables, and print the tables.

    Both are written into the study's folder of runs, which is not committed.

    Raises:
        LampoError: as `compare` and `finished_results` say.
        SystemExit: with status 130, the user stopped it. The same call resumes.
    """
    with unfailing_output():
        try:
            _compare_study(study, console, only_page=only_page)
        except KeyboardInterrupt:
            say(f"Stopped. Go on with: lampo compare {study}")
            raise SystemExit(130) from None


def _compare_study(study: Path, console: Console, *, only_page: bool) -> None:
    plan = load_study(study)
    if only_page:
        results, source = finished_results(plan, study.parent)
        made_with = {"results": str(source)}
    else:
        results, made_with = compare(plan, console), versions()
    plan.folder.mkdir(parents=True, exist_ok=True)
    comparisons = compare_methods(results, plan.study.baseline, plan.study.primary)
    page = write_comparison(
        plan.folder,
        comparisons,
        results,
        baseline=plan.study.baseline,
        command=shlex.join(["lampo", "compare", str(study)]),
        versions=made_with,
        study=study.read_text(encoding="utf-8"),
    )
    print(markdown(comparisons))
    for what, value in made_with.items() if only_page else ():
        print(f"{what}: {value}")
    print(f"page: {page}")


def finished_results(plan: Plan, beside: Path) -> tuple[list[RunResult], Path]:
    """Results without running anything, and where they are from.

    First the `results.parquet` beside the study file, as the studies of docs/results have it. Else the runs of the study that
    ended, or what is left of them where only their results were kept.

    Raises:
        LampoError: there are none, or they cannot be read.
    """
    if (beside / RESULTS).is_file():
        return read_results(beside / RESULTS), beside / RESULTS
    kept = plan.folder / RESULTS
    if kept.is_file() and not (plan.folder / "runs").is_dir():
        return read_results(kept), kept
    return finished_so_far(plan), kept


def compare(plan: Plan, console: Console) -> list[RunResult]:
    """Bring a study to its end, from wherever it stands, and write its results into its folder.

    Returns:
        What every run came to.

    Raises:
        LampoError: the study has the name of a run, is under way in another process, or leaves no problems to compare on; or a warm
            start crashed twice. Then its seed has no common start.
        KeyboardInterrupt: the user stopped it. The same call resumes.
    """
    if is_run(plan.folder) and not (plan.folder / "study.yaml").exists():
        raise LampoError(f"{plan.folder} is a run, and a study needs a folder of its own. Give the study another name.")
    plan.folder.mkdir(parents=True, exist_ok=True)
    with lock(plan.folder / "study.lock", f"The study in {plan.folder}"):
        console.print("checking data, engines, and functions of your own", markup=False)
        plan.check()
        first = [run for run in plan.test({}) if run.seed == 0]
        refuse_what_engines_cannot_do(first)
        _try_own_functions(first)
        _, crashed = _phase("warm starts", plan.starts(), plan, console)
        _refuse_crashed_starts(crashed)
        write_file(plan.folder / "study.yaml", dump_study(plan.study).encode())
        tuning, _ = _phase("tuning", plan.tuning(), plan, console)
        results = _results(tuning, "tuning")
        chosen = _chosen(plan, results)
        for (task, _), tuned in chosen.items():
            edge = f", at the {tuned.edge} end of its grid" if tuned.edge else ""
            said = f"{task}: {tuned.method} goes on with the learning rate {tuned.learning_rate:g}{edge}"
            console.print(said, markup=False)
        test, _ = _phase("comparison", plan.test(_rates(chosen)), plan, console)
        results += _results(test, "test")
        write_results(plan.folder / RESULTS, results)
        return results


def _refuse_crashed_starts(crashed: Mapping[Path, str]) -> None:
    """Without its warm start a seed has no runs.

    Raises:
        LampoError: one crashed twice; tells each reason once, with all the starts that it stopped.
    """
    of_reason: dict[str, list[str]] = {}
    for path, reason in crashed.items():
        of_reason.setdefault(reason, []).append(str(path))
    if of_reason:
        told = "; ".join(f"{', '.join(sorted(paths))}: {reason}" for reason, paths in of_reason.items())
        raise LampoError(f"A warm start crashed: {told}")


def refuse_what_engines_cannot_do(runs: Sequence[Planned]) -> None:
    """See before the first run that the engine of every method can honour its settings.

    Raises:
        LampoError: one cannot; names the method and the settings.
    """
    from ..train.engines import engine_of

    for run in runs:
        try:
            engine_of(run.config).refuse(run.config)
        except LampoError as error:
            raise LampoError(f"The method {run.method} of the study cannot be run. {error}") from None


def _try_own_functions(runs: Sequence[Planned]) -> None:
    """Call the user's own functions once, so that a mistake in one ends the study before its first run.

    Raises:
        LampoError: a function cannot be imported, raises, or returns what it must not; names the method.
    """
    if not (runs := [run for run in runs if names_own_function(run.config)]):
        return
    from ..process import prepare
    from ..train.own_functions import try_own_functions
    from ..verify import VerifierPool

    with VerifierPool(1) as pool:
        for run in runs:
            prepare(run.config)
            try:
                try_own_functions(run.config, run.config.task.load().train, pool)
            except LampoError as error:
                raise LampoError(f"The method {run.method} of the study cannot be run. {error}") from None


def finished_so_far(plan: Plan) -> list[RunResult]:
    """What the runs that ended came to, those that crashed too, without running any.

    The test runs of a method count from when its learning rate is known.

    Raises:
        LampoError: no run of the study has ended.
    """
    tuning = plan.tuning()
    results = _results([run for run in tuning if has_ended(run)], "tuning")
    undecided = {(run.task, run.method) for run in tuning if not has_ended(run)}
    test = plan.test(_rates(_chosen(plan, results)))
    decided = [run for run in test if (run.task, run.method) not in undecided]
    results += _results([run for run in decided if has_ended(run)], "test")
    if not results:
        raise LampoError(
            f"No run of the study in {plan.folder} has ended yet, so there is nothing to show. Run it: lampo compare STUDY.yaml"
        )
    write_results(plan.folder / RESULTS, results)
    return results


def _chosen(plan: Plan, results: Sequence[RunResult]) -> dict[tuple[str, str], TunedMethod]:
    """What tuning chose, by task and method."""
    return {
        (task, tuned.method): tuned
        for task in plan.study.tasks
        for tuned in tuned_methods([result for result in results if result.task == task])
    }


def _rates(chosen: Mapping[tuple[str, str], TunedMethod]) -> dict[tuple[str, str], float]:
    return {key: tuned.learning_rate for key, tuned in chosen.items()}


def _results(runs: Sequence[Planned], phase: Phase) -> list[RunResult]:
    return [collect(run, phase, crash_of(run)) for run in runs]


def _phase(
    name: str, runs: Sequence[Planned], plan: Plan, console: Console
) -> tuple[Sequence[Planned], dict[Path, str]]:
    """Bring the runs of one phase to their end."""
    if not runs:
        return runs, {}
    progress = PhaseProgress(name, len(runs), console)
    with progress.shown():
        return runs, run_all(runs, plan.study.workers, plan.study.threads, progress)


def versions() -> dict[str, str]:
    """What the results depend on: this package with its commit, Python, and the libraries that compute."""
    from ..train.manifest import manifest

    facts = manifest()
    return {
        "python": facts["python"],
        "commit": facts["git_commit"] or "unknown",
        "platform": facts["platform"],
        **facts["versions"],
    }
