"""The engine `trl`: a recipe through TRL's trainer, with the run directory of `lampo train`.

What TRL has no part in is this package's own: reading and checking the problems, the warm start, the evaluation on held-out problems, the
checkpoints. TRL samples, computes the loss and steps the optimiser, in one process or in several.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback

from ...config.schema import TrainConfig
from ...interrupt import stopped_at_once
from ...learner.batch import collate
from ...learner.budget import tokens_per_microbatch
from ...learner.optimizer import Optimizer
from ...model.policy import Policy
from ...model.prompts import encode_prompts
from ...store.lock import LOCK
from ...train.dry_run import dry_run as check
from ...train.loop import warm_start
from ...train.run import Run
from ...train.session import (
    Session,
    Stopped,
    evaluate_policy,
    keep_starting_policy,
    log,
    opened_session,
    save_if_due,
)
from ...train.step_record import peak_memory_gib, rollout_record
from ...types import LampoError, NotFinite, Problem
from ...verify import VerifierPool
from ...view.console import Progress
from .config import LamPOConfig
from .recipe_trainer import RecipeTrainer, gradients
from .translate import budget, refuse, settings

__all__ = ["dry_run", "refuse", "train"]

FAILURE, LOG = "failure.txt", "engine.log"
"""In a run directory: what stopped the processes, told by the first one; and what else they wrote."""
METRICS = {
    "loss": "loss/value",
    "entropy": "loss/entropy",
    "kl": "loss/kl_ref",
    "clip_ratio/low_mean": "loss/clip_fraction_low",
    "clip_ratio/high_mean": "loss/clip_fraction_high",
    "cispo_clip_ratio": "loss/clip_fraction_high",
    "grad_norm": "optimizer/gradient_norm",
}
"""TRL's names and ours; what the groups tell is computed from them as in the native engine."""


def dry_run(config: TrainConfig) -> object:
    """See `Engine.dry_run`."""
    refuse(config)
    return check(config, translate=_lines)


def _lines(config: TrainConfig, longest_prompt: int, model: Any) -> list[str]:
    processes, tokens = config.run.processes, budget(config, model, tokens_per_microbatch(model, config))
    launcher = f"torchrun starts {processes} processes" if processes > 1 else "one process, without a launcher"
    told = [f"  {name}: {value!r}" for name, value in settings(config, longest_prompt, tokens).items()]
    return [f"engine: TRL, {launcher}", "LamPOConfig:", *told]


def train(run: Run, progress: Progress) -> None:
    """See `Engine.train`."""
    refuse(run.config)
    if run.config.run.processes > 1:
        _launch(run, progress)
        return
    with opened_session(run, progress) as session:
        warm_start(session)
        reinforce(session)


def reinforce(session: Session) -> None:
    """The reinforcement-learning stage, in the process that writes the run directory."""
    run, config = session.run, session.config
    if config.loss.kl_coefficient > 0:  # TRL loads the reference by the folder that the model says it is from
        keep_starting_policy(run, session.policy)
    steps = run.steps("train", config.training.steps)
    session.progress.stage(config.method or config.advantage.title, total=config.training.steps, done=steps.start - 1)
    if steps.start == 1:
        evaluate_policy(session, 0)
    if not steps:
        return
    optimizer = Optimizer(session.policy, config.optimizer, config.training.steps)
    run.restore(optimizer, "train")
    trainer = make_trainer(run, session.policy, session.pool, session.task.train, optimizer, config.training.budget)
    trainer.add_callback(Writer(session, trainer, optimizer))
    with old_names():
        trainer.train()


def make_trainer(
    run: Run, policy: Policy, pool: VerifierPool, problems: Sequence[Problem], optimizer: Optimizer, told_tokens: int
) -> RecipeTrainer:
    """The trainer of the steps that a run has still to do, in any of its processes.

    `told_tokens` is `training.tokens_per_microbatch`, or the run's choice where its recipe leaves it open.
    """
    config = run.config
    steps, count = run.steps("train", config.training.steps), config.sampling.problems_per_step
    chosen = [problem for step in steps for problem in run.problems(problems, step, count, "train")]
    longest = max(len(ids) for ids in encode_prompts(problems, policy, config.prompt))
    tokens = budget(config, policy.model, told_tokens)
    if config.loss.kl_coefficient > 0:
        policy.core.config._name_or_path = str(run.path / "reference")
    with old_names():
        args = LamPOConfig(output_dir=str(run.path), **settings(config, longest, tokens, first_step=steps.start))
        return RecipeTrainer(config, policy, pool, chosen, optimizer, steps.start, args)


