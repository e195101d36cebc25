"""A sampler that is another program than the learner: how far their log-probs are apart, a bound, and scores by the learner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..algo.importance import sampler_mismatch
from ..config.schema import TrainConfig
from ..model.policy import Policy
from ..types import Group, SamplerMismatch
from .batch import Batch, Row, row_logprobs


def mismatch_record(batch: Batch, logprobs: Mapping[int, Tensor], config: TrainConfig) -> dict[str, float]:
    """What is logged of the difference, over the tokens of an update. Nothing where the policy samples itself and nothing is corrected.

    Args:
        batch: its rows have the sampler's log-probs.
        logprobs: by the number of each row, the learner's (T,) log-probs before the step's first update.
        config: the recipe.

    Raises:
        SamplerMismatch: they differ by more than `sampling.vllm.max_mismatch` on average.
    """
    by_vllm = config.sampling.engine == "vllm"
    if not by_vllm and config.loss.sampler_correction == "off":
        return {}
    statistics = sampler_mismatch(torch.cat([logprobs[row.number] - row.old_logprobs for row in batch.rows]))
    mean, bound = statistics["mismatch_mean"], config.sampling.vllm.max_mismatch
    if by_vllm and not mean <= bound:
        raise SamplerMismatch(
            f"The log-probs of vLLM and of the learner differ by {mean:.3g} nats a token on average, and sampling.vllm.max_mismatch is "
            f"{bound:g}. They compute different models, or round differently. Try model.dtype=float32, or sampling.engine=native. To go on "
            "all the same, raise the bound and set loss.sampler_correction=token."
        )
    return {f"sampler/{name}": value for name, value in statistics.items()}


def with_learner_logprobs(groups_P: Sequence[Group], policy: Policy, config: TrainConfig) -> list[Group]:
    """The same groups, with the learner's log-probs in the place of the sampler's. It takes one forward pass of all rollouts.

    They are for the scores of an estimator (`sampling.vllm.scores_from`). The update keeps the sampler's, which its ratios are of.
    """
    rollouts = [rollout for group in groups_P for rollout in group.rollouts_G]
    rows = [Row(rollout.prompt_ids, rollout.completion_ids, rollout.logprobs, 0.0) for rollout in rollouts]
    budget, temperature = config.training.budget, config.sampling.temperature
    logprobs = iter(row_logprobs(policy, rows, budget, temperature=temperature))
    return [
        replace(group, rollouts_G=tuple(replace(each, logprobs=next(logprobs)) for each in group.rollouts_G))
        for group in groups_P
    ]
