from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from lampo.config.schema import LoraOptions, ModelOptions
from lampo.learner.batch import Row, pad
from lampo.model.policy import ALIGNMENT, Policy, _avoid_cudnn_attention, choose_device, load_policy, load_weights
from lampo.model.pretrained import character_tokenizer, from_scratch
from lampo.types import LampoError, MicroBatch

from ...conftest import ARCHITECTURES, CHARACTERS, TINY, tiny_options
from ...helpers.small_run import small_config

LENGTHS = [(3, 7), (8, 2), (1, 12), (5, 5)]  # tokens of prompt and completion, row by row


def make_batch(seed: int = 0) -> MicroBatch:
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for prompt, completion in LENGTHS:
        ids = torch.randint(3, 3 + len(CHARACTERS), (prompt + completion,), generator=generator)
        rows.append(Row(ids[:prompt], ids[prompt:], torch.zeros(completion), 1.0))
    return pad(rows)


def make_groups() -> MicroBatch:
    """Three prompts, of which one comes once, with their rows mixed."""
    generator = torch.Generator().manual_seed(5)
    prompts = [torch.randint(3, 3 + len(CHARACTERS), (length,), generator=generator) for length in (9, 4, 12)]
    rows = []
    for prompt, completion in [(0, 3), (1, 1), (0, 5), (2, 2), (1, 4), (0, 1), (1, 5)]:
        ids = torch.randint(3, 3 + len(CHARACTERS), (completion,), generator=generator)
        rows.append(Row(prompts[prompt].clone(), ids, torch.zeros(completion), 1.0, prompt))
    return pad(rows)


def double(architecture: str) -> Policy:
    policy = Policy.load(tiny_options(architecture, device="cpu"), seed=3)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(3.0)
    policy.model.double()
    return policy


def gradients(policy: Policy, value: Tensor) -> dict[str, Tensor]:
    parameters = policy.trainable_parameters()
    return dict(zip(parameters, torch.autograd.grad(value, list(parameters.values())), strict=True))


def plain_logprobs(policy: Policy, batch: MicroBatch, temperature: float) -> Tensor:
    """(N, T, V) log-probabilities of the model called as it is, picked one position at a time."""
    logits = policy.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits / temperature
    logprobs = logits.log_softmax(-1)
    N, T = batch.mask_NT.shape
    rows = []
    for n in range(N):
        start = int(batch.prompt_lengths[n]) - 1
        row = [logprobs[n, min(start + t, logprobs.shape[1] - 1)] for t in range(T)]
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("make", [make_batch, make_groups])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_token_logprobs_are_those_of_a_plain_forward(
    architecture: str, temperature: float, make: Callable[[], MicroBatch]
) -> None:
    policy, batch = double(architecture), make()
    # norms round to float32 in a double model too, so another order of sums shows
    near = 1e-9 if make is make_batch else 1e-4
    generator = torch.Generator().manual_seed(1)
    weights_NT = torch.randn(batch.mask_NT.shape, generator=generator, dtype=torch.float64) * batch.mask_NT
    logprobs_NT, entropy_NT = policy.token_logprobs(batch, temperature=temperature)
    expected_NTV = plain_logprobs(policy, batch, temperature)
    expected_NT = expected_NTV.gather(-1, batch.target_ids.unsqueeze(-1)).squeeze(-1) * batch.mask_NT
    expected_entropy_NT = -(expected_NTV.exp() * expected_NTV).sum(-1) * batch.mask_NT

    assert logprobs_NT.dtype == torch.float64
    torch.testing.assert_close(logprobs_NT, expected_NT, rtol=near, atol=near)
    torch.testing.assert_close(entropy_NT, expected_entropy_NT, rtol=near, atol=near)
    assert not entropy_NT.requires_grad
    assert logprobs_NT[~batch.mask_NT].abs().sum() == 0
    assert torch.equal(policy.frozen_logprobs(batch, temperature=temperature), logprobs_NT.detach())

    got = gradients(policy, (logprobs_NT * weights_NT).sum())
    expected = gradients(policy, (expected_NT * weights_NT).sum())
    for name, gradient in expected.items():
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(got[name], gradient, rtol=near, atol=near)


