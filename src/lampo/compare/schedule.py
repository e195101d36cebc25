"""Runs in processes of their own, so many at once. What is finished is never run again, what crashes is run once more."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from ..config.load import differing, load_config
from ..store.files import write_file
from ..store.metrics import read_metrics
from ..types import LampoError
from .progress import PhaseProgress
from .study import Planned

ATTEMPTS = 2


def run_all(runs: Sequence[Planned], workers: int, threads: int, progress: PhaseProgress) -> dict[Path, str]:
    """Bring all runs to their end.

    Args:
        runs: what to run, in this order; those that are finished are left alone.
        workers: processes at once.
        threads: CPU threads of each.
        progress: is told as each run begins, fails and ends; of those that were finished before, that they have ended.

    Returns:
        Why those that crashed twice did, by run directory; `crash_of` tells it later, until the run is tried again.

    Raises:
        LampoError: a run directory was made with other settings.
        KeyboardInterrupt: after every process has written a checkpoint and ended.
    """
    crashed: dict[Path, str] = {}
    waiting: list[tuple[Planned, int]] = []
    for run in runs:
        if is_finished(run):
            progress.ends(run, None)
        else:
            waiting.append((run, 1))
    if not waiting:
        return crashed
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before the first process, and the libraries in it, begin
    context = get_context("forkserver")
    context.set_forkserver_preload(["lampo.compare.worker"])
    from .worker import work

    active: dict[int, tuple[BaseProcess, Planned, int]] = {}
    with _children_stopped(active):
        while waiting or active:
            while waiting and len(active) < workers:
                run, attempt = waiting.pop(0)
                _crash_file(run).unlink(missing_ok=True)
                process = context.Process(target=work, args=(run.config, run.path, run.log))
                process.start()
                active[process.sentinel] = (process, run, attempt)
                progress.begins(run)
            for sentinel in connection.wait(list(active)):
                process, run, attempt = active.pop(sentinel)  # pyright: ignore[reportArgumentType]
                process.join()
                if process.exitcode == 0 and is_finished(run):
                    progress.ends(run, None)
                elif attempt < ATTEMPTS:
                    progress.fails(run, _reason(run, process.exitcode))
                    waiting.insert(0, (run, attempt + 1))
                else:
                    crashed[run.path] = _reason(run, process.exitcode)
                    _crash_file(run).parent.mkdir(parents=True, exist_ok=True)
                    write_file(_crash_file(run), crashed[run.path].encode())
                    progress.ends(run, crashed[run.path])
    return crashed


def is_finished(run: Planned) -> bool:
    """Whether a run has reached its last evaluation.

    Raises:
        LampoError: the directory holds a run with other settings.
    """
    config = run.path / "config.yaml"
    if not config.is_file():
        return False
    changes = differing(load_config(config), run.config)
    if changes:
        raise LampoError(
            f"{run.path} was made with other settings than the study has now ({', '.join(changes)}). Give the study another name, "
            "or delete that folder."
        )
    if not (run.path / "metrics.jsonl").is_file():
        return False
    done = {(record["stage"], record["step"]) for record in read_metrics(run.path)}
    return ("evaluation", run.config.training.steps) in done


def has_ended(run: Planned) -> bool:
    """Whether it is finished, or crashed when it was last tried."""
    return crash_of(run) is not None or is_finished(run)


def crash_of(run: Planned) -> str | None:
    """Why a run crashed when it was last tried. None if it did not."""
    file = _crash_file(run)
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _crash_file(run: Planned) -> Path:
    return run.log.with_suffix(".crashed")


def _reason(run: Planned, exitcode: int | None) -> str:
    """The last line of the log, where a crash says what it was, or the signal that ended the process."""
    if exitcode is not None and exitcode < 0:
        return f"ended by the signal {signal.Signals(-exitcode).name}"
    return run.last_line() or f"ended with status {exitcode}"


@contextmanager
def _children_stopped(active: dict[int, tuple[BaseProcess, Planned, int]]) -> Iterator[None]:
    """On Ctrl-C, SIGTERM or any failure here: ask the children to stop, and wait until they have written their checkpoints."""
    on_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if on_main else None
    try:
        yield
    except BaseException:
        for process, _, _ in active.values():
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, signal.SIGTERM)
        if active:
            print("stopping: every run under way ends its step and writes a checkpoint", file=sys.stderr)
        deadline = time.monotonic() + 600
        for process, _, _ in active.values():
            process.join(max(0.0, deadline - time.monotonic()))
        raise
    finally:
        if on_main:
            signal.signal(signal.SIGTERM, before)
