"""Send the metrics to an experiment tracker as well, through accelerate's tracker classes. Off unless asked for."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..messages import did_you_mean
from ..types import LampoError

PROJECT = "lampo"
KNOWN = ("tensorboard", "wandb", "trackio", "mlflow")


def open_trackers(names: Sequence[str], run_path: Path, run_name: str, config: Mapping[str, Any]) -> Trackers:
    """Start the named trackers and give them the configuration, flattened to scalars.

    TensorBoard writes into `tensorboard/` of the run directory. The others go where their own settings say, under the
    project "lampo". Without names nothing is imported and `log` does nothing. Call it on the main process only.

    Raises:
        LampoError: a name is unknown, or its package is not installed.
    """
    refuse_unusable(names)
    return Trackers([_make(name, run_path, run_name) for name in names], dict(_flattened(config)))


class Trackers:
    """Started trackers of accelerate. As a context manager they are finished after an error too."""

    def __init__(self, trackers: Sequence[Any], config: Mapping[str, bool | int | float | str]) -> None:
        self._trackers = trackers
        self._on_an_axis: set[str] = set()
        self._reset = _ensure_accelerate_state() if trackers else None
        for tracker in trackers:
            tracker.start()
            tracker.store_init_configuration(dict(config))

    def log(self, record: Mapping[str, Any], step: int) -> None:
        """Log the finite numbers of a record. The warm start, with steps of its own, goes under `warmstart/`."""
        prefix = "warmstart/" if record.get("stage") == "warmstart" else ""
        values = {
            prefix + key: value
            for key, value in record.items()
            if key != "step" and isinstance(value, int | float) and math.isfinite(value)
        }
        for tracker in self._trackers:
            if tracker.name == "wandb":
                self._log_to_wandb(tracker, values, step, axis=f"{prefix}step")
            else:
                tracker.log(values, step=step)

    def _log_to_wandb(self, tracker: Any, values: Mapping[str, Any], step: int, axis: str) -> None:
        """Log the step as a metric, for an axis: wandb drops steps that go back, as they do after the warm start."""
        for key in values.keys() - self._on_an_axis:
            tracker.tracker.define_metric(key, step_metric=axis)
            self._on_an_axis.add(key)
        tracker.log({**values, axis: step})

    def finish(self) -> None:
        """Flush and close the trackers. Harmless when repeated."""
        for tracker in self._trackers:
            tracker.finish()
        self._trackers = []
        if self._reset:
            self._reset()
            self._reset = None

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()


def refuse_unusable(names: Sequence[str]) -> None:
    """Check the trackers that a recipe names, and start none.

    Raises:
        LampoError: a name is unknown, or its package or accelerate is not installed.
    """
    for name in names:
        if name not in KNOWN:
            raise LampoError(
                f"There is no tracker {name!r}.{did_you_mean(name, KNOWN)} The known ones are {', '.join(KNOWN)}."
            )
        if importlib.util.find_spec(name) is None:
            raise LampoError(f"The tracker {name!r} is not installed. Install it with: pip install {name}")
    if names and importlib.util.find_spec("accelerate") is None:
        raise LampoError("Trackers are driven through accelerate. Install it with: pip install 'lampo[trackers]'")


def _make(name: str, run_path: Path, run_name: str) -> Any:
    from accelerate import tracking

    if name == "tensorboard":
        return tracking.TensorBoardTracker("tensorboard", logging_dir=run_path)
    if name == "wandb":
        return tracking.WandBTracker(PROJECT, name=run_name, dir=run_path)
    if name == "trackio":
        return tracking.TrackioTracker(PROJECT, name=run_name)
    return tracking.MLflowTracker(experiment_name=PROJECT, run_name=run_name)


def _ensure_accelerate_state() -> Callable[[], None] | None:
    """Give accelerate's trackers the process state they insist on. Return how to take it away again, if it is ours.

    It is made for the CPU, so that no accelerator is touched, and taken away, so that an `Accelerator` made later in
    this process does not find itself on the CPU.
    """
    from accelerate import PartialState

    if PartialState._shared_state:
        return None
    PartialState(cpu=True)
    return PartialState._reset_state


def _flattened(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value if isinstance(value, bool | int | float | str) else str(value)
