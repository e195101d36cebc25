"""One measurement from recipe to answer: warm start, rollouts, gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ..algo.registry import EstimatorOptions, OwnEstimatorOptions
from ..config.schema import TrainConfig
from ..interrupt import Interrupt
from ..learner.answer_likelihood import answer_likelihoods
from ..learner.budget import tokens_per_microbatch, with_tokens
from ..learner.optimizer import Optimizer
from ..model.policy import Policy, load_policy
from ..model.prompts import encode_prompts
from ..rewards import LikelihoodReward, RewardOptions, VerifierReward, score
from ..rollout.build import open_samplers
from ..rollout.sampler import Sampler
from ..seeds import derive_seed
from ..train.checks import check_problems, check_prompts, load_problems
from ..train.own_functions import try_own_functions
from ..train.run import problems_of_step
from ..train.warmstart import demonstrations, imitate
from ..types import LampoError, Problem
from ..verify import VerifierPool
from ..verify.verification import Verification
from ..view.console import Progress
from .answer import Answer, compare_signals
from .candidates import BASELINE
from .measure import Instrument, Sampled, Sketches, baseline_weights, measure_group, weigh

CLEAN = "clean verdicts"
FEWEST = 16
"""Groups under which nothing is said; as many at least make the scaling."""
MOST_ROLLOUTS = 16384
"""Their inner products take 2 GiB."""


def measure(
    config: TrainConfig,
    weights: Path | None,
    estimators: Mapping[str, EstimatorOptions],
    *,
    num_groups: int,
    false_positives: Sequence[float],
    false_negatives: Sequence[float],
    width: int,
    progress: Progress,
) -> Answer:
    """Sample groups from the policy that a recipe's reinforcement learning starts with, or that a run has reached, and measure.

    Args:
        config: the recipe.
        weights: a checkpoint folder; None makes the warm start.
        estimators: by name; the baseline is among them.
        num_groups: to measure, beside those that the scaling is learned from.
        false_positives: shares of wrong answers that are rewarded.
        false_negatives: shares of right answers that are not.
        width: numbers of a sketch.
        progress: hears of it.

    Raises:
        LampoError: the recipe does not work out, or there is nothing to measure.
        KeyboardInterrupt: the user stopped it before anything could be said.
    """
    refuse_too_many(num_groups, config.sampling.group_size)
    interrupt = Interrupt("Stopping. The answer is of what was measured by now.")
    conditions = _conditions(config.rewards, false_positives, false_negatives)
    with ExitStack() as stack:
        source = open_source(config, weights, estimators, progress, stack)
        config = source.config
        stack.enter_context(interrupt.watch())
        if weights is None:
            warm_start(source, interrupt)
        instrument = Instrument(
            source.policy,
            temperature=config.sampling.temperature,
            tokens_per_microbatch=config.training.budget,
            aggregation=config.loss.aggregation,
            width=width,
            seed=derive_seed(config.run.seed, "sketch"),
        )
        stack.callback(instrument.close)
        num_scale = learn_scale(source, instrument, estimators[BASELINE], conditions[CLEAN], num_groups, interrupt)
        sketches = gather(source, instrument, estimators, conditions, num_groups, interrupt)
    progress.within("comparing")
    return answer_of(sketches, config, weights, num_scale=num_scale, width=width)


def refuse_too_many(num_groups: int, group_size: int) -> None:
    """What is kept of the rollouts must fit into memory.

    Raises:
        LampoError: it does not.
    """
    if num_groups * group_size > MOST_ROLLOUTS:
        fits = MOST_ROLLOUTS // group_size
        lower = (
            f"--groups to {fits:,}" if fits >= FEWEST else f"sampling.group_size to {MOST_ROLLOUTS // FEWEST:,} or less"
        )
        raise LampoError(
            f"{num_groups:,} groups of {group_size} are {num_groups * group_size:,} rollouts, and at most {MOST_ROLLOUTS:,} fit. "
            f"Lower {lower}."
        )


def open_source(
    config: TrainConfig,
    weights: Path | None,
    estimators: Mapping[str, EstimatorOptions],
    progress: Progress,
    stack: ExitStack,
) -> Source:
    """Problems, verifiers, policy and sampler, each checked before minutes are spent on it. They are open until the stack ends.

    Raises:
        LampoError: the recipe, its data or its model do not work out, or a function of the user's own fails.
    """
    problems = load_problems(config)
    pool = stack.enter_context(VerifierPool())
    check_problems(config, problems, pool, progress.note)
    for options in estimators.values():
        if isinstance(options, OwnEstimatorOptions) and options != config.advantage:
            try_own_functions(config.model_copy(update={"advantage": options}), problems.task.train, pool)
    policy = load_policy(config, weights)
    config = with_tokens(config, tokens_per_microbatch(policy.model, config))
    check_prompts(config, problems, policy, progress.note)
    sampler = open_samplers(policy, config, problems.own, stack, progress.note)(config.sampling.temperature)
    return Source(config, policy, sampler, problems.task.train, pool, progress)


def answer_of(sketches: Sketches, config: TrainConfig, weights: Path | None, *, num_scale: int, width: int) -> Answer:
    """What was measured, with the settings that it depends on."""
    warmed_up = weights is None and config.warmstart.steps > 0
    return Answer(
        name=config.run.name,
        baseline=BASELINE,
        policy="after the warm start" if warmed_up else str(weights or config.model.path or "untrained"),
        groups=sketches.num_groups,
        scale_groups=num_scale,
        groups_per_step=config.sampling.problems_per_step,
        rollouts=config.sampling.group_size,
        accuracy=float(np.nanmean(sketches.accuracies_n)),
        mixed=sketches.num_mixed / sketches.num_groups,
        aggregation=config.loss.aggregation,
        width=width,
        signals=compare_signals(sketches, BASELINE, config.sampling.problems_per_step),
    )


def warm_start(source: Source, interrupt: Interrupt) -> None:
    """The recipe's supervised steps, as training makes them.

    Raises:
        KeyboardInterrupt: the user stopped it.
    """
    config, policy, progress = source.config, source.policy, source.progress
    if not (total := config.warmstart.steps):
        return
    optimizer = Optimizer(policy, config.warmstart.optimizer, total)
    progress.stage("warm start", total=total)
    for step in range(1, total + 1):
        chosen = problems_of_step(source.problems, config.run.seed, step, config.warmstart.rows_per_step, "warmstart")
        progress.step(step, imitate(policy, optimizer, demonstrations(chosen, policy, config), config, step))
        if interrupt.requested:
            raise KeyboardInterrupt


class Source:
    """Groups of rollouts, a training step's worth at a time, verified and rewarded."""

    def __init__(
        self,
        config: TrainConfig,
        policy: Policy,
        sampler: Sampler,
        problems: Sequence[Problem],
        pool: VerifierPool,
        progress: Progress,
    ) -> None:
        self.config, self.policy, self.problems, self.progress = config, policy, problems, progress
        self._sampler, self._pool = sampler, pool
        self._step = 0

    def step(self) -> list[Sampled]:
        """The groups of the next step."""
        self._step += 1
        config, sampling = self.config, self.config.sampling
        problems_P = problems_of_step(self.problems, config.run.seed, self._step, sampling.problems_per_step, "signal")
        prompts_P = encode_prompts(problems_P, self.policy, config.prompt)
        verification = Verification(self._pool, problems_P, config.verifier)
        rollouts_PG = self._sampler.sample(
            prompts_P,
            sampling.group_size,
            seed=derive_seed(config.run.seed, "signal", self._step),
            on_progress=self.progress.tokens,
            on_rollout=verification.begin,
        )
        verdicts_PG = verification.verdicts(rollouts_PG, drop_stragglers=True)
        likelihoods_PG = [None] * len(problems_P)
        if config.rewarded_by(LikelihoodReward):
            likelihoods_PG = answer_likelihoods(
                self.policy, problems_P, prompts_P, rollouts_PG, verdicts_PG, config.training.budget
            )
        return [
            Sampled(
                score(problem, rollouts_G, verdicts_G, config.rewards, sampling.max_new_tokens, likelihoods_G),
                likelihoods_G,
            )
            for problem, rollouts_G, verdicts_G, likelihoods_G in zip(
                problems_P, rollouts_PG, verdicts_PG, likelihoods_PG, strict=True
            )
        ]


