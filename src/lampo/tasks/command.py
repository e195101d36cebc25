"""`lampo tasks` and `lampo tasks check`: where problems come from, and whether a recipe's are sound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..config.load import load_config
from ..config.recipes import find_recipe
from ..messages import names_of
from ..types import LampoError
from ..verify import VerifierPool, prepare_verifiers
from . import TASKS
from .check import check_answers
from .decontaminate import overlaps
from .load import load_benchmark


def list_tasks() -> None:
    """The tasks as a table, each with its settings."""
    table = Table("task", "what it is", "settings")
    for name, options in TASKS.items():
        settings = ", ".join(key for key in options.model_fields if key != "name")
        table.add_row(name, (options.__doc__ or "").split("\n")[0], settings)
    Console().print(table)


def check_task(recipe: Path, settings: Sequence[str], benchmarks: str | None, data: Sequence[str]) -> None:
    """Check a recipe's answers against themselves, and its training problems against benchmarks."""
    config = load_config(find_recipe(recipe), settings)
    named = (
        config.decontamination.benchmarks if benchmarks is None else names_of("--benchmarks", benchmarks, list(TASKS))
    )
    task = config.task.load()
    problems = [*task.train, *task.heldout]
    print(f"{len(task.train):,} problems to train on, {len(task.heldout):,} to measure on")
    prepare_verifiers(problems, config.verifier)
    with VerifierPool() as pool:
        print(check_answers(problems, config.verifier, lambda triples: pool.verify_all(triples, progress=True)))
    ngram, files = config.decontamination.ngram, config.decontamination.data | files_by_name(data)
    for name in named:
        heldout = load_benchmark(name, files)
        found = overlaps(task.train, heldout, ngram)
        print(
            f"{name}: {len(found):,} training problems share {ngram} words in a row with its {len(heldout):,} problems. "
            f"{sum(overlap.is_copy for overlap in found):,} hold more than half of one."
        )
        for overlap in found[:3]:
            print(f"  {overlap.train.id} holds {overlap.share:.0%} of {overlap.heldout.id}: {overlap.words!r}")
        if found and name not in config.decontamination.benchmarks:
            print(f"  To leave them out, add {name} to decontamination.benchmarks in the recipe.")


def files_by_name(pairs: Sequence[str]) -> dict[str, str]:
    """NAME=FILE pairs of `--data` as a mapping.

    Raises:
        LampoError: one is written otherwise.
    """
    files: dict[str, str] = {}
    for pair in pairs:
        name, separator, file = pair.partition("=")
        if not separator or not name or not file:
            raise LampoError(f"--data {pair}: write it as NAME=FILE, for example --data math500=test.jsonl.")
        files[name] = file
    return files
