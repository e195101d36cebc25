"""The engines that a recipe may name: who samples and updates. Whoever adds one writes a module like these and a line in ENGINES.

An engine's module has the functions of `Engine`. It is imported by its name, and only when a recipe asks for it: nobody imports an
adapter, and a run on the native engine needs neither TRL nor verl.
"""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

from ..config.schema import EngineName, TrainConfig
from ..types import LampoError
from ..view.console import Progress
from .run import Run


class Engine(Protocol):
    """What a module in ENGINES offers."""

    def refuse(self, config: TrainConfig) -> None:
        """Look at what can be seen without data and model.

        Raises:
            LampoError: names the settings that this engine cannot honour, each with the reason.
        """
        ...

    def dry_run(self, config: TrainConfig) -> object:
        """Check a recipe and print what would run. Train nothing."""
        ...

    def train(self, run: Run, progress: Progress) -> None:
        """Bring a run to its end, from wherever it stands, and leave in its directory what `Run` describes.

        Raises:
            Stopped: after Ctrl-C, with a checkpoint.
            LampoError: recipe, data or model do not work out.
        """
        ...


ENGINES: dict[EngineName, str] = {
    "native": "lampo.train.native",
    "trl": "lampo.adapters.trl.engine",
    "verl": "lampo.adapters.verl.engine",
}
"""The module of each engine."""


def engine_of(config: TrainConfig) -> Engine:
    """The engine that a recipe names.

    Raises:
        LampoError: its package is not installed, or the recipe has settings of another engine.
    """
    if config.engine != "verl":
        _refuse_settings_of_verl(config)
    try:
        return cast("Engine", import_module(ENGINES[config.engine]))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "lampo" or config.engine == "native":
            raise
        raise missing(config.engine, package) from None


def missing(engine: EngineName, package: str) -> LampoError:
    """What to say where an engine's package is not installed."""
    return LampoError(f"The engine {engine} needs {package}. Install it with: pip install 'lampo[train,{engine}]'")


def _refuse_settings_of_verl(config: TrainConfig) -> None:
    for name, given in (("nodes", config.run.nodes > 1), ("engine_options", config.run.engine_options)):
        if given:
            raise LampoError(
                f"run.{name} is for the engine verl, and this recipe has the engine {config.engine}. Leave it out, or take --engine verl."
            )
