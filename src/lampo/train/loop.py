"""The loop: sample, score, estimate, update. Whoever reads `reinforce` and `update` has seen the method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

from torch import Tensor

from ..algo.objective import merge_statistics, policy_loss
from ..algo.registry import surrogate_function
from ..algo.surrogates import needs_whole_groups
from ..config.schema import TrainConfig
from ..learner.answer_likelihood import answer_likelihoods
from ..learner.batch import Batch, collate
from ..learner.optimizer import Optimizer
from ..learner.sampler_mismatch import mismatch_record, with_learner_logprobs
from ..model.policy import Policy, load_policy, load_weights
from ..model.prompts import encode_prompts
from ..rewards import LikelihoodReward, score
from ..seeds import derive_seed
from ..types import Group, Likelihood, NotFinite, Problem, SamplerMismatch
from ..verify.verification import Verification
from ..view.console import Progress
from .companions import Estimator
from .run import Run
from .session import Session, evaluate_policy, keep_starting_policy, log, opened_session, save_if_due
from .step_record import Stopwatch, peak_memory_gib, rollout_record
from .warmstart import demonstrations, imitate


def train(run: Run, progress: Progress) -> None:
    """Run a recipe to its end, from wherever the run stands.

    Raises:
        Stopped: after Ctrl-C, with a checkpoint of the step that was under way.
        LampoError: the recipe, its data or its model do not work out, or the loss stopped being finite.
    """
    with opened_session(run, progress) as session:
        warm_start(session)
        reinforce(session)


def reinforce(session: Session) -> None:
    """The reinforcement-learning stage (arXiv 2605.21235)."""
    run, config, policy = session.run, session.config, session.policy
    optimizer = Optimizer(policy, config.optimizer, config.training.steps)
    start = partial(keep_starting_policy, run, policy)
    reference = load_weights(config, policy, start()) if config.loss.kl_coefficient > 0 else None
    estimator = Estimator(config, lambda: load_policy(config, start()))
    whole_groups = needs_whole_groups(surrogate_function(config.loss.surrogate))
    run.restore(optimizer, "train", estimator.companions)
    steps = run.steps("train", config.training.steps)
    session.progress.stage(config.method or config.advantage.title, total=config.training.steps, done=steps.start - 1)
    if steps.start == 1:
        evaluate_policy(session, 0)
    for step in steps:
        stopwatch = Stopwatch()
        # responses with the log-probs they were drawn with, verdicts, rewards; nothing later in the step samples or judges again
        groups_P, rejected = sample_groups(session, step, stopwatch)
        with stopwatch("score"):
            # where the methods differ: rewards and log-probs in, advantages out, without a gradient
            by_learner = config.sampling.vllm.scores_from == "trainer"
            scored_P = with_learner_logprobs(groups_P, policy, config) if by_learner else groups_P
            estimate = estimator.estimate(scored_P, step)
        with stopwatch("update"):
            # a row whose advantage is exactly 0 costs no pass, unless a KL term or its group needs it
            keep_all = reference is not None or whole_groups
            batch = collate(groups_P, estimate.token_advantages, keep_all=keep_all, left_out=estimate.left_out)
            try:
                record, logprobs = update(policy, optimizer, batch, config, step, reference)
            except (NotFinite, SamplerMismatch) as error:  # the rollouts that caused it are what one wants to look at
                shard = run.save_groups(step, groups_P, estimate, policy.token_spans)
                saved = run.keep_failed_step(shard, error.rollouts)
                raise type(error)(f"Stopped at step {step}. {error} The rollouts of the step are in {saved}.") from None
        with stopwatch("score"):
            # after the update, for the viewer shows each token's ratio
            run.save_groups(step, groups_P, estimate, policy.token_spans, logprobs)
        record = rollout_record([*groups_P, *rejected], batch) | estimate.statistics | record | stopwatch.record()
        record["time/tokens_per_s"] = record["rollouts/tokens"] / record["time/total"]
        log(session, "train", step, record | {"memory/peak_gib": peak_memory_gib()})
        if step % config.evaluation.every == 0 or step == config.training.steps:
            evaluate_policy(session, step)
        # last, so that a run that goes on from here repeats neither the step nor its evaluation
        save_if_due(session, "train", step, config.training.steps, optimizer, estimator.companions)


def sample_groups(session: Session, step: int, stopwatch: Stopwatch) -> tuple[list[Group], list[Group]]:
    """The groups of a step, verified and rewarded, and those that dynamic sampling rejected.

    Under `sampling.resample` (DAPO, arXiv 2503.14476) a group whose responses are all right or all wrong, or whose accuracy is out of
    range, gives way to one of another problem, until there are enough groups or the rounds are over. If all of them are so, the first
    ones stay.
    """
    run, options = session.run, session.config.sampling
    kept: list[Group] = []
    rejected: list[Group] = []
    for round_ in range(1 + options.resample):
        problems_P = run.problems(session.task.train, step, options.problems_per_step, "train", round_)
        groups_P = sample_and_score(session, problems_P[len(kept) :], step, round_, stopwatch)
        if options.resample == 0:
            return groups_P, []
        for group in groups_P:
            (kept if options.keeps(group) else rejected).append(group)
        if len(kept) == options.problems_per_step:
            break
    enough = options.problems_per_step
    # a step without any group to learn from keeps its first ones: an update of nothing is still logged
    return (kept, rejected) if kept else (rejected[:enough], rejected[enough:])


def sample_and_score(
    session: Session, problems_P: Sequence[Problem], step: int, round_: int, stopwatch: Stopwatch
) -> list[Group]:
    """Rollouts of these problems, their verdicts and rewards."""
    config = session.config
    location = (step, round_) if round_ else (step,)
    with stopwatch("sample"):
        prompts_P = encode_prompts(problems_P, session.policy, config.prompt)
        verification = Verification(session.pool, problems_P, config.verifier)
        rollouts_PG = session.sampler_at(config.sampling.temperature).sample(
            prompts_P,
            config.sampling.group_size,
            seed=derive_seed(config.run.seed, "sample", *location),
            on_progress=session.progress.tokens,
            on_rollout=verification.begin,
        )
    with stopwatch("verify"):
        # verification began while others were still being sampled; what hangs is unknown, and the step does not wait for it
        verdicts_PG = verification.verdicts(rollouts_PG, drop_stragglers=True)
    with stopwatch("score"):
        likelihoods_PG: Sequence[Sequence[Likelihood] | None] = [None] * len(problems_P)
        if config.rewarded_by(LikelihoodReward):
            likelihoods_PG = answer_likelihoods(
                session.policy,
                problems_P,
                prompts_P,
                rollouts_PG,
                verdicts_PG,
                config.training.budget,
            )
        return [
            score(problem, rollouts_G, verdicts_G, config.rewards, config.sampling.max_new_tokens, likelihoods_G)
            for problem, rollouts_G, verdicts_G, likelihoods_G in zip(
                problems_P, rollouts_PG, verdicts_PG, likelihoods_PG, strict=True
            )
        ]


def update(
    policy: Policy,
    optimizer: Optimizer,
    batch: Batch,
    config: TrainConfig,
    step: int,
    reference: Mapping[str, Tensor] | None = None,
) -> tuple[dict[str, float], dict[int, Tensor]]:
    """Move the policy by `updates_per_batch` optimiser steps on one batch of rollouts.
    The KL term, where there is one, is to the same model with the reference's weights.

    Returns:
        what to log; and by the number of each row its (T,) log-probs under the policy that the last of these steps moved.

    Raises:
        NotFinite, SamplerMismatch: before the weights are touched.
    """
    if not batch.rows:
        return {}, {}  # every advantage is exactly 0: nothing to learn from
    # of the whole step, so that the gradient is the same for every split into micro-batches
    denominator = batch.denominator(config.loss.aggregation, config.sampling.max_new_tokens)
    temperature = config.sampling.temperature
    statistics, record, mismatch, value = [], {}, {}, 0.0
    logprobs: dict[int, Tensor] = {}
    corrected = config.loss.sampler_correction != "off"
    recomputed: list[Tensor] = []  # the learner's log-probs before the first update, a micro-batch each
    microbatches = batch.split(
        config.training.budget,
        whole_groups=needs_whole_groups(surrogate_function(config.loss.surrogate)),
        layout=policy.layout,
    )
    ref_logprobs: list[Tensor | None] = [None] * len(microbatches)
    if reference is not None:
        with policy.holding(reference):  # of all at once, since on a GPU its weights come and go
            ref_logprobs = [
                policy.frozen_logprobs(part.to(policy.device), temperature=temperature) for part in microbatches
            ]
    for number in range(config.training.updates_per_batch):
        losses = []
        for index, microbatch in enumerate(microbatches):
            microbatch = microbatch.to(policy.device)
            logprobs_NT, entropy_NT = policy.token_logprobs(microbatch, temperature=temperature)
            if corrected and number == 0:
                recomputed.append(logprobs_NT.detach())
            loss = policy_loss(
                logprobs_NT,
                recomputed[index] if corrected else microbatch.old_logprobs_NT,
                microbatch.advantages_NT,
                microbatch.mask_NT,
                denominator=denominator,
                **config.loss.model_dump(),
                ref_logprobs_NT=ref_logprobs[index],
                entropy_NT=entropy_NT,
                group_ids_N=microbatch.group_ids_N,
                sampler_logprobs_NT=microbatch.old_logprobs_NT,
            )
            loss.value.backward()  # gradients add up over the micro-batches
            losses.append(loss.value.detach())
            statistics.append(loss.statistics)
            logprobs |= microbatch.by_row(logprobs_NT.detach())
        value = sum(map(float, losses))
        if not math.isfinite(value):
            raise NotFinite(f"The loss is {value}.")
        if number == 0:
            mismatch = mismatch_record(batch, logprobs, config)
        record = optimizer.step(step)
    means = {f"loss/{name}": mean for name, mean in merge_statistics(statistics).items()}
    return {"loss/value": value} | means | mismatch | record, logprobs


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
