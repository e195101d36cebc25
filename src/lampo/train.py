"""The loop: sample, score, estimate, update. Whoever reads `reinforce` and `update` has seen the method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from torch import Tensor

from .batch import Batch, collate
from .checkpoint import Companion, Stage
from .config import TrainConfig
from .console import Progress
from .estimator import Estimator
from .evaluate import evaluate
from .files import damage, write_folder
from .interrupt import Interrupt
from .likelihood import answer_likelihoods, refuse_unfit_answers
from .metrics import Stopwatch, peak_memory_gib, rollout_record
from .objective import merge_statistics, policy_loss
from .optimizer import Optimizer
from .policy import Policy
from .prompts import encode_prompts, measured_less_exactly, refuse_long_prompts, refuse_unknown_characters
from .rewards import score
from .run import Run
from .sample import NativeSampler, Sampler
from .seeds import derive_seed
from .tasks.base import Task
from .tasks.check import check_answers
from .tasks.load import load_benchmark, load_task
from .tasks.split import subset
from .trackers import Trackers, open_trackers
from .types import Group, LampoError, Likelihood, NotFinite, Problem
from .verdicts import Verification
from .verify import VerifierPool, prepare_verifiers
from .warmstart import demonstrations, imitate

ALL_BUT_GREEDY = 1e-4
"""The temperature at which the most likely response is drawn."""


class Stopped(LampoError):
    """The user asked to stop; a checkpoint was written."""


@dataclass(frozen=True, slots=True)
class Session:
    """All that a run holds open."""

    run: Run
    config: TrainConfig
    policy: Policy
    sampler: Sampler
    evaluation_sampler: Sampler
    pool: VerifierPool
    task: Task
    benchmarks: dict[str, Sequence[Problem]]
    progress: Progress
    trackers: Trackers
    interrupt: Interrupt


def train(run: Run, progress: Progress) -> None:
    """Run a recipe to its end, from wherever the run stands.

    Raises:
        Stopped: after Ctrl-C, with a checkpoint of the step that was under way.
        LampoError: the recipe, its data or its model do not work out, or the loss stopped being finite.
    """
    with ExitStack() as stack:
        stack.callback(run.close)
        try:
            session = open_session(run, progress, stack)
        except LampoError:
            run.discard_unused()
            raise
        warm_start(session)
        reinforce(session)


def reinforce(session: Session) -> None:
    """The reinforcement-learning stage (arXiv 2605.21235)."""
    run, config, policy = session.run, session.config, session.policy
    optimizer = Optimizer(policy, config.optimizer, config.training.steps)
    starting_policy = partial(load_starting_policy, run, policy)
    reference = starting_policy() if config.loss.kl_coefficient > 0 else None
    estimator = Estimator(config, starting_policy)
    run.restore(optimizer, "train", estimator.companions)
    steps = run.steps("train", config.training.steps)
    session.progress.stage(config.method or config.advantage.name, total=config.training.steps, done=steps.start - 1)
    if steps.start == 1:
        evaluate_policy(session, 0)
    for step in steps:
        stopwatch = Stopwatch()
        groups_P, set_aside = sample_groups(session, step, stopwatch)
        with stopwatch("score"):
            estimate = estimator.estimate(groups_P, step)
        with stopwatch("update"):
            keep_all = reference is not None or config.loss.whole_groups
            batch = collate(groups_P, estimate.weights_N, keep_all=keep_all, left_out=estimate.left_out)
            try:
                record, logprobs = update(policy, optimizer, batch, config, step, reference)
            except NotFinite as error:
                saved = run.keep_aside(run.save_groups(step, groups_P, estimate, policy.pieces))
                raise NotFinite(f"Stopped at step {step}. {error} The rollouts of the step are in {saved}.") from None
        with stopwatch("score"):
            run.save_groups(step, groups_P, estimate, policy.pieces, logprobs)
        record = rollout_record([*groups_P, *set_aside], batch) | estimate.statistics | record | stopwatch.record()
        record["time/tokens_per_s"] = record["rollouts/tokens"] / record["time/total"]
        log(session, "train", step, record | {"memory/peak_gib": peak_memory_gib()})
        if step % config.evaluation.every == 0 or step == config.training.steps:
            evaluate_policy(session, step)
        save_if_due(session, "train", step, config.training.steps, optimizer, estimator.companions)


def sample_groups(session: Session, step: int, stopwatch: Stopwatch) -> tuple[list[Group], list[Group]]:
    """The groups of a step, verified and rewarded, and those that dynamic sampling set aside.

    Under `sampling.resample` (DAPO, arXiv 2503.14476) a group whose responses are all right or all wrong, or whose accuracy is out of
    range, gives way to one of another problem, until there are enough groups or the rounds are over. If all of them are so, the first
    ones stay.
    """
    run, options = session.run, session.config.sampling
    kept: list[Group] = []
    set_aside: list[Group] = []
    for round_ in range(1 + options.resample):
        problems_P = run.problems(session.task.train, step, options.problems_per_step, "train", round_)
        groups_P = sample_and_score(session, problems_P[len(kept) :], step, round_, stopwatch)
        if options.resample == 0:
            return groups_P, []
        for group in groups_P:
            (kept if options.keeps(group) else set_aside).append(group)
        if len(kept) == options.problems_per_step:
            break
    enough = options.problems_per_step
    return (kept, set_aside) if kept else (set_aside[:enough], set_aside[enough:])


def sample_and_score(
    session: Session, problems_P: Sequence[Problem], step: int, round_: int, stopwatch: Stopwatch
) -> list[Group]:
    """Rollouts of these problems, their verdicts and rewards."""
    config = session.config
    place = (step, round_) if round_ else (step,)
    with stopwatch("sample"):
        prompts_P = encode_prompts(problems_P, session.policy, config.prompt)
        verification = Verification(session.pool, problems_P, config.verifier)
        rollouts_PG = session.sampler.sample(
            prompts_P,
            config.sampling.group_size,
            seed=derive_seed(config.run.seed, "sample", *place),
            on_progress=session.progress.tokens,
            on_rollout=verification.begin,
        )
    with stopwatch("verify"):
        verdicts_PG = verification.verdicts(rollouts_PG, hurry=True)
    with stopwatch("score"):
        likelihoods_PG: Sequence[Sequence[Likelihood] | None] = [None] * len(problems_P)
        if config.rewards.source == "likelihood":
            likelihoods_PG = answer_likelihoods(
                session.policy,
                problems_P,
                prompts_P,
                rollouts_PG,
                verdicts_PG,
                config.training.tokens_per_microbatch,
            )
        return [
            score(problem, rollouts_G, verdicts_G, config.rewards, config.sampling.max_new_tokens, likelihoods_G)
            for problem, rollouts_G, verdicts_G, likelihoods_G in zip(
                problems_P, rollouts_PG, verdicts_PG, likelihoods_PG, strict=True
            )
        ]


def update(
    policy: Policy, optimizer: Optimizer, batch: Batch, config: TrainConfig, step: int, reference: Policy | None = None
) -> tuple[dict[str, float], dict[int, Tensor]]:
    """Move the policy by `updates_per_batch` optimiser steps on one batch of rollouts.

    Returns:
        what to log; and by the number of each row its (T,) log-probs under the policy that the last of these steps moved.

    Raises:
        NotFinite: before the weights are touched.
    """
    if not batch.rows:
        return {}, {}  # every advantage is exactly 0: nothing to learn from
    denominator = batch.denominator(config.loss.aggregation, config.sampling.max_new_tokens)
    temperature = config.sampling.temperature
    statistics, record, value = [], {}, 0.0
    logprobs: dict[int, Tensor] = {}
    microbatches = batch.split(
        config.training.tokens_per_microbatch,
        whole_groups=config.loss.whole_groups,
        share_prompts=policy.shares_prompts,
    )
    for _ in range(config.training.updates_per_batch):
        losses = []
        for microbatch in microbatches:
            microbatch = microbatch.to(policy.device)
            logprobs_NT, entropy_NT = policy.token_logprobs(microbatch, temperature=temperature)
            loss = policy_loss(
                logprobs_NT,
                microbatch.old_logprobs_NT,
                microbatch.advantages_NT,
                microbatch.mask_NT,
                denominator=denominator,
                **config.loss.model_dump(),
                ref_logprobs_NT=None
                if reference is None
                else reference.frozen_logprobs(microbatch, temperature=temperature),
                entropy_NT=entropy_NT,
                group_ids_N=microbatch.group_ids_N,
            )
            loss.value.backward()
            losses.append(loss.value.detach())
            statistics.append(loss.statistics)
            logprobs |= microbatch.by_row(logprobs_NT.detach())
        value = sum(map(float, losses))
        if not math.isfinite(value):
            raise NotFinite(f"The loss is {value}.")
        record = optimizer.step(step)
    means = {f"loss/{name}": mean for name, mean in merge_statistics(statistics).items()}
    return {"loss/value": value} | means | record, logprobs


def warm_start(session: Session) -> None:
    """Supervised steps on worked solutions, where the recipe has them."""
    run, config = session.run, session.config
    steps = run.steps("warmstart", config.warmstart.steps)
    if not steps:
        return
    optimizer = Optimizer(session.policy, config.warmstart.optimizer, config.warmstart.steps)
    run.restore(optimizer, "warmstart")
    session.progress.stage("warm start", total=config.warmstart.steps, done=steps.start - 1)
    for step in steps:
        stopwatch = Stopwatch()
        problems_P = run.problems(session.task.train, step, config.warmstart.rows_per_step, "warmstart")
        batch = demonstrations(problems_P, session.policy, config)
        record = imitate(session.policy, optimizer, batch, config, step)
        log(session, "warmstart", step, record | stopwatch.record() | {"memory/peak_gib": peak_memory_gib()})
        save_if_due(session, "warmstart", step, config.warmstart.steps, optimizer)


def open_session(run: Run, progress: Progress, stack: ExitStack) -> Session:
    """Load task and policy, and check what can be checked before the first step."""
    config = run.config
    progress.note(f"run directory {run.path}")
    task = load_task(config.task, config.decontamination).for_training()
    evaluation = config.evaluation
    benchmarks = {name: load_benchmark(name, evaluation.data) for name in evaluation.benchmarks}
    if evaluation.skip >= len(task.heldout) > 0:
        raise LampoError(f"evaluation.skip is {evaluation.skip}, and there are {len(task.heldout)} held-out problems.")
    own, others = [*task.train, *task.heldout], [*chain.from_iterable(benchmarks.values())]
    needed = [*own, *others]
    prepare_verifiers(needed, config.verifier)
    pool = stack.enter_context(VerifierPool())
    answers = check_answers(needed, config.verifier, pool.verify_all)
    if answers.failing:
        if answers.remedy and config.rewards.source == "verifier":
            raise LampoError(str(answers))
        progress.note(str(answers))
    if config.rewards.rouge_l > 0 and not any(problem.reference for problem in task.train):
        raise LampoError(
            f"rewards.rouge_l is {config.rewards.rouge_l:g}, but no problem has a reference solution to compare with. Name the task's "
            "column of reference solutions, or set rewards.rouge_l to 0."
        )
    if config.model.characters is not None:
        solved = config.warmstart.steps > 0 or config.rewards.rouge_l > 0
        refuse_unknown_characters(own, config.prompt, config.model.characters, solutions=solved)
    policy = load_policy(config, run.weights)
    refuse_long_prompts(own, policy, config.prompt, config.sampling.max_new_tokens)
    if complaint := measured_less_exactly(others, policy, config.prompt, config.sampling.max_new_tokens):
        progress.note(complaint)
    if config.rewards.source == "likelihood":
        refuse_unfit_answers(task.train, policy, config.sampling.max_new_tokens)
    trackers = open_trackers(config.run.trackers, run.path, run.path.name, config.model_dump(mode="json"))
    stack.callback(trackers.finish)
    interrupt = stack.enter_context(Interrupt().watch())
    samplers = native_sampler(policy, config), native_sampler(policy, config, config.evaluation_temperature)
    return Session(run, config, policy, *samplers, pool, task, benchmarks, progress, trackers, interrupt)


def load_policy(config: TrainConfig, weights: Path | None) -> Policy:
    """The recipe's policy, with the weights of a checkpoint folder where one is given."""
    return Policy.load(config.model, seed=derive_seed(config.run.seed, "model"), weights=weights)


