"""Scores by the learner: where the native engine samples, both have the same log-probs."""

from pathlib import Path

import torch

from lampo.learner.sampler_mismatch import with_learner_logprobs
from lampo.model.policy import Policy
from lampo.rollout.native import NativeSampler
from lampo.types import Group, Problem, Reward, Verdict

from ...helpers.small_run import small_config


def test_the_learner_finds_the_logprobs_that_the_native_engine_drew_with(policy: Policy, tmp_path: Path) -> None:
    config = small_config(tmp_path, "sampling.temperature=0.7")
    prompts = [torch.tensor(policy.encode(text)) for text in ("1+1=", "12+30=")]
    sampler = NativeSampler(policy, temperature=0.7, max_new_tokens=9, rows_at_once=8)
    groups = [
        Group(Problem(str(number), "?", "!"), tuple(rollouts_G), (Verdict("right"),) * 3, (Reward({}, 1.0),) * 3)
        for number, rollouts_G in enumerate(sampler.sample(prompts, 3, seed=0))
    ]
    lengths = {len(rollout.completion_ids) for group in groups for rollout in group.rollouts_G}
    assert len(lengths) > 1  # rows are padded, and come back in their order
    for group, learners in zip(groups, with_learner_logprobs(groups, policy, config), strict=True):
        assert (learners.problem, learners.rewards_G) == (group.problem, group.rewards_G)
        for drawn, computed in zip(group.rollouts_G, learners.rollouts_G, strict=True):
            torch.testing.assert_close(computed.logprobs, drawn.logprobs, atol=1e-5, rtol=0)
            assert computed.completion_ids is drawn.completion_ids
            assert not computed.logprobs.requires_grad
