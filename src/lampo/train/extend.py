"""`--resume --set`: what a run may change on its way, and what it may not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..config.load import load_config, parse_setting
from ..config.schema import TrainConfig
from ..learner.optimizer import learning_rate
from ..messages import did_you_mean
from ..store.checkpoints import Position
from ..types import LampoError

CHANGEABLE = (
    "training.steps",
    "training.tokens_per_microbatch",
    "sampling.rows_at_once",
    "evaluation.every",
    "model.device",
    "model.gradient_checkpointing",
    "run.checkpoint_every",
    "run.keep_checkpoints",
    "run.threads",
    "run.trackers",
)
"""Settings that leave what was already done as the recipe says. They are how long, on what and how often, not what is learned."""


def extended(run: Path, settings: Sequence[str], position: Position) -> tuple[TrainConfig, list[str]]:
    """The configuration that a run goes on with, and lines the user should read.

    Raises:
        LampoError: a setting may not change in a run that has begun, or `training.steps` is not greater than before.
    """
    before = load_config(run / "config.yaml")
    for key in (parse_setting(setting)[0] for setting in settings):
        if key not in CHANGEABLE:
            raise LampoError(
                f"--resume cannot set {key}: what the run has done was done under another recipe.{did_you_mean(key, CHANGEABLE)} "
                f"It can set {', '.join(CHANGEABLE)}. "
                f"To change more, start a new run from this one's model: --set model.path={run}"
            )
    after = load_config(run / "config.yaml", settings)
    old, new = before.training.steps, after.training.steps
    if any(parse_setting(setting)[0] == "training.steps" for setting in settings) and new <= old:
        raise LampoError(
            f"training.steps is {old} in this run, and --resume can only raise it, not set it to {new}. "
            "To end earlier, press Ctrl-C: the checkpoint is a whole model."
        )
    return after, _notes(before, after, position) if new > old else []


def _notes(before: TrainConfig, after: TrainConfig, position: Position) -> list[str]:
    """What becomes of the length and of the schedule."""
    old, new = before.training.steps, after.training.steps
    done = position.step if position.stage == "train" else 0
    notes = [f"training goes on from step {done} to step {new}, not {old}"]
    if after.optimizer.schedule == "cosine":
        note = f"the cosine schedule of the learning rate now ends at step {new}, not {old}"
        if done > 0:
            rates = learning_rate(done, old, before.optimizer), learning_rate(done + 1, new, after.optimizer)
            note += f": it was {rates[0]:.3g} at step {done} and is {rates[1]:.3g} at step {done + 1}"
        notes.append(note)
    return notes
