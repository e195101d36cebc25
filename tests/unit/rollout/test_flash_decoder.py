"""Rollouts by rows that begin in places of their own are those of `Decoder`: with the kernels' torch versions, so that no GPU is needed."""

import sys

import pytest
import torch
from torch import Tensor

from lampo.config.schema import LoraOptions
from lampo.learner.batch import Row, pad
from lampo.model.flash_step import FlashStep
from lampo.model.policy import Policy
from lampo.rollout import flash_decoder, native
from lampo.rollout.native import NativeSampler
from lampo.types import Rollout

from ...conftest import sharpen
from ...helpers import decode_kernels
from ..model.test_decode_step import KINDS, random_policy

TAKEN = [kind for kind in KINDS if kind != "llama, all biases"]


@pytest.fixture(autouse=True)
def kernels_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lampo.model.decode_kernels", decode_kernels)
    monkeypatch.setattr("lampo.model.decode_kernels", decode_kernels, raising=False)


def rollouts(
    policy: Policy, prompts: list[Tensor], *, flash: bool, max_new_tokens: int = 20, rows_at_once: int = 5
) -> list[Rollout]:
    policy.__dict__["_steps_by_flash"] = flash
    sampler = NativeSampler(policy, temperature=0.9, max_new_tokens=max_new_tokens, rows_at_once=rows_at_once)
    groups = sampler.sample(prompts, 4, seed=1)
    return [rollout for group in groups for rollout in group]


def assert_same(found: list[Rollout], expected: list[Rollout]) -> None:
    """Nearly all tokens, since in bfloat16 two may be as likely as each other, and log-probs as near as bfloat16 is."""
    same = [pair for pair in zip(found, expected, strict=True) if torch.equal(*(each.completion_ids for each in pair))]
    assert len(same) >= 0.8 * len(found)
    for one, other in same:
        torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=0.02)
        assert (one.text, one.finished) == (other.text, other.finished)
        assert torch.equal(one.prompt_ids, other.prompt_ids)


def some_prompts(*lengths: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, 40, (length,), generator=generator) for length in lengths]


@pytest.mark.parametrize("dtype", ["mixed", "bfloat16"])
@pytest.mark.parametrize("kind", TAKEN)
def test_it_draws_the_rollouts_of_the_model_s_own_steps(kind: str, dtype: str) -> None:
    """Five places for twelve rows, of prompts of several lengths."""
    policy = sharpen(random_policy(KINDS[kind], dtype=dtype))
    assert FlashStep.takes(policy.backbone)
    prompts = some_prompts(5, 9, 3)
    assert_same(rollouts(policy, prompts, flash=True), rollouts(policy, prompts, flash=False))


@pytest.mark.parametrize("kind", ["qwen3", "phi3"])
def test_adapters_are_added_to_the_weights(kind: str) -> None:
    policy = sharpen(random_policy(KINDS[kind], dtype="mixed", lora=LoraOptions(rank=4)))
    with torch.no_grad():
        for name, weight in policy.trainable_parameters().items():
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))) / 30)
    assert FlashStep.takes(policy.backbone)
    prompts = some_prompts(5, 9, 3)
    found = rollouts(policy, prompts, flash=True)
    assert_same(found, rollouts(policy, prompts, flash=False))
    with policy.model.disable_adapter():
        without = rollouts(policy, prompts, flash=False)
    assert [each.text for each in found] != [each.text for each in without]


