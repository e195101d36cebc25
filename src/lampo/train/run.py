"""The run directory: configuration, versions, metrics, rollouts, checkpoints; making one and going on with one.

runs/NAME/
  config.yaml        every setting, loads as a recipe
  manifest.json      command, versions, git commit
  metrics.jsonl      one flat object a line, in the order things happened
  rollouts/          000012.jsonl.gz: the groups of training step 12, one a line; index.jsonl
  not-finite-000012.jsonl.gz   the groups of a step that stopped the run, which going on with it does not undo
  checkpoints/       train-000050: a Hugging Face folder, with the state of the optimiser
  model/             the trained model with its card, once the run is at its end
  reference/         the policy that reinforcement learning started from, for a KL term or PRIME
  report.html
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..algo.estimate import Estimate
from ..config.explain import dump_config
from ..config.load import load_config, read_yaml
from ..config.schema import TrainConfig
from ..learner.optimizer import Optimizer
from ..model.policy import Policy
from ..model.token_spans import TokenSpans
from ..seeds import derive_seed
from ..store.checkpoints import Position, Stage, latest_checkpoint, model_folder, read_position
from ..store.files import write_file
from ..store.metrics import read_metrics
from ..store.rollouts import write_shard
from ..types import Group, LampoError, Problem
from .checkpoint import Companion, restore_checkpoint, save_checkpoint
from .extend import extended
from .manifest import manifest
from .rollout_records import group_records


class Run:
    """An open run directory."""

    def __init__(self, path: Path, config: TrainConfig, checkpoint: Path | None) -> None:
        self.path = path
        self.config = config
        self._checkpoint = checkpoint
        self.position = _position(checkpoint)
        self._metrics = (path / "metrics.jsonl").open("ab")

    @classmethod
    def create(cls, config: TrainConfig) -> Run:
        """A new directory `folder/NAME`, or `NAME-2`, `NAME-3`, ... where that exists.

        Raises:
            LampoError: the directory cannot be made or written to.
        """
        folder, name, number = Path(config.run.folder), config.run.name, 1
        try:
            folder.mkdir(parents=True, exist_ok=True)
            while True:
                path = folder / (name if number == 1 else f"{name}-{number}")
                try:
                    path.mkdir()
                    break
                except FileExistsError:
                    number += 1
            (path / "rollouts").mkdir()
            write_file(path / "config.yaml", dump_config(config).encode())
            write_file(path / "manifest.json", json.dumps(manifest(), indent=1).encode())
            return cls(path, config, None)
        except OSError as error:
            raise LampoError(
                f"Cannot make a run directory in {folder.absolute()}: {error.strerror or error}. Choose another with --set run.folder=DIR."
            ) from None

    @classmethod
    def resume(cls, path: Path, settings: Sequence[str] = ()) -> tuple[Run, list[str]]:
        """Go on with a run: the latest whole checkpoint, or the start; later metrics and rollouts are undone.

        Args:
            path: the run directory.
            settings: `a.b=c`, written into its config.yaml; see `extended` for those that a run may change.

        Returns:
            the run, and lines the user should read (damaged checkpoints, what the settings change).

        Raises:
            LampoError: a setting may not change, or a run at its end has lost its checkpoints.
        """
        config = load_config(path / "config.yaml")
        checkpoint, notes = latest_checkpoint(path / "checkpoints")
        if checkpoint is None:
            _refuse_to_lose(path, config, notes)
        if settings:
            config, changes = extended(path, settings, _position(checkpoint))
            notes += changes
            _record_settings(path, config, settings, checkpoint)
        run = cls(path, config, checkpoint)
        run._metrics.truncate(run.position.metrics_bytes)
        rollouts = path / "rollouts"
        rollouts.mkdir(exist_ok=True)
        for file in rollouts.glob("*.jsonl.gz"):
            if run.position.stage == "warmstart" or int(file.name.split(".")[0]) > run.position.step:
                file.unlink()
        return run, notes

    @property
    def weights(self) -> Path | None:
        """The checkpoint folder that the run goes on from; None at the start."""
        return self._checkpoint

    def restore(self, optimizer: Optimizer, stage: Stage, companions: Mapping[str, Companion] | None = None) -> None:
        """Load the state of the optimiser and of the method's companions, if the run goes on inside this stage."""
        if self._checkpoint is not None and self.position.stage == stage:
            restore_checkpoint(self._checkpoint, optimizer, companions or {})

    def steps(self, stage: Stage, total: int) -> range:
        """The steps of a stage still to do, counted from 1."""
        if self.position.stage == stage:
            return range(self.position.step + 1, total + 1)
        return range(1, total + 1) if stage == "train" else range(0)

    def problems(
        self, problems: Sequence[Problem], step: int, count: int, stage: Stage, round_: int = 0
    ) -> list[Problem]:
        """The problems of a step: every epoch is a new permutation of all of them, a function of seed and epoch.

        The further rounds of a step, where it has any, go through the problems in an order of their own.
        """
        purpose = (stage, "order") if round_ == 0 else (stage, "order of round", round_)
        chosen: list[Problem] = []
        orders: dict[int, list[int]] = {}
        for index in range((step - 1) * count, step * count):
            epoch, offset = divmod(index, len(problems))
            if epoch not in orders:
                generator = torch.Generator().manual_seed(derive_seed(self.config.run.seed, *purpose, epoch))
                order = torch.randperm(len(problems), generator=generator)
                orders[epoch] = order.tolist()
            chosen.append(problems[orders[epoch][offset]])
        return chosen

    def log(self, stage: str, step: int, record: dict[str, float]) -> dict[str, Any]:
        """Append one line to metrics.jsonl."""
        line = {"stage": stage, "step": step, **record}
        self._metrics.write(json.dumps(line).encode() + b"\n")
        self._metrics.flush()
        return line

    def save_groups(
        self,
        step: int,
        groups_P: Sequence[Group],
        estimate: Estimate,
        pieces: TokenSpans | None = None,
        logprobs: Mapping[int, Tensor] | None = None,
    ) -> Path:
        """Write the rollouts of a training step; see `group_records`."""
        return write_shard(self.path, step, list(group_records(step, groups_P, estimate, pieces, logprobs)))

    def keep_failed_step(self, shard: Path) -> Path:
        """A copy of a step's rollouts, in the run directory itself, where going on with the run does not undo it."""
        return Path(shutil.copyfile(shard, self.path / f"not-finite-{shard.name}"))

    def save(
        self,
        stage: Stage,
        step: int,
        policy: Policy,
        optimizer: Optimizer | None,
        companions: Mapping[str, Companion] | None = None,
    ) -> None:
        """Write a checkpoint; after it the run can go on from here."""
        os.fsync(self._metrics.fileno())
        self.position = Position(stage, step, self._metrics.tell())
        self._checkpoint = save_checkpoint(
            self.path / "checkpoints",
            self.position,
            policy,
            optimizer,
            companions or {},
            keep=self.config.run.keep_checkpoints,
        )
        if model_folder(self.path).exists():  # of an earlier end, which the run has gone beyond
            shutil.rmtree(model_folder(self.path))

    def discard_unused(self) -> None:
        """Delete the directory of a run that failed before anything happened in it."""
        if (
            self._metrics.tell() == 0 and not (self.path / "checkpoints").exists()
        ):  # damaged ones are the user's to judge
            shutil.rmtree(self.path)

    def close(self) -> None:
        """Let go of the files."""
        self._metrics.close()


