"""The native engine: this package's own sampler, loss and loop, in one process."""

from __future__ import annotations

from ..config.schema import TrainConfig
from ..types import LampoError
from .dry_run import dry_run
from .loop import train

__all__ = ["dry_run", "refuse", "train"]


def refuse(config: TrainConfig) -> None:
    """See `Engine.refuse`."""
    if config.run.processes > 1:
        raise LampoError(
            f"run.processes is {config.run.processes}, and the native engine has one process. "
            "Leave it out, or take an engine with several: --engine trl."
        )
