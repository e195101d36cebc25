"""What a run holds open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.methods import overridden
from ..config.schema import TrainConfig
from ..evaluation.heldout import evaluate
from ..interrupt import Interrupt
from ..learner.budget import tokens_per_microbatch, with_tokens
from ..learner.optimizer import Optimizer
from ..model.policy import Policy, load_policy
from ..rollout.build import SamplerAt, open_samplers
from ..store.checkpoints import Stage
from ..store.files import find_corruption, write_folder
from ..store.metrics import read_metrics
from ..tasks.split import subset
from ..tasks.task import Task
from ..types import LampoError, Problem
from ..verify import VerifierPool
from ..view.console import Progress
from ..view.trackers import Trackers, open_trackers
from .checkpoint import Companion
from .checks import Problems, check_problems, check_prompts, load_problems
from .manifest import data_facts
from .run import Run
from .step_record import Stopwatch

ALL_BUT_GREEDY = 1e-4
"""The temperature at which the most likely response is drawn."""


class Stopped(LampoError):
    """The user asked to stop. A checkpoint was written."""


@dataclass(frozen=True, slots=True)
class Session:
    """All that a run holds open."""

    run: Run
    config: TrainConfig
    policy: Policy
    sampler_at: SamplerAt
    pool: VerifierPool
    task: Task
    benchmarks: dict[str, Sequence[Problem]]
    progress: Progress
    trackers: Trackers
    interrupt: Interrupt


@contextmanager
def opened_session(run: Run, progress: Progress, *, tracked: bool = True) -> Iterator[Session]:
    """What a run holds open, while it does. A run that does not get that far leaves things as they were.

    Args:
        run: the run.
        progress: tells of it.
        tracked: feed the trackers. A process that only warms up for others leaves that to them, see `tell_warm_start`.

    Raises:
        LampoError: the recipe, its data or its model do not work out.
    """
    with ExitStack() as stack:
        stack.callback(run.close)
        try:
            session = open_session(run, progress, stack, tracked=tracked)
        except LampoError:
            run.give_up()
            raise
        yield session


def open_session(run: Run, progress: Progress, stack: ExitStack, *, tracked: bool = True) -> Session:
    """Load task and policy, and check what can be checked before the first step."""
    config = run.config
    pool = stack.enter_context(VerifierPool())
    problems = checked_problems(run, progress, pool)
    policy = load_policy(config, run.weights)
    if config.training.tokens_per_microbatch == "auto":
        chosen = run.keep_choice("training.tokens_per_microbatch", tokens_per_microbatch(policy.model, config))
        progress.note(f"training.tokens_per_microbatch: {chosen:,}, chosen from the machine")
        config = with_tokens(config, chosen)
    check_prompts(config, problems, policy, progress.note)
    names = config.run.trackers if tracked else []
    trackers = open_trackers(names, run.path, run.path.name, config.model_dump(mode="json"))
    stack.callback(trackers.finish)
    interrupt = stack.enter_context(Interrupt().watch())
    sampler_at = open_samplers(policy, config, [*problems.own, *problems.others], stack, progress.note)
    return Session(
        run, config, policy, sampler_at, pool, problems.task, problems.benchmarks, progress, trackers, interrupt
    )


def tell_warm_start(run: Run, trackers: Trackers) -> None:
    """Tell the trackers of the warm start that another process has made, where the run goes on from it."""
    if run.position.stage == "warmstart":
        for line in read_metrics(run.path):
            if line["stage"] == "warmstart":
                trackers.log(line, line["step"])


def checked_problems(run: Run, progress: Progress, pool: VerifierPool) -> Problems:
    """The problems of a run, checked as far as that needs no model.

    Raises:
        LampoError: they cannot be read, or nothing could be learned from them.
    """
    config = run.config
    progress.note(f"run directory {run.path}")
    if config.method is not None and (changed := overridden(config.model_dump(mode="json"), config.method)):
        progress.note(f"over the settings of the method {config.method}: {', '.join(changed)}")
    if config.verifier is not None:
        pool.start([config.verifier])  # while the problems are read
    problems = load_problems(config)
    for note in run.check_data(data_facts(problems.by_name)):
        progress.note(note)
    check_problems(config, problems, pool, progress.note)
    return problems


def keep_starting_policy(run: Run, policy: Policy) -> Path:
    """The folder in the run directory that keeps the policy that reinforcement learning started from.

    Raises:
        LampoError: it is missing or damaged, and the policy has moved on since.
    """
    folder = run.path / "reference"
    wrong = find_corruption(folder)
    if wrong and run.position.stage == "train":
        raise LampoError(
            f"{folder}, the policy that reinforcement learning started from, cannot be used: {wrong}. It cannot be made again after step "
            f"{run.position.step}: put it back from a copy, or start a new run."
        )
    if wrong:
        write_folder(folder, policy.save)
    return folder


def evaluate_policy(session: Session, step: int) -> None:
    """Measure on held-out problems and log it. More of them before the first and after the last step."""
    options = session.config.evaluation
    ends = step in (0, session.config.training.steps)
    count = options.final_problems if ends and options.final_problems is not None else options.problems
    samples = options.final_samples if ends and options.final_samples is not None else options.samples
    stopwatch = Stopwatch()
    record: dict[str, Any] = {}
    heldout = subset(session.task.heldout, count, options.skip)
    sampler = session.sampler_at(session.config.evaluation_temperature)
    measures = {"": (heldout, sampler, samples)}
    if options.greedy:
        measures["greedy/"] = heldout, session.sampler_at(ALL_BUT_GREEDY), 1
    for name, problems in session.benchmarks.items():
        measures[f"{name}/"] = subset(problems, count), sampler, samples
    for prefix, (problems, drawn_by, responses) in measures.items():
        session.progress.within(f"evaluating {prefix.removesuffix('/')}".rstrip())
        record |= evaluate(
            session.policy,
            drawn_by,
            problems,
            session.config,
            session.pool,
            samples=responses,
            prefix=f"evaluation/{prefix}",
            on_progress=session.progress.tokens,
        )
    line = session.run.log("evaluation", step, record | stopwatch.record())
    session.progress.evaluation(line)
    session.trackers.log(line, step)


def log(session: Session, stage: Stage, step: int, record: dict[str, float]) -> None:
    """One line of metrics, on disk, on screen and in the trackers."""
    line = session.run.log(stage, step, record)
    session.progress.step(step, line)
    session.policy.tell_slower(session.progress.note)  # an update tries its ways when the first one is there
    session.trackers.log(line, step)


def save_if_due(
    session: Session,
    stage: Stage,
    step: int,
    last: int,
    optimizer: Optimizer,
    companions: Mapping[str, Companion] | None = None,
) -> None:
    """Write a checkpoint every so many steps, at the end of a stage, and when the user asks to stop."""
    stopping = session.interrupt.requested and not (stage == "train" and step == last)
    if stopping or step == last or step % session.config.run.checkpoint_every == 0:
        session.run.save(stage, step, session.policy, optimizer, companions)
    if stopping:
        raise Stopped(f"Stopped after step {step} of the {stage} stage, with a checkpoint.")