def _position(checkpoint: Path | None) -> Position:
    return Position("warmstart", 0, 0) if checkpoint is None else read_position(checkpoint)


def _refuse_to_lose(path: Path, config: TrainConfig, notes: Sequence[str]) -> None:
    """A run at its end whose checkpoints were deleted, as a study's are, would begin anew and undo all that it measured."""
    has_model = model_folder(path).is_dir()
    deleted = not (path / "checkpoints").exists() and (path / "metrics.jsonl").is_file()
    ends = {("evaluation", config.training.steps)} if config.training.steps > 0 else set()
    if has_model or (deleted and ends & {(record["stage"], record["step"]) for record in read_metrics(path)}):
        remedy = f"Start a new run from its model: --set model.path={path}" if has_model else "Start a new run."
        raise LampoError(
            " ".join([f"The run {path} is at its end and has no checkpoint to go on from.", *notes, remedy])
        )


def _record_settings(path: Path, config: TrainConfig, settings: Sequence[str], checkpoint: Path | None) -> None:
    """Write what the run goes on with into its config.yaml, and into manifest.json since when."""
    started = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    now = manifest()
    entry = {key: now[key] for key in ("command", "started", "versions")}
    entry |= {"settings": list(settings), "after": checkpoint.name if checkpoint else None}
    resumed = [*started.get("resumed", []), entry]
    write_file(path / "manifest.json", json.dumps(started | {"resumed": resumed}, indent=1).encode())
    write_file(path / "config.yaml", dump_config(config).encode())


def find_run(folder: Path, name: str) -> Path | None:
    """The newest run directory of that name."""
    runs = [
        path
        for path in folder.glob(f"{name}*")
        if _number(path.name, name) is not None and _own_name(path / "config.yaml") == name
    ]
    return max(runs, key=lambda path: _number(path.name, name) or 0, default=None)


def _own_name(config: Path) -> str | None:
    """What the run calls itself; NAME-2 is the second run of NAME, or the first of another recipe."""
    if not config.is_file():
        return None
    return (read_yaml(config, "configuration", "`run:`").get("run") or {}).get("name")


def _number(folder_name: str, name: str) -> int | None:
    """1 for NAME, 2 for NAME-2, None for anything else."""
    if folder_name == name:
        return 1
    rest = folder_name.removeprefix(f"{name}-")
    return int(rest) if rest.isdigit() else None
