"""`lampo train`: a run from its first step, or on from its latest checkpoint.

The recipe is read before the engine is imported: a misspelt name or setting is told at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.load import load_config
from ..config.recipes import find_recipe
from ..store.files import reason
from ..types import LampoError

if TYPE_CHECKING:
    from .run import Run


def train(recipe: Path, settings: Sequence[str], *, resume: bool, dry_run: bool) -> None:
    """Train a recipe and write the report; exits with status 130 after Ctrl-C.

    Raises:
        LampoError: the recipe, its data or its model do not work out.
    """
    if dry_run:
        if resume:
            raise LampoError(
                "--dry-run checks a recipe before it runs, and --resume goes on with a run: give one of them."
            )
        config = load_config(_recipe(recipe), settings)
        from .dry_run import dry_run as check

        check(config)
        return
    run, notes = _resumed(recipe, settings) if resume else (_new(recipe, settings), [])
    from ..view.console import Progress
    from .finish import finish
    from .loop import train as train_run
    from .session import Stopped

    with Progress(run.path.name) as progress:
        for note in notes:
            progress.note(note)
        try:
            train_run(run, progress)
        except Stopped as stopped:
            progress.note(f"{stopped} Go on with: lampo train {run.path} --resume")
            raise SystemExit(130) from None
        except OSError as error:
            saved = f"What was saved before is whole; go on with: lampo train {run.path} --resume"
            raise LampoError(f"{reason(error)} {saved}") from None
    finish(run)


def _new(recipe: Path, settings: Sequence[str]) -> Run:
    config = load_config(_recipe(recipe), settings)
    from ..process import prepare
    from .run import Run

    prepare(config)
    return Run.create(config)


def _resumed(recipe: Path, settings: Sequence[str]) -> tuple[Run, list[str]]:
    path = recipe if recipe.is_dir() else _newest(find_recipe(recipe))
    from ..process import prepare
    from .run import Run

    run, notes = Run.resume(path, settings)
    prepare(run.config)
    return run, notes


def _recipe(recipe: Path) -> Path:
    if recipe.is_dir():
        raise LampoError(f"{recipe} is a folder. To go on with a run: lampo train {recipe} --resume")
    return find_recipe(recipe)


def _newest(recipe: Path) -> Path:
    options = load_config(recipe).run
    from .run import find_run

    path = find_run(Path(options.folder), options.name)
    if path is None:
        raise LampoError(
            f"There is no run {options.name!r} in {Path(options.folder).absolute()} to go on with. Start it without --resume."
        )
    return path