def test_a_prompt_of_many_rows_is_computed_once(any_policy: Policy) -> None:
    batch, seen = make_groups(), list[tuple[int, ...]]()
    embedding = any_policy.core.get_input_embeddings()
    watch = embedding.register_forward_hook(lambda _module, inputs, _output: seen.append(tuple(inputs[0].shape)))
    any_policy.frozen_logprobs(batch, temperature=1.0)
    watch.remove()
    assert any_policy.layout == "packed"
    # the prompt that comes once with its completion, then prompts, then completions; the last token of each is only predicted
    assert seen[-1] == (1, 12 + 1 + 9 + 4 + (2 + 4 + 0) + (0 + 3 + 4))


def test_padded_prompts_are_computed_once_where_rows_are_not_packed(any_policy: Policy) -> None:
    batch, seen = make_groups(), list[tuple[int, ...]]()
    packed_NT = any_policy.frozen_logprobs(batch, temperature=1.0)
    any_policy.layout = "shared"
    embedding = any_policy.core.get_input_embeddings()
    watch = embedding.register_forward_hook(lambda _module, inputs, _output: seen.append(tuple(inputs[0].shape)))
    shared_NT = any_policy.frozen_logprobs(batch, temperature=1.0)
    watch.remove()
    assert seen == [(3, 12), (7, 4)]  # not (7, 14)
    torch.testing.assert_close(packed_NT, shared_NT, rtol=1e-5, atol=1e-5)


def test_rows_are_padded_where_a_model_attends_in_another_way() -> None:
    sliding = {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 0}
    config = {**TINY, "model_type": "qwen3", **sliding}
    batch = make_groups()
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"config": config}, "packed"),
        ({"config": config, "attention": "eager"}, "rows"),
        ({"config": TINY | ARCHITECTURES["phi-4-mini"], "attention": "eager"}, "shared"),
        ({"config": config | {"use_sliding_window": False}, "attention": "eager"}, "shared"),
        (
            {"config": config | {"use_sliding_window": False}, "attention": "eager", "gradient_checkpointing": True},
            "rows",
        ),
    )
    for options, layout in cases:
        policy = Policy.load(ModelOptions(characters=CHARACTERS, device="cpu", **options), seed=3)
        assert policy.layout == layout
        expected_NTV = plain_logprobs(policy, batch, 1.0)
        expected_NT = expected_NTV.gather(-1, batch.target_ids.unsqueeze(-1)).squeeze(-1) * batch.mask_NT
        torch.testing.assert_close(policy.frozen_logprobs(batch, temperature=1.0), expected_NT, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [make_batch, make_groups])
def test_garbage_in_the_padding_changes_nothing(any_policy: Policy, make: Callable[[], MicroBatch]) -> None:
    batch = make()
    poisoned = make()
    garbage = torch.randint(0, 3 + len(CHARACTERS), batch.input_ids.shape, generator=torch.Generator().manual_seed(9))
    poisoned.input_ids[~batch.attention_mask] = garbage[~batch.attention_mask]
    poisoned.target_ids[~batch.mask_NT] = 10**9  # an index error, were it used
    poisoned.old_logprobs_NT[~batch.mask_NT] = float("nan")
    logprobs_NT, entropy_NT = any_policy.token_logprobs(batch, temperature=0.9)
    other_NT, other_entropy_NT = any_policy.token_logprobs(poisoned, temperature=0.9)
    assert torch.equal(logprobs_NT, other_NT)
    assert torch.equal(entropy_NT, other_entropy_NT)
    ours, theirs = gradients(any_policy, logprobs_NT.sum()), gradients(any_policy, other_NT.sum())
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-6, atol=1e-7)


def test_a_row_alone_has_the_logprobs_it_has_in_a_batch(any_policy: Policy) -> None:
    batch = make_batch()
    together_NT = any_policy.frozen_logprobs(batch, temperature=1.0)
    for n, (prompt, completion) in enumerate(LENGTHS):
        ids = batch.input_ids[n, : prompt + completion]
        alone = pad([Row(ids[:prompt], ids[prompt:], torch.zeros(completion), 1.0)])
        got_T = any_policy.frozen_logprobs(alone, temperature=1.0)[0]
        torch.testing.assert_close(together_NT[n, :completion], got_T, rtol=0, atol=1e-5)


