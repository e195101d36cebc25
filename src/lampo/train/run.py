"""The run directory: configuration, versions, metrics, rollouts, checkpoints. Making one and going on with one.

runs/NAME/
  config.yaml        every setting, loads as a recipe
  manifest.json      command, versions, git commit, settings, hashes of the data; the same of every resume
  metrics.jsonl      one flat object a line, in the order things happened: numbers, and of an evaluation the list by_problem
  rollouts/          000012.jsonl.gz: the groups of training step 12, one a line; index.jsonl
  not-finite-000012.jsonl.gz   the groups of a step that stopped the run, which going on with it does not undo; or mismatch-...
  checkpoints/       train-000050: a Hugging Face folder, with the state of the optimiser
  model/             the trained model with its card, once the run is at its end
  reference/         the policy that reinforcement learning started from, for a KL term or PRIME
  report.html
  .lock              held by the process that writes here
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
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
from ..store.checkpoints import Position, Stage, model_folder, read_position
from ..store.files import write_file
from ..store.lock import LOCK, Lock, lock
from ..store.metrics import read_metrics
from ..store.rollouts import rollout_steps, shard_path, write_shard
from ..types import Group, LampoError, NotFinite, Problem
from .checkpoint import Companion, restore_checkpoint, save_checkpoint
from .extend import edited, extended
from .manifest import manifest
from .rollout_records import group_records
from .soundness import data_changes, read_manifest, shard_notes, sound_checkpoint, version_notes


class Run:
    """An open run directory."""

    def __init__(
        self,
        path: Path,
        config: TrainConfig,
        checkpoint: Path | None,
        held: Lock,
        accepted: Sequence[str] | None = None,
    ) -> None:
        self.path = path
        self.config = config
        self._checkpoint = checkpoint
        self._lock = held
        self._resumed, self._accepted = accepted is not None, accepted or ()
        self._made: list[Path] = []
        self._before: dict[Path, bytes | None] = {}
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
            made = [each for each in (folder, *folder.parents) if not each.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            while True:
                path = folder / (name if number == 1 else f"{name}-{number}")
                try:
                    path.mkdir()
                    break
                except FileExistsError:
                    number += 1
            try:
                held = lock(path / LOCK, f"The run {path}")
                (path / "rollouts").mkdir()
                write_file(path / "config.yaml", dump_config(config).encode())
                _write_manifest(path, manifest() | {"config": config.model_dump(mode="json")})
                run = cls(path, config, None, held)
                run._made = made
                return run
            except BaseException:  # a full disk, Ctrl-C
                _delete(path, made)
                raise
        except OSError as error:
            raise LampoError(
                f"Cannot make a run directory in {folder.absolute()}: {error.strerror or error}. Choose another with --set run.folder=DIR."
            ) from None

    @classmethod
    def resume(cls, path: Path, settings: Sequence[str] = (), accepted: Sequence[str] = ()) -> tuple[Run, list[str]]:
        """Go on with a run: the latest whole checkpoint, or the start. Later metrics and rollouts are undone.

        Args:
            path: the run directory.
            settings: `a.b=c`, written into its config.yaml; see `extended` for those that a run may change.
            accepted: settings that differ from those the run began with, or "data", which would else be refused.

        Returns:
            the run, and lines the user should read: what is damaged, and what differs from before.

        Raises:
            LampoError: another process works on the run; a setting may not change; what the run relies on is lost or is not what it
                was; or a run at its end has lost its checkpoints.
        """
        if not path.is_dir():
            raise LampoError(f"There is no run {path} to resume.")
        held = lock(path / LOCK, f"The run {path}")
        try:
            return cls._resume(path, settings, accepted, held)
        except BaseException:
            held.release()
            raise

    @classmethod
    def _resume(cls, path: Path, settings: Sequence[str], accepted: Sequence[str], held: Lock) -> tuple[Run, list[str]]:
        config = load_config(path / "config.yaml")
        checkpoint, notes = sound_checkpoint(path)
        if checkpoint is None:
            _refuse_to_lose(path, config, notes)
        position = _position(checkpoint)
        notes += shard_notes(path, position)
        before, complaints = read_manifest(path)
        now = manifest()
        notes += complaints + edited(path, config, (before or {}).get("config"), accepted)
        notes += version_notes(before or {}, now)
        if settings:
            config, changes = extended(path, settings, position)
            notes += changes
        entry = {key: now[key] for key in ("command", "started", "python", "git_commit", "versions")}
        entry |= {"settings": [*settings], "accepted": [*accepted], "after": checkpoint.name if checkpoint else None}
        told = (before or now) | {"config": config.model_dump(mode="json")}
        told["resumed"] = [*told.get("resumed", []), entry]
        files = path / "config.yaml", path / "manifest.json"
        as_they_were = {file: file.read_bytes() if file.is_file() else None for file in files}
        _write_manifest(path, told)
        if settings:
            write_file(path / "config.yaml", dump_config(config).encode())
        run = cls(path, config, checkpoint, held, accepted)
        run._before = as_they_were
        run._metrics.truncate(run.position.metrics_bytes)
        (path / "rollouts").mkdir(exist_ok=True)
        for step in rollout_steps(path):
            if position.stage == "warmstart" or step > position.step:
                shard_path(path, step).unlink()
        return run, notes

    @classmethod
    def join(cls, path: Path, *, writes: bool) -> Run:
        """The run as a process opens it that an engine's launcher has started: the starting process has made it and let go of it.

        Args:
            path: the run directory.
            writes: it is the one that writes there; the others only read what the run is.

        Raises:
            LampoError: another process works on the run.
        """
        held = lock(path / LOCK, f"The run {path}") if writes else Lock(os.open(os.devnull, os.O_RDONLY))
        checkpoint, _ = sound_checkpoint(path)
        return cls(path, load_config(path / "config.yaml"), checkpoint, held)

    def read_again(self) -> None:
        """Look for the checkpoints that the processes of a launcher have written."""
        before = self.position
        self._checkpoint, _ = sound_checkpoint(self.path)
        self.position = _position(self._checkpoint)
        if self.position != before:
            self._before = {}

    def check_data(self, problems: dict[str, dict[str, Any]]) -> list[str]:
        """Record what problems the run is made with, and compare them with those it was made with before.

        Returns:
            lines the user should read.

        Raises:
            LampoError: they are others, the run has begun, and "data" is not accepted.
        """
        told, _ = read_manifest(self.path)
        told = told or manifest()
        changes = data_changes(told.get("data"), problems)
        if changes and self._checkpoint is not None and "data" not in self._accepted:
            raise LampoError(
                f"The problems are not those that the run {self.path} was made with: {'; '.join(changes)}. Put the data back, start a new "
                f"run, or resume with the new ones all the same: lampo train {self.path} --resume --accept data"
            )
        _write_manifest(self.path, told | {"data": problems})
        return [f"The run goes on with other problems: {'; '.join(changes)}"] if changes else []

    def choice(self, key: str) -> int | None:
        """What the run chose for a setting that its recipe leaves open; None where it has not yet."""
        told, _ = read_manifest(self.path)
        return (told or {}).get("chosen", {}).get(key)

    def keep_choice(self, key: str, value: int) -> int:
        """What the run chose for a setting that its recipe leaves open: the value now, or the one that it began with."""
        told, _ = read_manifest(self.path)
        told = told or manifest()
        chosen = {key: value} | told.get("chosen", {})
        _write_manifest(self.path, told | {"chosen": chosen})
        return chosen[key]

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
        """The problems of a step, see `problems_of_step`."""
        return problems_of_step(problems, self.config.run.seed, step, count, stage, round_)

    def log(self, stage: str, step: int, record: Mapping[str, Any]) -> dict[str, Any]:
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
        *,
        has_scores: bool = True,
    ) -> Path:
        """Write the rollouts of a training step. See `group_records`."""
        records = group_records(step, groups_P, estimate, pieces, logprobs, has_scores=has_scores)
        return write_shard(self.path, step, list(records))

    def keep_failed_step(self, shard: Path, why: str = NotFinite.rollouts) -> Path:
        """A copy of a step's rollouts, in the run directory itself, where going on with the run does not undo it."""
        return Path(shutil.copyfile(shard, self.path / f"{why}-{shard.name}"))

    def save(
        self,
        stage: Stage,
        step: int,
        policy: Policy,
        optimizer: Optimizer | None,
        companions: Mapping[str, Companion] | None = None,
    ) -> None:
        """Write a checkpoint. After it the run can go on from here."""
        self._before = {}
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

    def discard_unused(self) -> bool:
        """Delete the directory of a run that was made now and in which nothing happened yet. Returns whether it was deleted."""
        if self._resumed or (self.path / "metrics.jsonl").stat().st_size > 0 or (self.path / "checkpoints").exists():
            return False
        _delete(self.path, self._made)
        return not self.path.exists()

    def give_up(self) -> bool:
        """Leave things as they were before a run that cannot begin: no new directory, or the settings of one that is resumed.

        Returns:
            whether the directory was deleted.
        """
        for file, content in self._before.items():
            if content is None:
                file.unlink(missing_ok=True)
            else:
                write_file(file, content)
        return self.discard_unused()

    def alone(self) -> AbstractContextManager[object]:
        """As the only process that writes into the directory, after `close` too."""
        return lock(self.path / LOCK, f"The run {self.path}") if self._metrics.closed else nullcontext()

    def close(self) -> None:
        """Let go of the files, and let other processes write into the directory."""
        self._metrics.close()
        self._lock.release()


def problems_of_step(
    problems: Sequence[Problem], seed: int, step: int, count: int, stage: str, round_: int = 0
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
            generator = torch.Generator().manual_seed(derive_seed(seed, *purpose, epoch))
            order = torch.randperm(len(problems), generator=generator)
            orders[epoch] = order.tolist()
        chosen.append(problems[orders[epoch][offset]])
    return chosen


def _delete(path: Path, made: Sequence[Path]) -> None:
    """Delete a run directory, and of the folders above it those that were made for it, unless they hold another by now."""
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        for folder in made:
            folder.rmdir()


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


def _write_manifest(path: Path, facts: Mapping[str, Any]) -> None:
    write_file(path / "manifest.json", json.dumps(facts, indent=1).encode())


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
