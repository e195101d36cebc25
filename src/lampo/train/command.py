"""`lampo train`: a run from its first step, or on from its latest checkpoint.

The recipe is read before the engine is imported: a misspelt name or setting is told at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.load import load_config, parse_setting
from ..config.recipes import find_recipe
from ..interrupt import stopped_at_once
from ..store.files import reason
from ..types import LampoError
from ..view.output import say, unfailing_output

if TYPE_CHECKING:
    from .run import Run


WHICH = ("run.name", "run.folder")
"""Settings that say which run of a recipe `--resume` goes on with."""


def train(recipe: Path, settings: Sequence[str], *, resume: bool, dry_run: bool, accepted: Sequence[str] = ()) -> None:
    """Train a recipe and write the report. Exits with status 130 after Ctrl-C.

    Raises:
        LampoError: the recipe, its data or its model do not work out.
    """
    if accepted and not resume:
        raise LampoError("--accept is for --resume: it says what may differ from the run's start.")
    if dry_run:
        if resume:
            raise LampoError(
                "--dry-run checks a recipe before it runs, and --resume goes on with a run: give one of them."
            )
        config = load_config(_recipe(recipe), settings)
        from .engines import engine_of

        engine_of(config).dry_run(config)
        return
    with unfailing_output(), stopped_at_once():
        try:
            _train(recipe, settings, accepted, resume=resume)
        except KeyboardInterrupt:  # before the run was open
            say("Stopped before anything was done.")
            raise SystemExit(130) from None


def _train(recipe: Path, settings: Sequence[str], accepted: Sequence[str], *, resume: bool) -> None:
    which = [setting for setting in settings if parse_setting(setting)[0] in WHICH]
    path = None if not resume else recipe if recipe.is_dir() else _newest(find_recipe(recipe), which)
    if path not in (None, recipe):  # they have found the run, and are nothing that it changes
        settings = [setting for setting in settings if setting not in which]
    config = load_config(_recipe(recipe), settings) if path is None else load_config(path / "config.yaml")
    from ..process import prepare
    from ..view.console import Progress
    from .engines import engine_of
    from .extend import recipe_notes
    from .finish import finish
    from .run import Run
    from .session import Stopped

    prepare(config)
    engine = engine_of(config)
    engine.refuse(config)
    run = None
    try:
        run, notes = (Run.create(config), []) if path is None else Run.resume(path, settings, accepted)
        prepare(run.config)  # --set may have changed the threads of a run that is resumed
        with Progress(run.path.name) as progress:
            if path is not None and not recipe.is_dir():
                notes += recipe_notes(load_config(find_recipe(recipe), which), config)
            for note in notes:
                progress.note(note)
            engine.train(run, progress)
        finish(run)
    except Stopped as stopped:
        say(f"{stopped} {_go_on(run)}")
        raise SystemExit(130) from None
    except KeyboardInterrupt:
        if run is None:
            raise
        if run.discard_unused():
            say("Stopped at once. Nothing was done yet, and no run is left behind.")
        else:
            say(f"Stopped at once. What was done since the last checkpoint is lost. {_go_on(run)}")
        raise SystemExit(130) from None
    except OSError as error:
        raise LampoError(f"{reason(error)} What was saved before is whole. {_go_on(run)}") from None


def _go_on(run: Run | None) -> str:
    return "" if run is None else f"Go on with: lampo train {run.path} --resume"


def _recipe(recipe: Path) -> Path:
    if recipe.is_dir():
        raise LampoError(f"{recipe} is a folder. To go on with a run: lampo train {recipe} --resume")
    return find_recipe(recipe)


def _newest(recipe: Path, which: Sequence[str]) -> Path:
    options = load_config(recipe, which).run
    from .run import find_run

    path = find_run(Path(options.folder), options.name)
    if path is None:
        raise LampoError(
            f"There is no run {options.name!r} in {Path(options.folder).absolute()} to go on with. Start it without --resume."
        )
    return path