def test_mixed_precision_has_float32_weights_and_gradients() -> None:
    mixed = Policy.load(tiny_options(dtype="mixed", device="cpu"), seed=3)
    exact = Policy.load(tiny_options(dtype="float32", device="cpu"), seed=3)
    batch = make_batch()
    (logprobs_NT, _), (exact_NT, _) = (policy.token_logprobs(batch, temperature=1.0) for policy in (mixed, exact))
    assert logprobs_NT.dtype == torch.float32
    assert not torch.equal(logprobs_NT, exact_NT)  # bfloat16 arithmetic took place ...
    torch.testing.assert_close(logprobs_NT, exact_NT, rtol=0, atol=0.05)  # ... and keeps 8 bits
    got, expected = gradients(mixed, logprobs_NT.sum()), gradients(exact, exact_NT.sum())
    for name, gradient in expected.items():
        assert mixed.trainable_parameters()[name].dtype == got[name].dtype == torch.float32
        torch.testing.assert_close(got[name], gradient, rtol=0, atol=0.05 * float(gradient.abs().max()))


def test_bfloat16_keeps_the_weights_in_bfloat16() -> None:
    policy = Policy.load(tiny_options(dtype="bfloat16", device="cpu"), seed=3)
    logprobs_NT, entropy_NT = policy.token_logprobs(make_batch(), temperature=1.0)
    assert {parameter.dtype for parameter in policy.model.parameters()} == {torch.bfloat16}
    assert logprobs_NT.dtype == entropy_NT.dtype == torch.float32


@pytest.mark.parametrize("make", [make_batch, make_groups])
def test_gradient_checkpointing_changes_no_gradient(make: Callable[[], MicroBatch]) -> None:
    batch, grads = make(), []
    for checkpointing in (False, True):
        policy = Policy.load(tiny_options(gradient_checkpointing=checkpointing, device="cpu"), seed=3)
        assert policy.core.is_gradient_checkpointing == checkpointing
        assert policy.layout == "packed"
        grads.append(gradients(policy, policy.token_logprobs(batch, temperature=1.0)[0].sum()))
    for name, gradient in grads[0].items():
        torch.testing.assert_close(grads[1][name], gradient, rtol=1e-6, atol=1e-7)


DROPOUTS = {
    "qwen3": {"model_type": "qwen3", "head_dim": 8, "attention_dropout": 0.5},
    "phi3": {"model_type": "phi3", "attention_dropout": 0.5, "resid_pdrop": 0.5, "embd_pdrop": 0.5},
    "opt": {"model_type": "opt", "ffn_dim": 48, "dropout": 0.5, "attention_dropout": 0.5, "layerdrop": 0.5},
}


@pytest.mark.parametrize("architecture", list(DROPOUTS))
def test_dropout_is_off_in_training(architecture: str) -> None:
    policy = Policy.load(ModelOptions(config=TINY | DROPOUTS[architecture], characters=CHARACTERS), seed=3)
    batch = make_batch()
    with_gradient = [policy.token_logprobs(batch, temperature=1.0)[0] for _ in range(2)]
    assert with_gradient[0].requires_grad
    assert torch.equal(with_gradient[0], with_gradient[1])
    assert torch.equal(with_gradient[0].detach(), policy.frozen_logprobs(batch, temperature=1.0))
    assert not policy.model.training


# Models whose logits are not the head's output


CHANGED_LOGITS = {
    "a soft cap": {"model_type": "gemma2", "head_dim": 8, "final_logit_softcapping": 30.0},
    "a divisor": {"model_type": "granite", "logits_scaling": 8.0},
    "a factor": {"model_type": "cohere", "logit_scale": 0.0625},
}


@pytest.mark.parametrize("change", list(CHANGED_LOGITS))
def test_logits_that_change_after_the_head_are_refused(change: str) -> None:
    options = ModelOptions(config=TINY | CHANGED_LOGITS[change], characters=CHARACTERS, device="cpu")
    with pytest.raises(LampoError, match="changes its logits after the language-model head"):
        Policy.load(options)


