"""The longest row, and why that of a model with longrope is shorter than the model's own."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig

from lampo.config.schema import PromptOptions
from lampo.learner.batch import Row, pad
from lampo.model.context import UNBOUNDED, Context, context_of
from lampo.model.policy import Policy
from lampo.model.prompts import refuse_long_prompts
from lampo.rollout.native import NativeSampler
from lampo.types import LampoError, Problem

from ...conftest import ARCHITECTURES, TINY, sharpen, tiny_options

CHANGE = 24  # of 128 positions
FACTORS = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [8.0] * 4}
LONGROPE = {"rope_parameters": FACTORS, "original_max_position_embeddings": CHANGE}


@pytest.fixture
def policy() -> Policy:
    options = tiny_options("phi3", device="cpu")
    assert options.config is not None
    policy = Policy.load(options.model_copy(update={"config": options.config | LONGROPE}), seed=3)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "qkv_proj" in name:
                parameter.mul_(20)  # fresh weights hardly look at positions
    return sharpen(policy)


def test_the_row_is_as_long_as_the_configuration_says() -> None:
    plain = AutoConfig.for_model(**(TINY | ARCHITECTURES["phi3"]))
    assert context_of(plain) == context_of(plain).beyond() == Context(128, 128)
    bloom = AutoConfig.for_model("bloom", hidden_size=32, n_layer=1, n_head=4)
    assert context_of(bloom) == Context(UNBOUNDED, UNBOUNDED)  # ALiBi has no longest input


def test_longrope_ends_where_its_factors_change() -> None:
    def phi(**changes: Any) -> Any:
        return AutoConfig.for_model(**(TINY | ARCHITECTURES["phi3"] | LONGROPE | changes))

    assert context_of(phi()).length == CHANGE
    assert "Of the model's 128 positions only the first 24 are used here" in context_of(phi()).note
    assert context_of(phi()).beyond() == Context(128, 128)
    assert context_of(phi(max_position_embeddings=CHANGE)) == Context(CHANGE, CHANGE)  # never longer, never changed


def agreement(policy: Policy, prompt_length: int, max_new_tokens: int, beside: int = 0) -> float:
    """Largest difference of the log-probs of sampling and of the update, with a row of another length beside."""
    policy.end_ids = [len(policy.tokenizer) - 1]
    prompt = torch.arange(3, 3 + prompt_length)
    sampler = NativeSampler(policy, temperature=1.0, max_new_tokens=max_new_tokens, rows_at_once=1)
    ((rollout,),) = sampler.sample([prompt], 1, seed=1)
    assert len(rollout.completion_ids) == max_new_tokens
    rows = [Row(rollout.prompt_ids, rollout.completion_ids, rollout.logprobs, 1.0)]
    if beside:
        ids = torch.full((beside // 2,), 5)
        rows.append(Row(ids, ids, torch.zeros(len(ids)), 1.0))
    batch = pad(rows)
    with torch.no_grad():
        logprobs_NT, _ = policy.token_logprobs(batch, temperature=1.0)
    return float((logprobs_NT[0] - batch.old_logprobs_NT[0])[batch.mask_NT[0]].abs().max())


def test_sampling_and_learning_agree_up_to_that_length_and_no_further(policy: Policy) -> None:
    """What the limit is for; when transformers changes this, the limit may go."""
    assert agreement(policy, 10, CHANGE - 10) < 1e-4
    assert agreement(policy, 10, CHANGE - 10, beside=CHANGE) < 1e-4
    assert agreement(policy, 10, CHANGE - 10 + 4) > 1e-2
    assert agreement(policy, 10, CHANGE - 10, beside=CHANGE + 2) > 1e-2  # one long row changes the other


def test_rows_beyond_it_are_refused_and_it_is_said_why(policy: Policy) -> None:
    problem = Problem(id="p", prompt="1" * 10, answer="1")
    refuse_long_prompts([problem], policy, PromptOptions(), CHANGE - 10)
    why = "longrope.*Keep prompt and sampling.max_new_tokens together within 24"
    refuse_long_prompts([problem], policy, PromptOptions(), CHANGE - 9, context=policy.context.beyond())
    with pytest.raises(LampoError, match=f"problem 'p' has 10 tokens, .* exceed its context of 24.*{why}"):
        refuse_long_prompts([problem], policy, PromptOptions(), CHANGE - 9)
    with pytest.raises(LampoError, match=f"max_new_tokens is 24, but the model's context holds only 24 tokens.*{why}"):
        refuse_long_prompts([], policy, PromptOptions(), CHANGE)