def learn_scale(
    source: Source,
    instrument: Instrument,
    baseline: EstimatorOptions,
    rewards: Sequence[RewardOptions],
    num_groups: int,
    interrupt: Interrupt,
) -> int:
    """Give the instrument the root mean squares of the baseline's steps, from groups that are not measured.

    Returns:
        How many groups had a step.

    Raises:
        LampoError: too few of the groups had one.
        KeyboardInterrupt: the user stopped it.
    """
    wanted = max(FEWEST, num_groups // 8)
    source.progress.stage("learning the scale", total=wanted)
    found = seen = 0
    while found < wanted:
        sampled = source.step()
        weights = weigh(
            sampled,
            {CLEAN: rewards},
            [source.config.sampling.group_size],
            {BASELINE: baseline},
            source.config.sampling.max_new_tokens,
        )
        for each, rows in zip(sampled, next(iter(weights.values())), strict=True):
            if interrupt.requested:
                raise KeyboardInterrupt
            step = baseline_weights(each.group, rows, instrument)
            if step and found < wanted:
                instrument.learn_scale(each.group, step)
                found += 1
                source.progress.step(found, {})
        seen += len(sampled)
        if found < wanted and seen >= max(num_groups, 10 * wanted):
            if found >= FEWEST:
                break
            raise LampoError(
                f"Of {seen} groups only {found} had responses with different rewards, which is too few to learn from: every "
                "estimator's step would be nearly nothing. Take problems that the policy solves sometimes, or a policy that has learned "
                "the answer format (warmstart.steps, model.path)."
            )
    instrument.fix_scale()
    return found


def gather(
    source: Source,
    instrument: Instrument,
    estimators: Mapping[str, EstimatorOptions],
    conditions: Mapping[str, Sequence[RewardOptions]],
    num_groups: int,
    interrupt: Interrupt,
) -> Sketches:
    """Sketch the gradients of so many groups. Fewer if the user asks to stop.

    Raises:
        KeyboardInterrupt: the user stopped it, and there are too few to say anything.
    """
    sampling, sketches = source.config.sampling, Sketches()
    source.progress.stage("signal", total=num_groups)
    while sketches.num_groups < num_groups:
        sampled = source.step()
        weights = weigh(sampled, conditions, group_sizes(sampling.group_size), estimators, sampling.max_new_tokens)
        for index, each in enumerate(sampled[: num_groups - sketches.num_groups]):
            if interrupt.requested:
                if sketches.num_groups < FEWEST:
                    raise KeyboardInterrupt
                return sketches
            rows = {key: groups[index] for key, groups in weights.items()}
            measure_group(sketches, each.group, rows, instrument, sampling.group_size)
            source.progress.step(sketches.num_groups, {"rollouts/right": float(np.nanmean(sketches.accuracies_n))})
    return sketches


def group_sizes(largest: int) -> list[int]:
    """The group size itself, its half and its quarter, as far as these are whole and at least 2.

    >>> group_sizes(8), group_sizes(6), group_sizes(5)
    ([8, 4, 2], [6, 3], [5])
    """
    return [largest // part for part in (1, 2, 4) if largest % part == 0 and largest // part >= 2]


def _conditions(
    rewards: Sequence[RewardOptions], false_positives: Sequence[float], false_negatives: Sequence[float]
) -> dict[str, list[RewardOptions]]:
    """The recipe's rewards with clean verdicts, as they are where the recipe makes errors up itself, and with each share of errors."""

    def with_errors(positives: float, negatives: float) -> list[RewardOptions]:
        changed = {"false_positives": positives, "false_negatives": negatives}
        return [each.model_copy(update=changed) if isinstance(each, VerifierReward) else each for each in rewards]

    found = {CLEAN: with_errors(0.0, 0.0)}
    if not any(isinstance(each, VerifierReward) and each.weight != 0 for each in rewards):
        return found
    if found[CLEAN] != [*rewards]:
        found["the recipe's errors"] = [*rewards]
    found |= {f"{share:.0%} false positives": with_errors(share, 0.0) for share in false_positives}
    return found | {f"{share:.0%} false negatives": with_errors(0.0, share) for share in false_negatives}