def test_logits_that_could_change_but_do_not_are_accepted() -> None:
    for config in (
        {"model_type": "gemma2", "head_dim": 8, "final_logit_softcapping": None},
        {"model_type": "granite", "logits_scaling": 1.0},
    ):
        Policy.load(ModelOptions(config=TINY | config, characters=CHARACTERS, device="cpu"))


def test_layers_with_a_state_are_refused_before_anything_is_trained() -> None:
    config = TINY | {"model_type": "qwen3_5_text", "head_dim": 8, "num_hidden_layers": 4}
    with pytest.raises(LampoError, match=r"has layers with a state \(LinearAttentionLayer\).*not supported"):
        Policy.load(ModelOptions(config=config, characters=CHARACTERS, device="cpu"))


def test_adapters_on_the_head_are_refused() -> None:
    lora = LoraOptions(rank=2, target_modules=["q_proj", "lm_head"])
    with pytest.raises(LampoError, match="not a plain linear layer.*model.lora.target_modules must not name it"):
        Policy.load(tiny_options("qwen3", lora=lora, device="cpu"))


def test_adapters_start_as_the_model_itself_and_are_all_that_is_trained() -> None:
    adapted = Policy.load(tiny_options("qwen3", lora=LoraOptions(rank=2), device="cpu"), seed=3)
    plain = Policy.load(tiny_options("qwen3", device="cpu"), seed=3)
    batch = make_batch()
    assert torch.equal(adapted.frozen_logprobs(batch, temperature=1.0), plain.frozen_logprobs(batch, temperature=1.0))
    trained = adapted.trainable_parameters()
    assert all("lora_" in name for name in trained)
    assert len(trained) == 2 * 7 * 2  # A and B of seven matrices in each of two layers, and none of the head
    assert type(adapted.core) is type(plain.core)


# Devices, end tokens, folders


@pytest.mark.parametrize("name", ["cuda:99", "banana", "cuda:x", ""])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(LampoError, match=f"model.device is '{name}'"):
        choose_device(name)


def test_the_automatic_device_is_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(("device", "with_cudnn"), [("cuda", False), ("cpu", True)])
def test_no_attention_by_cudnn_on_cuda(device: str, with_cudnn: bool) -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        _avoid_cudnn_attention(torch.device(device))
        assert torch.backends.cuda.cudnn_sdp_enabled() is with_cudnn
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_A_GPU)])
def test_the_gradient_is_finite_where_a_prompt_is_padded_to_64_tokens(device: str) -> None:
    config = TINY | ARCHITECTURES["qwen3-tied"] | {"head_dim": 64}
    policy = Policy.load(ModelOptions(config=config, characters=CHARACTERS, dtype="mixed", device=device), seed=3)
    rows = []
    for group, length in enumerate((64, 40)):
        prompt = torch.arange(length) % len(CHARACTERS) + 3
        rows += [Row(prompt, prompt[:8], torch.zeros(8), 1.0, group, 4 * group + each) for each in range(4)]
    batch = pad(rows).to(policy.device)
    policy.layout = "shared"  # packed rows have no padding
    logprobs, _ = policy.token_logprobs(batch, temperature=1.0)
    assert all(gradient.isfinite().all() for gradient in gradients(policy, logprobs.sum()).values())


def fresh_model() -> PreTrainedModel:
    return from_scratch(tiny_options(), torch.float32, 0)[0]


@pytest.mark.parametrize(("ends", "expected"), [([9, 4, 1], [1, 4, 9]), (7, [1, 7]), (None, [1]), ([], [1])])
def test_end_ids_are_those_of_the_generation_config_and_the_tokenizer(ends: object, expected: list[int]) -> None:
    model = fresh_model()
    model.generation_config = GenerationConfig(eos_token_id=ends)
    policy = Policy(model, character_tokenizer(CHARACTERS), device=torch.device("cpu"))
    assert policy.end_ids == expected


