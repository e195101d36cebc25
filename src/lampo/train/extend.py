"""`--resume --set`: what a run may change on its way, and what it may not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config.load import differing, load_config, parse_config, parse_setting
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
    "run.processes",
    "run.nodes",
    "run.engine_options",
    "run.trackers",
)
"""Settings that leave what was already done as the recipe says. They are how long, on what and how often, not what is learned."""


def extended(run: Path, settings: Sequence[str], position: Position) -> tuple[TrainConfig, list[str]]:
    """The configuration that a run goes on with, and lines the user should read.

    Raises:
        LampoError: a setting may not change in a run that has begun, or `training.steps` leaves nothing to do or is lowered.
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
    at_end = position.stage == "train" and position.step >= old
    is_set = any(parse_setting(setting)[0] == "training.steps" for setting in settings)
    if is_set and (new < old or (new == old and at_end)):  # the same once more, where a resume was refused for its data
        raise LampoError(
            f"training.steps is {old} in this run, and --resume can only raise it, not set it to {new}. "
            "To end earlier, press Ctrl-C: the checkpoint is a whole model."
        )
    return after, _notes(before, after, position) if new > old else []


def edited(run: Path, config: TrainConfig, began_with: Any, accepted: Sequence[str]) -> list[str]:
    """Lines that say in which settings a run's config.yaml is no longer what the run was made with.

    Args:
        run: the run directory.
        config: what its config.yaml says now.
        began_with: the settings of its manifest; None where it has none.
        accepted: settings that may differ.

    Raises:
        LampoError: one differs that `--resume --set` could not change, and it is not accepted by name.
    """
    try:
        before = parse_config(began_with, "the manifest") if isinstance(began_with, dict) else config
    except LampoError:  # of another version, whose settings have other names
        return []
    changes = differing(before, config)
    lowered = {"training.steps"} if config.training.steps < before.training.steps else set()
    refused = {
        key: change for key, change in changes.items() if key not in {*CHANGEABLE, *accepted} - (lowered - {*accepted})
    }
    if refused:
        told = "".join(f"\n  {key}: {then!r} then, {now!r} now" for key, (then, now) in refused.items())
        raise LampoError(
            f"{run / 'config.yaml'} was edited after the run began:{told}\nThe run would not be what it says. Put the settings back, "
            f"start a new run, or resume all the same: lampo train {run} --resume"
            + "".join(f" --accept {key}" for key in refused)
        )
    return [f"config.yaml was edited: {key} was {then!r} and is {now!r}" for key, (then, now) in changes.items()]


def recipe_notes(recipe: TrainConfig, run: TrainConfig) -> list[str]:
    """A line where a recipe is no longer what the run was made of: the run goes on with its own settings."""
    told = [
        f"{key} ({of_run!r} in the run, {of_recipe!r} in the recipe)"
        for key, (of_run, of_recipe) in differing(run, recipe).items()
    ]
    return [f"The recipe differs from the run, which goes on with its own settings: {'; '.join(told)}"] if told else []


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
