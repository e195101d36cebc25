"""A step in fewer operations gives what the model gives, and is left to the model where it would not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from lampo.config.schema import LoraOptions
from lampo.model import decode_step
from lampo.model.decode_step import DecodeStep
from lampo.model.policy import Policy
from lampo.rollout import decoder, native
from lampo.rollout.native import NativeSampler

from ...conftest import ARCHITECTURES, TINY, sharpen, tiny_options

KINDS = {
    "qwen3": {"model_type": "qwen3", "head_dim": 8},
    "qwen2, with biases": {"model_type": "qwen2"},
    "llama": {"model_type": "llama", "tie_word_embeddings": True},
    "llama, no shared heads": {"model_type": "llama", "num_key_value_heads": 4},
    "llama, all biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"},
    "phi3": {"model_type": "phi3"},
    "phi-4-mini": ARCHITECTURES["phi-4-mini"],
    "llama 3's rotation": {
        "model_type": "llama",
        "rope_scaling": {
            "rope_type": "llama3",
            "rope_theta": 1e4,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
}


def random_policy(changes: dict[str, object], **options: Any) -> Policy:
    """With norms and biases that are no ones and zeros."""
    policy = Policy.load(tiny_options(device="cpu", **options).model_copy(update={"config": TINY | changes}), seed=3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy


@torch.no_grad()
def two_steps(policy: Policy, mask_NL: Tensor, step: Callable[..., Tensor]) -> list[Tensor]:
    ids = torch.randint(3, 40, mask_NL.shape, generator=torch.Generator().manual_seed(0))
    positions = (mask_NL.cumsum(-1) - 1).clamp(min=0)
    cache, start = DynamicCache(config=policy.core.config), mask_NL.shape[1] - 2
    prompt = {"attention_mask": mask_NL[:, :start], "position_ids": positions[:, :start]}
    policy.hidden_states(ids[:, :start], cache=cache, **prompt)
    mask = None if mask_NL.all() else mask_NL.bool()[:, None, None]
    return [
        step(ids[:, place], positions[:, place, None], mask if mask is None else mask[..., : place + 1], cache)
        for place in (start, start + 1)
    ]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_model_s_own_step(kind: str, joined: bool, padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_step, "LARGEST_JOINED", 2**20 if joined else 0)
    policy = random_policy(KINDS[kind])
    mask_NL = torch.ones(5, 9, dtype=torch.int64)
    if padded:
        mask_NL[1, :3] = mask_NL[4, :6] = 0

    def own(ids_N: Tensor, positions_N1: Tensor, mask: Tensor | None, cache: DynamicCache) -> Tensor:
        return policy.hidden_states(ids_N[:, None], attention_mask=mask, position_ids=positions_N1, cache=cache)[:, 0]

    step = policy.decode_step(9)
    assert step is not None
    for one, other in zip(two_steps(policy, mask_NL, step), two_steps(policy, mask_NL, own), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6)


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("kind", ["qwen3", "phi-4-mini"])
def test_it_takes_generate_s_tokens_in_float64(kind: str, recorded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The likeliest ones, with `generate`'s log-probs: with our steps, and with the model's own as CUDA records them."""
    policy = random_policy(KINDS[kind])
    policy.model.double()
    policy.__dict__["_steps_quickly"] = not recorded
    monkeypatch.setattr(decoder, "recordable", lambda *_: recorded)
    monkeypatch.setattr(native, "draw", lambda logprobs_NV, uniforms_N: logprobs_NV.argmax(-1))
    policy.end_ids = [len(policy.tokenizer) - 1]
    policy.hidden_states(
        torch.zeros(1, 200, dtype=torch.int64)
    )  # past the change of longrope's factors, which is undone
    prompts = [torch.tensor(policy.encode(text)) for text in ("12+3=", "what is 7 plus 8?", "9")]
    groups = NativeSampler(policy, temperature=1.0, max_new_tokens=30, rows_at_once=2).sample(prompts, 1, seed=0)
    for (rollout,) in groups:
        ids, count = rollout.prompt_ids[None], len(rollout.completion_ids)
        settings = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
        seen = policy.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=30, eos_token_id=policy.end_ids, **settings
        )
        assert seen.sequences[0, -count:].tolist() == rollout.completion_ids.tolist()
        logprobs_TV = torch.cat(seen.logits).double().log_softmax(-1)
        expected = logprobs_TV.gather(-1, rollout.completion_ids[:, None]).squeeze(-1).float()
        torch.testing.assert_close(rollout.logprobs, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("texts", [("12+3=", "what is 7 plus 8?", "9"), ("12+3=", "34+5=")])
@pytest.mark.parametrize("kind", ["qwen3", "llama", "phi-4-mini"])
def test_it_draws_the_same_rollouts(kind: str, texts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    policy = sharpen(random_policy(KINDS[kind]))
    prompts = [torch.tensor(policy.encode(text)) for text in texts]
    sampler = NativeSampler(policy, temperature=0.9, max_new_tokens=20, rows_at_once=64)
    quick = [rollout for group in sampler.sample(prompts, 4, seed=3) for rollout in group]
    monkeypatch.setattr(Policy, "decode_step", lambda self, longest: None)
    own = [rollout for group in sampler.sample(prompts, 4, seed=3) for rollout in group]
    for one, other in zip(quick, own, strict=True):
        assert one.completion_ids.tolist() == other.completion_ids.tolist()
        torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=2e-6)


def test_it_follows_weights_that_move() -> None:
    policy = random_policy(KINDS["qwen3"])
    mask_NL, before = torch.ones(2, 5, dtype=torch.int64), policy.decode_step(9)
    with torch.no_grad():
        for parameter in policy.trainable_parameters().values():
            parameter.mul_(1.5)
    after, fresh = policy.decode_step(9), DecodeStep(policy.core.model, longest=9)
    assert before is not None
    assert after is not None
    states = [two_steps(policy, mask_NL, step)[1] for step in (before, after, fresh)]
    assert torch.equal(states[1], states[2])
    assert not torch.allclose(states[0], states[1])


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"model_type": "phi", "partial_rotary_factor": 0.5}, {}),
        ({"model_type": "qwen3", "head_dim": 8, "attn_implementation": "eager"}, {}),
        ({"model_type": "qwen3", "head_dim": 8}, {"dtype": "mixed"}),
        ({"model_type": "qwen3", "head_dim": 8}, {"lora": LoraOptions(rank=2)}),
    ],
)
def test_other_models_step_on_their_own(changes: dict[str, object], options: dict[str, Any]) -> None:
    if "lora" in options:
        pytest.importorskip("peft")
    assert (
        Policy.load(
            tiny_options(device="cpu", **options).model_copy(update={"config": TINY | changes}), seed=3
        ).decode_step(9)
        is None
    )


def test_so_does_a_model_whose_rows_may_pass_the_change_of_its_rotary_factors() -> None:
    policy = random_policy(KINDS["phi-4-mini"])
    assert policy.decode_step(128) is not None
    assert policy.decode_step(129) is None


def test_so_does_a_model_whose_layers_do_something_else() -> None:
    policy = random_policy(KINDS["llama"])
    policy.core.model.layers[0].register_forward_hook(lambda _module, _inputs, output: output * 1.5)
    assert policy.decode_step(9) is None
