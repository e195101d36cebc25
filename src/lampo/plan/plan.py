"""A recipe, GPUs and an engine -> what a run would take, as ranges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config.schema import TrainConfig
from .cards import CARDS, Engine, Range, Rates, card_named, rates
from .cost import (
    Machine,
    Work,
    evaluations,
    memory_parts,
    peak,
    rollout_seconds,
    share_of,
    slots_of,
    supervised_seconds,
    transfer_seconds,
    update_seconds,
    verifier_seconds,
)
from .lengths import assumed_lengths, resampled
from .shape import shape_of

MEMORY_ERROR = 0.15
"""By how much a peak of memory may be missed, either way: the worst of the checks in docs/plan.md."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would take. Seconds are of one step, if not said otherwise.

    Attributes:
        engine: who trains.
        steps: of the run.
        rollouts: seconds until the last response.
        stragglers: of these, what would not be there if all responses had the mean length.
        verifier: seconds of verdicts and rewards that nothing hides.
        update: seconds of the updates.
        transfer: seconds of weights and batches on their way.
        step: all of it.
        warmstart: seconds of the supervised steps before it.
        evaluations: seconds of each evaluation, in order.
        evaluation_share: of the run's time.
        hours: of the run.
        parts: bytes of one GPU by part, likely.
        memory: bytes at the peak.
        length: mean response in tokens.
        cut: share of the responses that are cut, likely.
    """

    engine: Engine
    steps: int
    rollouts: Range
    stragglers: Range
    verifier: Range
    update: Range
    transfer: Range
    step: Range
    warmstart: Range
    evaluations: list[Range]
    evaluation_share: Range
    hours: Range
    parts: dict[str, float]
    memory: Range
    length: Range
    cut: float

    @property
    def bottleneck(self) -> str:
        """The term that takes most of a likely run."""
        terms = {"rollouts": self.rollouts, "verdicts": self.verifier, "update": self.update, "weights": self.transfer}
        seconds = {name: self.steps * each.likely for name, each in terms.items()}
        seconds["evaluation"] = sum(each.likely for each in self.evaluations)
        seconds["warm start"] = self.warmstart.likely
        return max(seconds, key=lambda name: seconds[name])


@dataclass(frozen=True, slots=True)
class _Case:
    terms: dict[str, float]
    warmstart: float
    evaluations: list[float]
    mean: float
    cut: float


def plan(
    config: TrainConfig,
    engine: Engine,
    gpus: int = 1,
    gpu: str = "h100",
    *,
    length: float | None = None,
    lengths: Sequence[int] | None = None,
    prompt: int | None = None,
) -> Plan:
    """What a run of this recipe would take.

    Args:
        config: the recipe.
        engine: who trains. The native engine has one GPU, however many there are.
        gpus: how many.
        gpu: their kind, see `cards`.
        length: mean response in tokens. Unset: half of the longest, 0.35 to 0.65.
        lengths: lengths of real responses, in ascending order, in place of a log-normal distribution.
        prompt: tokens of a prompt. Unset: 200, of a character model 12.

    Raises:
        LampoError: nothing is known of the GPU, or the model's shape cannot be told.
    """
    card, gpus = card_named(gpu), 1 if engine == "native" else gpus
    mean_prompt, longest_prompt = _prompt(config, prompt)
    work = Work(shape_of(config.model), config, mean_prompt, longest_prompt, gpu.lower() == "cpu", card.memory)
    # where vLLM draws for the native engine, it is as fast as where it draws for the others
    by_vllm = engine == "native" and config.sampling.engine == "vllm"
    machines = [
        Machine(card, gpus, engine, each, vllm if by_vllm else None)
        for each, vllm in zip(rates(engine, gpu), rates("verl", gpu), strict=True)
    ]
    cases = [_case(work, machine, length, lengths) for machine in machines]

    def ranged(values: Sequence[float]) -> Range:
        return Range(min(values), values[1], max(values))

    steps = config.training.steps
    runs = [case.warmstart + steps * case.terms["step"] + sum(case.evaluations) for case in cases]
    parts = memory_parts(work, machines[1])
    top = peak(parts)
    return Plan(
        engine=engine,
        steps=steps,
        **{name: ranged([case.terms[name] for case in cases]) for name in cases[0].terms},
        warmstart=ranged([case.warmstart for case in cases]),
        evaluations=[ranged(each) for each in zip(*(case.evaluations for case in cases), strict=True)],
        evaluation_share=ranged([sum(case.evaluations) / run for case, run in zip(cases, runs, strict=True)]),
        hours=ranged([run / 3600 for run in runs]),
        parts=parts,
        memory=Range((1 - MEMORY_ERROR) * top, top, (1 + MEMORY_ERROR) * top),
        length=ranged([case.mean for case in cases]),
        cut=cases[1].cut,
    )


def _case(work: Work, machine: Machine, length: float | None, lengths: Sequence[int] | None) -> _Case:
    config, sampling = work.config, work.config.sampling
    rows = sampling.problems_per_step * sampling.group_size * (1 + sampling.resample)

    def drawn(count: int) -> list[int]:
        if lengths is not None:
            return resampled(lengths, count)
        longest = sampling.max_new_tokens
        return assumed_lengths(count, machine.rates.length * longest if length is None else length, longest)

    def seconds(responses: Sequence[int]) -> float:
        mine = share_of(responses, machine.gpus)
        return rollout_seconds(work, machine.sampler, mine, slots_of(work, machine.sampler, mine))

    responses = drawn(rows)
    mean = sum(responses) / rows
    terms = {"rollouts": seconds(responses)}
    terms["stragglers"] = max(0.0, terms["rollouts"] - seconds([round(mean)] * rows))
    terms["verifier"] = verifier_seconds(work, rows, machine.gpus, terms["rollouts"])
    terms["update"] = update_seconds(work, machine, share_of(drawn(rows // (1 + sampling.resample)), machine.gpus))
    terms["transfer"] = transfer_seconds(work, machine)
    terms["step"] = sum(terms.values()) - terms["stragglers"]
    measured: dict[int, float] = {}
    for count in evaluations(config):
        if count not in measured:
            measured[count] = seconds(drawn(count)) if count else 0.0
    cut = sum(each >= sampling.max_new_tokens for each in responses) / rows
    warmstart = config.warmstart.steps * supervised_seconds(work, machine, drawn(config.warmstart.rows_per_step))
    return _Case(terms, warmstart, [measured[count] for count in evaluations(config)], mean, cut)


def _prompt(config: TrainConfig, prompt: int | None) -> tuple[int, int]:
    """Tokens of a prompt: on average, and of the longest. Four characters are a token."""
    mean = prompt if prompt is not None else 12 if config.model.characters is not None else 200
    most = getattr(config.task, "max_prompt_characters", None)
    return mean, max(mean, most // 4 if most else 2 * mean if prompt is None else mean)


__all__ = ["CARDS", "Plan", "Rates", "plan"]
