"""`lampo signal`: which estimator gives this policy the cleanest step. The recipe is read before the engine is imported."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..algo.registry import ProcessRewardOptions
from ..config.load import load_config
from ..config.recipes import find_recipe
from ..config.schema import TrainConfig
from ..interrupt import stopped_at_once
from ..store.checkpoints import is_run, model_of_run
from ..store.files import reason, write_file
from ..types import LampoError
from ..view.output import say, unfailing_output
from .candidates import candidates

if TYPE_CHECKING:
    from .answer import Answer

WIDTH = 8192
"""Numbers of a sketch: one inner product of two gradients has an error of about 1 % of the product of their lengths."""


def measure_signal(
    recipe: Path,
    settings: Sequence[str],
    *,
    methods: Sequence[str],
    num_groups: int,
    false_positives: Sequence[float],
    false_negatives: Sequence[float],
    output: Path | None,
) -> None:
    """The command: measure, print the tables, and write page, tables and numbers. Exits with status 130 after Ctrl-C.

    Raises:
        LampoError: the recipe, its data or its model do not work out, or there is nothing to measure.
    """
    with unfailing_output(), stopped_at_once():
        config, weights = _recipe_or_run(recipe, settings)
        for share in (*false_positives, *false_negatives):
            if not 0 < share <= 1:
                raise LampoError(
                    f"{share:g} is no share of wrong verdicts. Give numbers above 0 and up to 1, such as 0.2."
                )
        estimators = candidates(config.advantage, methods)
        with _place(output or Path(config.run.folder) / f"{config.run.name}-signal") as folder:
            from ..process import prepare
            from ..view.console import Progress
            from .run import measure

            prepare(config)
            try:
                with Progress(f"{config.run.name}: signal") as progress:
                    if isinstance(config.advantage, ProcessRewardOptions):
                        progress.note("The recipe's own method learns a reward model beside the policy. It has no row.")
                    answer = measure(
                        config,
                        weights,
                        estimators,
                        num_groups=num_groups,
                        false_positives=false_positives,
                        false_negatives=false_negatives,
                        width=WIDTH,
                        progress=progress,
                    )
            except KeyboardInterrupt:
                say("Stopped before anything could be said.")
                raise SystemExit(130) from None
            _tell(answer, folder)
        if answer.groups < num_groups:
            print(f"Stopped after {answer.groups} of {num_groups} groups: the answer is of these.")
            raise SystemExit(130)


@contextmanager
def _place(folder: Path) -> Iterator[Path]:
    """The folder of the answer, made before minutes are spent on it, and not left behind empty."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LampoError(f"Cannot make the folder of the answer, {folder}: {reason(error)}") from None
    try:
        yield folder
    finally:
        with suppress(OSError):  # it is not empty
            folder.rmdir()


def _tell(answer: Answer, folder: Path) -> None:
    """Print the tables, and write them, the page and the numbers into the folder."""
    from ..train.manifest import manifest
    from .signal_page import signal_page
    from .table import markdown

    facts = manifest()
    command = facts["command"]
    versions = {"python": facts["python"], "commit": facts["git_commit"] or "unknown", **facts["versions"]}
    text, page = markdown(answer), folder / "signal.html"
    print(text)
    try:
        numbers = answer.as_json() | {"command": command, "versions": versions}
        write_file(folder / "signal.json", json.dumps(numbers, indent=1).encode())
        write_file(folder / "signal.md", text.encode())
        write_file(page, signal_page(answer, command=command, versions=versions).encode())
    except OSError as error:
        raise LampoError(f"Cannot write the answer into {folder}: {reason(error)}") from None
    print(f"page:    {page}\nnumbers: {folder / 'signal.json'}")


def _recipe_or_run(place: Path, settings: Sequence[str]) -> tuple[TrainConfig, Path | None]:
    """A recipe, which begins with its warm start, or a run with its model, or its latest checkpoint."""
    if not place.is_dir():
        return load_config(find_recipe(place), settings), None
    if not is_run(place):
        raise LampoError(f"{place} is no run directory. Name a recipe, or a run such as runs/quickstart.")
    return load_config(place / "config.yaml", settings), model_of_run(place)
