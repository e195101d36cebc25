"""The engine `verl`: named, and refused, until a recipe can be run through verl's main from here."""

from __future__ import annotations

from ...config.schema import TrainConfig
from ...train.run import Run
from ...types import LampoError
from ...view.console import Progress


def refuse(config: TrainConfig) -> None:
    """See `Engine.refuse`."""
    raise LampoError(
        "lampo train does not start verl yet. Write the recipe's problems with python -m lampo.adapters.verl RECIPE FOLDER, "
        "and give the options that it prints to python -m verl.trainer.main_ppo."
    )


def dry_run(config: TrainConfig) -> object:
    """See `Engine.dry_run`."""
    return refuse(config)


def train(run: Run, progress: Progress) -> None:
    """See `Engine.train`."""
    refuse(run.config)
