"""Benchmarks -> records: ask, verify, write down. What was written before is not asked again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..seeds import derive_seed
from ..store.files import write_file
from ..types import LampoError, Problem
from ..verify import VerifierPool, verifier_for
from .benchmarks import Benchmark, benchmark
from .records import SUMMARY, ProblemRecord, Records, summarise
from .respond import Asked, Failed, Responder

OnProgress = Callable[[int, int], None]
MOST_FAILURES = 5
"""Problems in a row that may get no response, in any order of theirs, before the rest is not asked any more."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One benchmark to measure on."""

    name: str
    problems: Sequence[Problem]
    samples: int
    seed: int


def measure(
    measurement: Measurement,
    responder: Responder,
    pool: VerifierPool,
    folder: Path,
    settings: Mapping[str, Any],
    *,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Measure on one benchmark and write `folder/NAME/records.jsonl` and `summary.json`.

    Args:
        measurement: the benchmark.
        responder: what is measured.
        pool: verifies.
        folder: of the evaluation.
        settings: all that the numbers depend on beside the problems; a folder that was begun with others is refused.
        on_progress: called with (problems done, in all).

    Raises:
        LampoError: the folder was begun with other settings or problems; or some could not be asked: the others are
            written down, and the same command goes on with those. Several in a row, or one that says that none will be
            answered, end it.
    """
    how = benchmark(measurement.name)
    records = _open_records(measurement, how, folder, settings)
    failed = _ask(measurement, how, records, responder, pool, on_progress)
    missing = sum(problem.id not in records.done for problem in measurement.problems)
    if failed:
        given_up = " The rest was not asked." if missing > len(failed) else ""
        raise LampoError(
            f"{measurement.name}: {len(failed)} of {len(measurement.problems)} problems could not be asked, the first "
            f"{failed[0][0].problem.id}: {failed[0][1].reason.rstrip('.')}.{given_up} What was answered is in "
            f"{records.folder}. The same command goes on with the others."
        )
    wanted = [records.done[problem.id] for problem in measurement.problems]
    summary = summarise(wanted, measurement.samples) | {"source": how.source}
    write_file(records.folder / SUMMARY, json.dumps(summary, indent=1).encode())
    return summary


def _open_records(measurement: Measurement, how: Benchmark, folder: Path, settings: Mapping[str, Any]) -> Records:
    own = {
        "samples": measurement.samples,
        "seed": measurement.seed,
        "template": how.template,
        "verifier": None if how.verifier is None else how.verifier.model_dump(),
    }
    return Records(folder / measurement.name, {**settings, **own})


def _ask(
    measurement: Measurement,
    how: Benchmark,
    records: Records,
    responder: Responder,
    pool: VerifierPool,
    on_progress: OnProgress | None,
) -> list[tuple[Asked, Failed]]:
    """Ask, verify and write down the problems that have no record yet. Returns those that could not be asked."""
    asked = [
        Asked(
            problem,
            how.template.replace("{prompt}", problem.prompt),
            derive_seed(measurement.seed, "evaluate", measurement.name, problem.id),
        )
        for problem in measurement.problems
    ]
    asked = [each for each in asked if not records.holds(each.problem.id, each.text, each.problem.answer)]
    num_done = len(measurement.problems) - len(asked)
    failed: list[tuple[Asked, Failed]] = []
    num_in_a_row = 0
    if asked:
        responder.probe()
    for each, responses in responder.respond(asked, measurement.samples):
        if isinstance(responses, Failed):
            failed.append((each, responses))
            num_in_a_row += 1
            if responses.hopeless or num_in_a_row == MOST_FAILURES:
                break
            continue
        num_in_a_row = 0
        chosen = verifier_for(each.problem, how.verifier)
        verdicts = pool.verify_all([(chosen, response.text, each.problem.answer) for response in responses])
        records.add(ProblemRecord(each.problem.id, each.text, each.problem.answer, tuple(responses), tuple(verdicts)))
        num_done += 1
        if on_progress is not None:
            on_progress(num_done, len(measurement.problems))
    return failed


def markdown(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """The summaries as a table."""
    lines = ["| benchmark | measure | % | 95 % interval | problems |", "| --- | --- | ---: | ---: | ---: |"]
    for name, summary in summaries.items():
        for measure_name, estimate in summary["estimates"].items():
            value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
            lines.append(
                f"| {name} | {measure_name} | {value:.1f} | {low:.1f} to {high:.1f} | {estimate['num_problems']} |"
            )
    lines += ["", "| benchmark | unknown | cut | no answer | mean tokens |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, summary in summaries.items():
        length = "" if summary["length_mean"] is None else f"{summary['length_mean']:.0f}"
        shares = " | ".join(f"{100 * summary[key]:.1f} %" for key in ("unknown", "truncated", "no_answer"))
        lines.append(f"| {name} | {shares} | {length} |")
    lines += ["", "Intervals resample problems, with all their responses: other problems of this kind, the same model."]
    return "\n".join(lines) + "\n"