def test_a_model_without_any_end_token_is_refused() -> None:
    model, tokenizer = fresh_model(), character_tokenizer(CHARACTERS)
    tokenizer.eos_token = None
    model.generation_config = GenerationConfig()
    with pytest.raises(LampoError, match="no end-of-sequence token"):
        Policy(model, tokenizer, device=torch.device("cpu"))


def test_a_missing_pad_token_becomes_an_end_token() -> None:
    model, tokenizer = fresh_model(), character_tokenizer(CHARACTERS)
    tokenizer.pad_token = None
    policy = Policy(model, tokenizer, device=torch.device("cpu"))
    assert policy.tokenizer.pad_token_id == policy.end_ids[0] == 1


def test_saved_folders_are_plain_transformers_folders(any_policy: Policy, tmp_path: Path) -> None:
    any_policy.save(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    batch = make_batch()
    with torch.no_grad():
        expected = any_policy.core(input_ids=batch.input_ids).logits
        assert torch.equal(model(input_ids=batch.input_ids).logits, expected)
    again = Policy.load(ModelOptions(path="nothing is read here", device="cpu"), weights=tmp_path)
    assert torch.equal(
        again.frozen_logprobs(batch, temperature=0.9), any_policy.frozen_logprobs(batch, temperature=0.9)
    )


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_other_weights_are_another_policy_to_the_bit(lora: dict | None, tmp_path: Path) -> None:
    """As a second model has it, and the policy itself is as it was: its weights, and a gradient that began before."""
    if lora is not None:
        pytest.importorskip("peft")
    model = {"config": TINY | ARCHITECTURES["qwen3-tied"], "characters": CHARACTERS, "device": "cpu", "lora": lora}
    config = small_config(tmp_path, model=model)
    policy, batch = load_policy(config, None), make_batch()

    def move() -> None:
        with torch.no_grad():
            for parameter in policy.trainable_parameters().values():
                parameter.add_(
                    0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
                )

    move()  # as a warm start does
    policy.save(tmp_path / "start")
    start = policy.copy_weights()
    second = load_policy(config, tmp_path / "start").frozen_logprobs(batch, temperature=0.9)
    move()
    own = policy.frozen_logprobs(batch, temperature=0.9)
    assert not torch.equal(own, second)
    gradient = gradients(policy, policy.token_logprobs(batch, temperature=0.9)[0].sum())
    for weights in (start, load_weights(config, policy, tmp_path / "start")):
        assert weights.keys() == policy.trainable_parameters().keys()
        assert {weight.data_ptr() % ALIGNMENT for weight in weights.values()} == {0}
        logprobs_NT, _ = policy.token_logprobs(batch, temperature=0.9)
        with policy.holding(weights):
            assert torch.equal(policy.frozen_logprobs(batch, temperature=0.9), second)
        again = gradients(policy, logprobs_NT.sum())
        assert all(torch.equal(again[name], each) for name, each in gradient.items())
        assert torch.equal(policy.frozen_logprobs(batch, temperature=0.9), own)


def test_weights_come_back_after_an_error(policy: Policy) -> None:
    before = policy.copy_weights()
    zeros = {name: torch.zeros_like(weight) for name, weight in before.items()}
    with pytest.raises(IndexError), policy.holding(zeros):
        policy.hidden_states(torch.tensor([[-1]]))
    after = policy.copy_weights()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_loaded_weights_lie_in_memory_as_new_ones_do(lora: dict | None, tmp_path: Path) -> None:
    """In a mapped file they begin anywhere, and products then round otherwise: a resumed run left the uninterrupted one's path."""
    options = tiny_options() if lora is None else tiny_options(lora=lora)
    if lora is not None:
        pytest.importorskip("peft")
    new = Policy.load(options, seed=3)
    new.save(tmp_path)
    for policy in (new, Policy.load(options, seed=3, weights=tmp_path)):
        assert {parameter.data_ptr() % ALIGNMENT for parameter in policy.model.parameters()} == {0}


def test_encoding_adds_nothing(policy: Policy) -> None:
    assert policy.tokenizer.convert_ids_to_tokens(policy.encode("1+2=")) == ["1", "+", "2", "="]
    assert policy.decode([*policy.encode("a . b\n"), *policy.end_ids[:1], 0]) == "a . b\n"
