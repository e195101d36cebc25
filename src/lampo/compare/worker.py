"""One run of a study, in a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TextIO, cast

from rich.console import Console

from .. import process as environment  # noqa: F401  it must run before torch is imported
from ..config.schema import TrainConfig
from ..interrupt import when_parent_ends
from ..process import prepare
from ..store.lock import LOCK, lock
from ..train import native  # noqa: F401  the server that forks the runs loads it once for all of them
from ..train.engines import engine_of
from ..train.run import Run
from ..train.session import Stopped
from ..types import LampoError
from ..view.console import Progress
from ..view.output import Unfailing


def work(config: TrainConfig, path: Path, log: Path) -> None:
    """Run a recipe to its end, from wherever it stands, with its output in a log file.

    Of a finished run the checkpoints are deleted, but that of a warm start: the other runs go on from it. Ctrl-C reaches the study
    alone, which asks its runs to stop: this process is in a session of its own.
    """
    os.setsid()
    when_parent_ends(signal.SIGTERM)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8", buffering=1) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        sys.stdout = sys.stderr = output = cast("TextIO", Unfailing(stream))
        # a process that a killed study left behind ends its step of the same run first
        _alone = lock(log.with_suffix(".lock"), f"The run {path}", wait=_say_that_it_waits)
        try:
            _remove_unborn(path)
            prepare(config)
            run, complaints = Run.resume(path) if (path / "config.yaml").is_file() else (Run.create(config), [])
            with Progress(path.name, Console(file=output)) as progress:
                for complaint in complaints:
                    progress.note(complaint)
                engine_of(config).train(run, progress)
        except Stopped:
            sys.exit(130)
        except LampoError as error:
            print(" ".join(str(error).split()))
            sys.exit(1)
        if config.training.steps > 0:
            for folder in ("checkpoints", "reference", "verl"):
                shutil.rmtree(path / folder, ignore_errors=True)


def _say_that_it_waits() -> None:
    print("waiting for another process that works on this run")


def _remove_unborn(path: Path) -> None:
    """Delete a run directory that was made and never got its config.yaml: the run would be made beside it, and not be found.

    Raises:
        LampoError: it holds something else.
    """
    if not path.is_dir() or (path / "config.yaml").exists():
        return
    left_behind = {path / "rollouts", path / ".config.yaml.partial", path / LOCK}
    if not set(path.rglob("*")) <= left_behind:
        raise LampoError(f"{path} is in the way: it has no config.yaml, so it is no run. Move it or delete it.")
    shutil.rmtree(path)
