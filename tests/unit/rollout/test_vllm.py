"""What is ours in sampling with vLLM, against a stand-in for the module. `make test-vllm` asks vLLM itself (tests/vllm)."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from lampo.config.schema import LoraOptions
from lampo.learner.batch import Row, pad
from lampo.model.policy import Policy
from lampo.model.prompts import encode_prompts, most_tokens
from lampo.rollout.build import open_samplers
from lampo.rollout.native import NativeSampler
from lampo.rollout.vllm import VllmEngine, compare_weights, refuse, rollout_seeds, weights
from lampo.types import LampoError, NotFinite, Problem, Rollout

from ...conftest import sharpen, tiny_options
from ...helpers.fake_vllm import LLM, install
from ...helpers.small_run import small_config

PROBLEMS = [Problem(id=text, prompt=text, answer="") for text in ("12+3=", "what is 7 plus 8?", "9")]


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_CPU_OMP_THREADS_BIND", "VLLM_LOGGING_LEVEL"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    return install(monkeypatch)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def config(tmp_path: Path, **changes: Any) -> Any:
    settings = {"sampling__max_new_tokens": 20, "sampling__rows_at_once": 64} | changes
    return small_config(tmp_path, sampling__engine="vllm", **settings)


def rollouts_of(policy: Policy, tmp_path: Path, stack: ExitStack, temperature: float = 0.9, **asked: Any) -> list[Any]:
    sampler = open_samplers(policy, config(tmp_path), PROBLEMS, stack, print)(temperature)
    prompts_P = encode_prompts(PROBLEMS, policy, config(tmp_path).prompt)
    return sampler.sample(prompts_P, 4, **({"seed": 0} | asked))


def flat(rollouts_PG: list[list[Rollout]]) -> list[Rollout]:
    return [rollout for rollouts_G in rollouts_PG for rollout in rollouts_G]


@pytest.mark.parametrize("architecture", ["qwen3", "phi-4-mini"])
def test_rollouts_have_the_policys_weights_and_logprobs(
    architecture: str, tmp_path: Path, stack: ExitStack, module: type[LLM]
) -> None:
    policy = sharpen(Policy.load(tiny_options(architecture, device="cpu"), seed=3))
    told: list[tuple[int, int, Rollout]] = []
    counts: list[int] = []
    rollouts_PG = rollouts_of(
        policy, tmp_path, stack, on_rollout=lambda *each: told.append(each), on_progress=counts.append
    )
    rollouts = flat(rollouts_PG)
    assert {rollout.finished for rollout in rollouts} == {True, False}
    assert all(rollout.finished == (int(rollout.completion_ids[-1]) in policy.end_ids) for rollout in rollouts)
    assert sorted((p, g) for p, g, _ in told) == [(p, g) for p in range(3) for g in range(4)]
    assert all(rollouts_PG[p][g] is rollout for p, g, rollout in told)
    assert counts[-1] == sum(len(rollout.completion_ids) for rollout in rollouts)
    assert counts == sorted(counts)
    batch = pad([Row(rollout.prompt_ids, rollout.completion_ids, rollout.logprobs, 1.0) for rollout in rollouts])
    logprobs_NT = policy.frozen_logprobs(batch, temperature=0.9)
    torch.testing.assert_close(logprobs_NT[batch.mask_NT], batch.old_logprobs_NT[batch.mask_NT], rtol=0, atol=1e-4)
    assert [policy.decode(rollout.completion_ids.tolist()) for rollout in rollouts] == [
        rollout.text for rollout in rollouts
    ]


def test_every_call_takes_the_weights_as_they_are(policy: Policy, tmp_path: Path, stack: ExitStack) -> None:
    sampler = open_samplers(policy, config(tmp_path), PROBLEMS, stack, print)(0.9)
    prompts_P = encode_prompts(PROBLEMS, policy, config(tmp_path).prompt)
    before = flat(sampler.sample(prompts_P, 2, seed=1))
    again = flat(sampler.sample(prompts_P, 2, seed=1))
    assert [rollout.completion_ids.tolist() for rollout in before] == [
        rollout.completion_ids.tolist() for rollout in again
    ]
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.1)
    after = flat(sampler.sample(prompts_P, 2, seed=1))
    batch = pad([Row(rollout.prompt_ids, rollout.completion_ids, rollout.logprobs, 1.0) for rollout in after])
    logprobs_NT = policy.frozen_logprobs(batch, temperature=0.9)
    torch.testing.assert_close(logprobs_NT[batch.mask_NT], batch.old_logprobs_NT[batch.mask_NT], rtol=0, atol=1e-4)
    assert not torch.equal(before[0].logprobs[:1], after[0].logprobs[:1])


def test_what_vllm_is_told(policy: Policy, tmp_path: Path, stack: ExitStack, module: type[LLM]) -> None:
    chosen = config(tmp_path, sampling__vllm={"cache_gib": 0.25})
    open_samplers(policy, chosen, PROBLEMS, stack, print)
    (llm,) = module.made
    longest = most_tokens(PROBLEMS, policy, chosen.prompt)
    assert longest >= max(len(prompt) for prompt in encode_prompts(PROBLEMS, policy, chosen.prompt))
    told = {
        "dtype": "float32",
        "max_model_len": longest + 20,
        "max_num_seqs": 64,
        "gpu_memory_utilization": 0.5,
        "kv_cache_memory_bytes": 2**28,
        "enable_sleep_mode": False,
        "enforce_eager": True,
        "skip_tokenizer_init": True,
    }
    assert {name: llm.settings[name] for name in told} == told
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert os.environ["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    stack.close()
    assert llm.did[-1] == "shutdown"


def test_bfloat16_is_asked_for_where_the_policy_computes_in_it(tmp_path: Path, module: type[LLM]) -> None:
    for dtype, expected in {"mixed": "bfloat16", "bfloat16": "bfloat16", "float32": "float32"}.items():
        policy = Policy.load(tiny_options(dtype=dtype, device="cpu"))
        VllmEngine(policy, config(tmp_path).sampling, 64)
        assert module.made[-1].settings["dtype"] == expected


def test_a_seed_for_each_rollout(policy: Policy, tmp_path: Path, stack: ExitStack, module: type[LLM]) -> None:
    rollouts_of(policy, tmp_path, stack, seed=7)
    seeds = [params.seed for params in module.made[0].asked[1:]]  # the first is a probe
    assert len({*seeds}) == 12
    assert seeds == [seed for each in rollout_seeds(7, 3, 4) for seed in each]
    assert max(seeds) < 2**63
    own = rollout_seeds([5, 6, 7], 3, 4)
    assert own[1] == rollout_seeds([6], 1, 4)[0]  # whatever is asked with it


def test_below_its_least_temperature_the_most_likely_token_is_asked_for(
    policy: Policy, tmp_path: Path, stack: ExitStack, module: type[LLM]
) -> None:
    greedy = flat(rollouts_of(policy, tmp_path, stack, temperature=1e-4))
    assert {params.temperature for params in module.made[0].asked[1:]} == {0.0}
    native = NativeSampler(policy, temperature=1e-4, max_new_tokens=20, rows_at_once=64)
    expected = flat(native.sample(encode_prompts(PROBLEMS, policy, config(tmp_path).prompt), 1, seed=0))
    assert [rollout.completion_ids.tolist() for rollout in greedy[::4]] == [
        rollout.completion_ids.tolist() for rollout in expected
    ]


def test_a_tensor_that_did_not_arrive_is_found(
    policy: Policy, tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, module: type[LLM]
) -> None:
    sampler = open_samplers(policy, config(tmp_path), PROBLEMS, stack, print)(0.9)
    monkeypatch.setattr(module, "forgets", "model.layers.1.input_layernorm.weight")
    with torch.no_grad():
        policy.core.get_parameter("model.layers.1.input_layernorm.weight").mul_(1.01)
    with pytest.raises(
        LampoError,
        match=r"other weights than the policy: 'model.layers.1.input_layernorm.weight' .* \(1 of \d+ differ\)",
    ):
        sampler.sample(encode_prompts(PROBLEMS, policy, config(tmp_path).prompt), 4, seed=0)
    assert len(module.made[0].asked) == 1  # the probe, and nothing after it


def test_a_padded_vocabulary_is_compared_and_what_is_joined_is_not(policy: Policy) -> None:
    held = {name: tensor.clone() for name, tensor in weights(policy)}
    model = torch.nn.Module()
    model.register_parameter(
        "embed", torch.nn.Parameter(torch.cat([held["model.embed_tokens.weight"], torch.ones(4, 32)]))
    )
    model.named_parameters = lambda: [("model.embed_tokens.weight", model.embed), ("qkv_proj.weight", model.embed)]
    assert compare_weights(model, policy) == (1, [])
    with torch.no_grad():
        model.embed[1] += 1
    assert compare_weights(model, policy) == (1, ["model.embed_tokens.weight"])


def test_adapters_are_added_to_the_weights_and_stay_apart_in_the_policy() -> None:
    pytest.importorskip("peft")
    policy = Policy.load(tiny_options(device="cpu", lora=LoraOptions(rank=2)), seed=3)
    plain = Policy.load(tiny_options(device="cpu"), seed=3)
    with torch.no_grad():
        for name, parameter in policy.trainable_parameters().items():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    before = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    merged = dict(weights(policy))
    assert set(merged) == set(plain.core.state_dict())
    plain.core.load_state_dict(merged)
    ids = torch.tensor([[3, 4, 5, 6]])
    torch.testing.assert_close(plain.model(ids).logits, policy.model(ids).logits, rtol=0, atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.model.state_dict().items())


def test_it_sleeps_between_calls_where_it_can(
    policy: Policy, tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm_class = install(monkeypatch, sleeps=True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    rollouts_of(policy, tmp_path, stack)
    (llm,) = llm_class.made
    assert llm.settings["enable_sleep_mode"]
    assert llm.did == [
        "sleep",
        *2 * ["wake weights", "weights", "prefix cache", "wake kv_cache", "sleep"],
    ]  # a probe, and this


def test_it_sleeps_after_an_error_too_and_drops_what_it_was_asked(
    policy: Policy, tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm_class = install(monkeypatch, sleeps=True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    sampler = open_samplers(policy, config(tmp_path), PROBLEMS, stack, print)(0.9)
    monkeypatch.setattr(llm_class, "reason", "error")
    with pytest.raises(LampoError, match="vLLM ended a rollout early: error"):
        sampler.sample(encode_prompts(PROBLEMS, policy, config(tmp_path).prompt), 4, seed=0)
    (llm,) = llm_class.made
    assert llm.did[-1] == "sleep"
    assert len(llm.llm_engine.aborted) == 11


def test_logprobs_that_are_not_finite_stop_the_run(
    policy: Policy, tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, module: type[LLM]
) -> None:
    monkeypatch.setattr(module, "shift", float("nan"))
    monkeypatch.setattr(torch, "multinomial", lambda *_, **__: torch.tensor([1]))
    with pytest.raises(NotFinite, match="its weights have diverged"):
        rollouts_of(policy, tmp_path, stack)


def test_a_row_longer_than_its_room_is_refused(policy: Policy, tmp_path: Path) -> None:
    sampler = VllmEngine(policy, config(tmp_path).sampling, 30).sampler(1.0)
    with pytest.raises(LampoError, match=r"are 37 tokens together, and vLLM has room for 30"):
        sampler.sample(encode_prompts(PROBLEMS, policy, config(tmp_path).prompt), 1, seed=0)


def test_on_a_cpu_the_cache_is_a_gib_and_a_share_is_refused(policy: Policy, tmp_path: Path, module: type[LLM]) -> None:
    VllmEngine(policy, config(tmp_path).sampling, 64)
    assert module.made[-1].settings["kv_cache_memory_bytes"] == 2**30
    with pytest.raises(LampoError, match="sampling.vllm.memory_share is of a GPU"):
        VllmEngine(policy, config(tmp_path, sampling__vllm={"memory_share": 0.3}).sampling, 64)
    with pytest.raises(LampoError, match="give `memory_share` or `cache_gib`, and not both"):
        config(tmp_path, sampling__vllm={"memory_share": 0.3, "cache_gib": 2})


def test_another_device_is_refused(policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, device="cuda")
    with pytest.raises(LampoError, match="This vLLM computes on cuda, and the policy lies on cpu"):
        VllmEngine(policy, config(tmp_path).sampling, 64)


def test_what_vllm_says_of_a_model_that_it_cannot_run_is_told(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("Head size 24 is not supported.")

    monkeypatch.setattr(sys.modules["vllm"], "LLM", broken)
    with pytest.raises(LampoError, match=r"vLLM cannot run this model .*: ValueError: Head size 24 is not supported"):
        VllmEngine(policy, config(tmp_path).sampling, 64)


def test_a_vllm_that_takes_no_weights_is_told(
    policy: Policy, tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, module: type[LLM]
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise AttributeError("no reload_weights")

    monkeypatch.setattr(module, "collective_rpc", missing)
    with pytest.raises(LampoError, match=r"vLLM 0.32.0 did not take the weights: AttributeError"):
        rollouts_of(policy, tmp_path, stack)
    assert module.made[0].did == ["shutdown"]  # told before anything is trained


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sampling__temperature": 0.001}, "sampling.temperature is 0.001"),
        ({"evaluation__temperature": 0.005}, "evaluation.temperature is 0.005"),
        ({"model__device": "cuda:1"}, "model.device is cuda:1"),
        ({"model__allow_remote_code": True}, "model.allow_remote_code"),
    ],
)
def test_what_it_cannot_honour_is_refused_by_name(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(LampoError, match=told):
        refuse(config(tmp_path, **changes))
    refuse(config(tmp_path))


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "vllm")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(LampoError, match=r"^sampling.engine=vllm needs the package vllm. Install it .*lampo\[vllm\]'$"):
        refuse(config(tmp_path))
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(LampoError, match=r"cannot import vLLM.*lampo\[vllm\]'"):
        VllmEngine(Policy.load(tiny_options(device="cpu")), config(tmp_path).sampling, 64)