def test_a_row_that_finds_no_memory_lets_the_shortest_begin_again(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = random_policy(KINDS["qwen3"], dtype="mixed")
    with torch.no_grad():  # long rows
        policy.head.weight[policy.end_ids] *= 0.1
    prompts = some_prompts(5, 9, 3, 30)
    expected = rollouts(policy, prompts, flash=False, max_new_tokens=90, rows_at_once=8)
    begun_again: list[int] = []
    grow = flash_decoder.FlashDecoder.grow

    def watched(self: flash_decoder.FlashDecoder) -> list[int]:
        ended = grow(self)
        begun_again.extend(ended)
        return ended

    monkeypatch.setattr(flash_decoder.FlashDecoder, "grow", watched)
    monkeypatch.setattr(native, "rows_that_fit", lambda *_: 500)
    found = rollouts(policy, prompts, flash=True, max_new_tokens=90, rows_at_once=8)
    assert begun_again
    assert_same(found, expected)


def test_every_row_reads_its_own_keys_alone() -> None:
    """What a row draws does not depend on which rows are beside it, nor on whose place it takes."""
    policy = sharpen(random_policy(KINDS["qwen3"], dtype="bfloat16"))
    prompts = some_prompts(5, 9, 3)
    together = rollouts(policy, prompts, flash=True, rows_at_once=12)
    assert_same(rollouts(policy, prompts, flash=True, rows_at_once=2), together)


def test_sampling_and_learning_agree_as_bfloat16_does() -> None:
    """The log-probs of the step that drew a token, and of the update's pass: half a percent apart on average."""
    policy = sharpen(random_policy(KINDS["qwen3"], dtype="mixed"))
    drawn = rollouts(policy, some_prompts(5, 9, 3), flash=True)
    batch = pad([Row(each.prompt_ids, each.completion_ids, each.logprobs, 0.0) for each in drawn])
    with torch.no_grad():
        logprobs_NT, _ = policy.token_logprobs(batch, temperature=0.9)
    gaps = (logprobs_NT - batch.old_logprobs_NT)[batch.mask_NT].abs()
    assert gaps.mean() < 0.005
    assert gaps.max() < 0.05


def test_models_of_other_kinds_keep_their_own_steps() -> None:
    assert not FlashStep.takes(random_policy(KINDS["llama, all biases"]).backbone)  # its activation is not silu
    policy = random_policy(KINDS["qwen3"], dtype="mixed")
    assert not policy.steps_by_flash(20)  # not on a CPU
    policy.__dict__["_steps_by_flash"] = True
    assert policy.steps_by_flash(policy.context.length)
    assert not policy.steps_by_flash(policy.context.length + 1)
    windowed = random_policy({"model_type": "phi3", "sliding_window": 16}, dtype="mixed")
    windowed.__dict__["_steps_by_flash"] = True
    assert windowed.steps_by_flash(16)
    assert not windowed.steps_by_flash(17)


def test_a_card_on_which_the_kernels_fail_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, and rollouts are drawn by the slower steps. Here a CPU that says it is a card."""
    policy, told = random_policy(KINDS["qwen3"], dtype="bfloat16"), list[str]()
    monkeypatch.setitem(sys.modules, "lampo.model.decode_kernels", None)

    class Card:
        type = "cuda"

    def tried(own: Policy) -> bool:
        device, own.device = own.device, Card()  # pyright: ignore[reportAttributeAccessIssue]
        monkeypatch.setattr(torch, "tensor", lambda *values, device: tensor(*values))
        try:
            return Policy.__dict__["_steps_by_flash"].func(own)
        finally:
            own.device = device
            monkeypatch.setattr(torch, "tensor", tensor)

    tensor = torch.tensor
    policy.__dict__["_steps_by_flash"] = tried(policy)
    sampler = NativeSampler(policy, temperature=1.0, max_new_tokens=4, rows_at_once=64, tell=told.append)
    for _ in range(2):
        sampler.sample(some_prompts(4), 2, seed=0)
    assert len(told) == 1
    assert told[0].startswith("Sampling takes slower steps, since the quick ones do not work here: ModuleNotFoundError")


def test_no_more_rows_than_memory_holds_at_a_quarter_of_their_length(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, told = random_policy(KINDS["qwen3"], dtype="mixed"), list[str]()
    policy.__dict__["_steps_by_flash"] = True
    monkeypatch.setattr(native, "rows_that_fit", lambda *_: 4 * 100)
    seen: list[int] = []
    step = flash_decoder.FlashDecoder.step
    monkeypatch.setattr(
        flash_decoder.FlashDecoder, "step", lambda self, tokens: (seen.append(len(tokens)), step(self, tokens))[1]
    )
    sampler = NativeSampler(policy, temperature=1.0, max_new_tokens=96, rows_at_once=64, tell=told.append)
    sampler.sample(some_prompts(4), 24, seed=0)
    assert told == ["15 rows are sampled at once: memory holds no more of 25 tokens"]
    assert max(seen) == 15