@contextmanager
def old_names() -> Iterator[None]:
    """transformers renames settings that TRL, and older releases of itself, know by their old names only: nobody needs to hear of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


class Writer(TrainerCallback):
    """Writes what a step came to, measures and saves, at the end of each step of the recipe."""

    def __init__(self, session: Session, trainer: RecipeTrainer, optimizer: Optimizer) -> None:
        self._session = session
        self._trainer = trainer
        self._optimizer = optimizer
        self._logs: list[dict[str, float]] = []
        self._rate = 0.0
        self._began = time.perf_counter()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remember when the step began, and with which learning rate."""
        self._rate = self._optimizer.adamw.param_groups[0]["lr"]
        if not self._logs:
            self._began = time.perf_counter()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Refuse a gradient that is not finite, before the weights are touched."""
        if all(bool(gradient.isfinite().all()) for gradient in gradients(model)):
            return
        step, sampled = self._trainer.step, self._trainer.sampled
        assert sampled is not None
        saved = self._session.run.keep_failed_step(
            self._session.run.save_groups(step, sampled.groups_P, sampled.estimate)
        )
        raise NotFinite(f"Stopped at step {step}. The gradient is not finite. The rollouts of the step are in {saved}.")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """TRL logs after each of its optimiser steps, of which a step of the recipe may have several."""
        config = self._session.config
        if logs is None or "loss" not in logs:  # its summary at the end
            return
        self._logs.append(logs)
        if state.global_step % config.training.updates_per_batch:
            return
        step = self._trainer.step - 1
        self._write(step)
        self._logs = []
        if step % config.evaluation.every == 0 or step == config.training.steps:
            evaluate_policy(self._session, step)
        save_if_due(self._session, "train", step, config.training.steps, self._optimizer)

    def _write(self, step: int) -> None:
        session, sampled = self._session, self._trainer.sampled
        assert sampled is not None
        total = time.perf_counter() - self._began
        known, statistics = sampled.has_logprobs, dict(sampled.estimate.statistics)
        if not known:
            statistics.pop("advantage/concordance", None)
        session.run.save_groups(
            step,
            sampled.groups_P,
            sampled.estimate,
            session.policy.token_spans if known else None,
            has_scores=known,
        )
        batch = collate(sampled.groups_P, sampled.estimate.token_advantages, keep_all=False)
        record = rollout_record(sampled.groups_P, batch) | statistics | self._translated(sampled.teaches)
        record |= sampled.seconds | {"time/update": total - sum(sampled.seconds.values()), "time/total": total}
        record["time/tokens_per_s"] = record["rollouts/tokens"] / total
        log(session, "train", step, record | {"memory/peak_gib": peak_memory_gib()})

    def _translated(self, updated: bool) -> dict[str, float]:
        """What TRL logged, under our names. Nothing of an update that did not happen."""
        if not updated and self._trainer.beta == 0:
            return {}
        record = {}
        for name, ours in METRICS.items():
            values = [float(logs[name]) for logs in self._logs if name in logs]
            if values:
                last = ours in ("loss/value", "optimizer/gradient_norm")
                record[ours] = values[-1] if last else sum(values) / len(values)
        return record | {"optimizer/learning_rate": self._rate}


def _launch(run: Run, progress: Progress) -> None:
    """Warm up in this process, then let torchrun start the others. The first of them writes the run directory."""
    config = run.config
    if run.steps("warmstart", config.warmstart.steps) or config.loss.kl_coefficient > 0:
        with opened_session(run, progress, tracked=False) as session:
            warm_start(session)
            if config.loss.kl_coefficient > 0:  # the copy of the policy that the term looks at
                keep_starting_policy(run, session.policy)
    else:
        run.close()
    progress.hand_over()
    failure = run.path / FAILURE
    failure.unlink(missing_ok=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [
        *launcher,
        "--nproc-per-node",
        str(config.run.processes),
        "-m",
        "lampo.adapters.trl.worker",
        str(run.path),
    ]
    with (run.path / LOG).open("ab") as stream, stopped_at_once():
        process = subprocess.Popen(command, stderr=stream, start_new_session=True)
        try:
            status, stopped = _wait(process, run)
        except BaseException:
            process.terminate()  # torchrun ends its processes
            process.wait()
            raise
    run.read_again()
    if status == 0:
        return
    told = f"The processes of the run failed. What they wrote is in {run.path / LOG}."
    if failure.is_file():
        told = failure.read_text(encoding="utf-8")
        failure.unlink()
    if stopped:
        raise Stopped(told)
    if run.give_up():
        told += " No run is left behind."
    raise LampoError(told)


def _wait(process: subprocess.Popen[bytes], run: Run) -> tuple[int, bool]:
    """The status of the launcher, and whether the user asked to stop. A second Ctrl-C is raised."""
    try:
        return process.wait(), False
    except KeyboardInterrupt:
        writer = json.loads((run.path / LOCK).read_text(encoding="utf-8"))["process"]
        os.kill(writer, signal.SIGINT)  # it ends its step and saves; torchrun then ends the others
        return process.wait(), True