def native_sampler(policy: Policy, config: TrainConfig, temperature: float | None = None) -> NativeSampler:
    """The recipe's sampler, or one like it at another temperature."""
    options = config.sampling
    return NativeSampler(
        policy,
        temperature=options.temperature if temperature is None else temperature,
        max_new_tokens=options.max_new_tokens,
        rows_at_once=options.rows_at_once,
    )


def load_starting_policy(run: Run, policy: Policy) -> Policy:
    """Another copy of the policy that reinforcement learning started from, which is kept in the run directory.

    Raises:
        LampoError: it is missing or damaged, and the policy has moved on since.
    """
    folder = run.path / "reference"
    wrong = damage(folder)
    if wrong and run.place.stage == "train":
        raise LampoError(
            f"{folder}, the policy that reinforcement learning started from, cannot be used: {wrong}. It cannot be made again after step "
            f"{run.place.step}: put it back from a copy, or start a new run."
        )
    if wrong:
        write_folder(folder, policy.save)
    return load_policy(run.config, folder)


def evaluate_policy(session: Session, step: int) -> None:
    """Measure on held-out problems and log it; more of them before the first and after the last step."""
    options = session.config.evaluation
    ends = step in (0, session.config.training.steps)
    count = options.final_problems if ends and options.final_problems is not None else options.problems
    samples = options.final_samples if ends and options.final_samples is not None else options.samples
    stopwatch = Stopwatch()
    record: dict[str, float] = {}
    heldout, sampler = subset(session.task.heldout, count, options.skip), session.evaluation_sampler
    measures = {"": (heldout, sampler, samples)}
    if options.greedy:
        measures["greedy/"] = heldout, native_sampler(session.policy, session.config, ALL_BUT_GREEDY), 1
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
