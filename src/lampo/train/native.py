"""The native engine: this package's own sampler, loss and loop, in one process."""

from __future__ import annotations

from ..config.schema import TrainConfig
from ..learner.optimizer import refuse as refuse_optimizer
from ..types import LampoError
from . import dry_run as checks
from .loop import train

__all__ = ["dry_run", "refuse", "train"]


def dry_run(config: TrainConfig) -> list[checks.Need]:
    """See `Engine.dry_run`."""
    refuse(config)
    return checks.dry_run(config)


def refuse(config: TrainConfig) -> None:
    """See `Engine.refuse`."""
    if config.run.processes > 1:
        raise LampoError(
            f"run.processes is {config.run.processes}, and the native engine has one process. "
            "Leave it out, or take an engine with several: --engine trl."
        )
    refuse_optimizer(config)
    if config.sampling.engine == "vllm":
        from ..rollout.vllm import refuse as refuse_vllm  # only where a recipe asks for it

        refuse_vllm(config)
