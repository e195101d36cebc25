"""Runs whose rollouts vLLM draws, on the CPU, with a build of vLLM for it: `make test-vllm`, in an environment of its own.

vLLM starts within this process: 20 to 40 s the first time, and 5 s after that. Its cache is 0.25 GiB.
"""
# ruff: noqa: E402

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]

from lampo.config.schema import LoraOptions, ModelOptions, PromptOptions, SamplingOptions, TrainConfig, VllmOptions
from lampo.evaluation.respond.responder import Asked
from lampo.evaluation.respond.vllm import VllmResponder
from lampo.learner.batch import Row, pad
from lampo.learner.optimizer import Optimizer
from lampo.model.policy import Policy
from lampo.rollout import vllm
from lampo.rollout.native import NativeSampler
from lampo.rollout.vllm import VllmEngine
from lampo.types import LampoError, Problem, Response, Rollout, SamplerMismatch

from ..conftest import CHARACTERS
from ..helpers.small_run import curve, resume, run_to_end, small_config

WIDTHS = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
MODELS: dict[str, dict[str, Any]] = {
    "qwen3": {"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": False},
    "qwen3-tied": {"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": True},
    "phi3": {"model_type": "phi3", "tie_word_embeddings": False},
    "llama": {"model_type": "llama", "head_dim": 32, "tie_word_embeddings": True},
}
CACHE = {"cache_gib": 0.25}
TEXTS = ("12+3=", "what is 7 plus 8?", "9")


def policy_of(architecture: str, **changes: Any) -> Policy:
    options = ModelOptions(config=WIDTHS | MODELS[architecture], characters=CHARACTERS, device="cpu", **changes)
    policy = Policy.load(options, seed=3)
    policy.end_ids = list(range(1, len(policy.tokenizer), 12))  # so that some end early
    return policy


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def opened(policy: Policy, stack: ExitStack, max_new_tokens: int = 24) -> VllmEngine:
    options = SamplingOptions(engine="vllm", vllm=VllmOptions(**CACHE), max_new_tokens=max_new_tokens, rows_at_once=16)
    engine = VllmEngine(policy, options, longest_row=64)
    stack.callback(engine.close)
    return engine


def draw(engine: VllmEngine, seed: int = 0, temperature: float = 0.8, group_size: int = 8) -> list[Rollout]:
    prompts_P = [torch.tensor(engine.policy.encode(text)) for text in TEXTS]
    rollouts_PG = engine.sampler(temperature).sample(prompts_P, group_size, seed=seed)
    return [rollout for rollouts_G in rollouts_PG for rollout in rollouts_G]


def largest_difference(policy: Policy, rollouts: list[Rollout], temperature: float = 0.8) -> float:
    rows = [Row(rollout.prompt_ids, rollout.completion_ids, rollout.logprobs, 1.0) for rollout in rollouts]
    batch = pad(rows)
    logprobs_NT = policy.frozen_logprobs(batch, temperature=temperature)
    return float((logprobs_NT - batch.old_logprobs_NT)[batch.mask_NT].abs().max())


def step(policy: Policy, rollouts: list[Rollout], seed: int) -> None:
    """An update that makes what was drawn likelier, by far more than a real one."""
    config = small_config(Path("unused")).optimizer.model_copy(update={"learning_rate": 1e-2})
    optimizer = Optimizer(policy, config, 1)
    chosen = [rollout for number, rollout in enumerate(rollouts) if (number + seed) % 2]
    batch = pad([Row(rollout.prompt_ids, rollout.completion_ids, rollout.logprobs, 1.0) for rollout in chosen])
    logprobs_NT, _ = policy.token_logprobs(batch, temperature=0.8)
    (-logprobs_NT.sum() / batch.mask_NT.sum()).backward()
    optimizer.step(1)


@pytest.mark.parametrize("architecture", list(MODELS))
def test_logprobs_are_the_learners_before_and_after_updates(architecture: str, stack: ExitStack) -> None:
    policy = policy_of(architecture)
    engine = opened(policy, stack)
    rollouts = draw(engine)
    assert {rollout.finished for rollout in rollouts} == {True, False}
    differences = [largest_difference(policy, rollouts)]
    for number in range(3):
        step(policy, rollouts, number)
        assert largest_difference(policy, rollouts) > 1e-2  # the policy has moved on
        rollouts = draw(engine, seed=number)
        differences.append(largest_difference(policy, rollouts))
    print(f"\n{architecture}: largest differences {differences}")
    assert max(differences) < 1e-5


def test_adapters_reach_vllm(stack: ExitStack) -> None:
    pytest.importorskip("peft")
    policy = policy_of("qwen3-tied", lora=LoraOptions(rank=4))
    engine = opened(policy, stack)
    rollouts = draw(engine)
    for number in range(2):
        step(policy, rollouts, number)
        assert largest_difference(policy, rollouts) > 1e-3
        rollouts = draw(engine, seed=number)
        assert largest_difference(policy, rollouts) < 1e-5


def test_one_engine_answers_at_several_temperatures_and_the_same_seed_draws_the_same(stack: ExitStack) -> None:
    policy = policy_of("qwen3-tied")
    engine = opened(policy, stack)
    for temperature in (0.5, 1.0, 2.0):
        rollouts = draw(engine, temperature=temperature)
        assert largest_difference(policy, rollouts, temperature) < 1e-5
        again = draw(engine, temperature=temperature)
        assert [each.completion_ids.tolist() for each in rollouts] == [each.completion_ids.tolist() for each in again]
        other = draw(engine, seed=1, temperature=temperature)
        assert [each.completion_ids.tolist() for each in rollouts] != [each.completion_ids.tolist() for each in other]
    groups = [rollouts[start : start + 8] for start in range(0, len(rollouts), 8)]
    assert all(len({tuple(each.completion_ids.tolist()) for each in group}) == 8 for group in groups)
    greedy = draw(engine, temperature=1e-4, group_size=2)
    native = NativeSampler(policy, temperature=1e-4, max_new_tokens=24, rows_at_once=16)
    expected = native.sample([torch.tensor(policy.encode(text)) for text in TEXTS], 1, seed=0)
    assert [each.completion_ids.tolist() for each in greedy[::2]] == [
        each.completion_ids.tolist() for (each,) in expected
    ]


def test_what_is_drawn_is_drawn_with_the_probabilities_told(stack: ExitStack) -> None:
    """First tokens of 3,000 rollouts beside the policy's distribution: the total variation is that of chance."""
    policy = policy_of("qwen3-tied")
    with torch.no_grad():
        policy.core.get_output_embeddings().weight.mul_(8)
    engine = opened(policy, stack, max_new_tokens=1)
    prompt = torch.tensor(policy.encode("12+3="))
    (rollouts,) = engine.sampler(0.8).sample([prompt], 3000, seed=5)
    with torch.no_grad():
        expected_V = (policy.model(prompt[None]).logits[0, -1] / 0.8).softmax(-1)
    counts_V = torch.bincount(torch.stack([each.completion_ids[0] for each in rollouts]), minlength=len(expected_V))
    drawn_V = torch.multinomial(expected_V, 3000, replacement=True, generator=torch.Generator().manual_seed(0))
    by_chance = (torch.bincount(drawn_V, minlength=len(expected_V)) / 3000 - expected_V).abs().sum() / 2
    found = (counts_V / 3000 - expected_V).abs().sum() / 2
    assert found < 2 * by_chance


def test_weights_that_do_not_arrive_are_found(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of("qwen3-tied")
    engine = opened(policy, stack)
    rollouts = draw(engine)
    step(policy, rollouts, 0)
    with monkeypatch.context() as patch:
        patch.setattr(engine._llm, "collective_rpc", lambda *_, **__: None)
        with pytest.raises(
            LampoError, match=r"holds other weights than the policy: '.*' is not the .* \(\d+ of \d+ differ\)"
        ):
            draw(engine)
    draw(engine)
    real = vllm.weights
    with monkeypatch.context() as patch:  # one norm of one layer comes too large
        patch.setattr(
            vllm,
            "weights",
            lambda policy: (
                (name, tensor * 1.001 if name == "model.layers.1.input_layernorm.weight" else tensor)
                for name, tensor in real(policy)
            ),
        )
        engine._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": vllm.weights(policy)})
    ((_, different),) = engine._llm.apply_model(lambda model: vllm.compare_weights(model, policy))
    assert different == ["model.layers.1.input_layernorm.weight"]


def test_a_model_that_vllm_does_not_run_is_told() -> None:
    policy = Policy.load(
        ModelOptions(
            config=WIDTHS | MODELS["qwen3"] | {"head_dim": 24, "hidden_size": 96}, characters=CHARACTERS, device="cpu"
        )
    )
    with ExitStack() as stack, pytest.raises(LampoError, match="vLLM failed while it sampled: .*head_dim=24"):
        opened(policy, stack)


# Whole runs


QUICKSTART = {
    "model__config": {
        "model_type": "qwen3",
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,  # 24 in the recipe, which vLLM has no kernel for on a CPU
        "max_position_embeddings": 128,
        "rope_theta": 100,
        "tie_word_embeddings": True,
    },
    "task": {"name": "arithmetic", "digits": 3, "demonstration_noise": 0.3},
    "rewards": [{"name": "verifier"}],
    "warmstart": {
        "steps": 550,
        "rows_per_step": 32,
        "optimizer": {"learning_rate": 3e-3, "schedule": "cosine", "warmup_steps": 20, "betas": [0.9, 0.98]},
    },
    "sampling__problems_per_step": 16,
    "sampling__group_size": 8,
    "sampling__max_new_tokens": 48,
    "optimizer__learning_rate": 3e-4,
    "optimizer__warmup_steps": 2,
    "training__steps": 10,
    "training__tokens_per_microbatch": 4000,
    "evaluation__every": 5,
    "evaluation__problems": 64,
    "evaluation__greedy": True,
    "run__keep_checkpoints": 9,
}
"""The recipe of that name as far as it matters, of which the first steps are made."""


def config(folder: Path, **changes: Any) -> TrainConfig:
    settings = {"model__device": "cpu", "sampling__engine": "vllm", "sampling__vllm": CACHE}
    return small_config(folder, **settings | changes)


def small(folder: Path, **changes: Any) -> TrainConfig:
    """Two steps whose rewards differ without any skill: they are like a reference."""
    model = {"model__config": WIDTHS | MODELS["qwen3-tied"], "training__steps": 2}
    return config(folder, **model | changes)


def records(path: Path, stage: str) -> list[dict[str, Any]]:
    return [record for record in curve(path) if record["stage"] == stage]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which nothing is sampled natively, evaluations neither."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("sampled natively")

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(NativeSampler, "sample", never)
        return run_to_end(config(tmp_path_factory.mktemp("finished"), **QUICKSTART))


def test_the_reward_rises_and_the_mismatch_stays_small(finished: Path) -> None:
    train = records(finished, "train")
    rewards = [round(record["reward/total"], 3) for record in train]
    print(f"\nrewards {rewards}, largest mismatch {max(record['sampler/mismatch_max'] for record in train):.2g}")
    assert sum(rewards[-3:]) > sum(rewards[:3]) + 0.3
    assert 0 < max(record["sampler/mismatch_max"] for record in train) < 1e-4
    assert max(record["sampler/mismatch_mean"] for record in train) < 1e-5


def test_evaluation_in_training_is_by_vllm_too(finished: Path) -> None:
    evaluations = records(finished, "evaluation")
    assert [record["step"] for record in evaluations] == [0, 5, 10]
    sampled, greedy = ([record[f"evaluation/{kind}accuracy"] for record in evaluations] for kind in ("", "greedy/"))
    print(f"\nheld-out accuracy {sampled}, of the most likely response {greedy}")
    assert sampled[-1] > sampled[0] + 0.15
    assert min(greedy) > 0.8  # the warm start imitates mistakes, and the most likely response has few


def test_a_resumed_run_continues_as_if_there_had_been_no_break(finished: Path, tmp_path: Path) -> None:
    part = tmp_path / "small"
    shutil.copytree(finished, part)
    for checkpoint in (part / "checkpoints").glob("train-*"):
        if checkpoint.name > "train-000006":
            shutil.rmtree(checkpoint)
    resume(part)
    assert curve(part) == curve(finished)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_importance_weights_are_near_one_here(level: str, tmp_path: Path) -> None:
    for record in records(run_to_end(small(tmp_path, loss__sampler_correction=level)), "train"):
        assert record["loss/importance_weight"] == pytest.approx(1, abs=1e-4)
        assert record["loss/ratio_min"] == record["loss/ratio_max"] == 1


def test_past_the_bound_the_run_stops(tmp_path: Path) -> None:
    with pytest.raises(SamplerMismatch, match=r"Stopped at step 1. The log-probs of vLLM and of the learner differ"):
        run_to_end(small(tmp_path, sampling__vllm=CACHE | {"max_mismatch": 1e-12}))
    assert (tmp_path / "small" / "mismatch-000001.jsonl.gz").is_file()


def test_lampo_eval_answers_with_vllm_as_natively(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend of `lampo eval`, which is another one than the sampler: at temperature 0 it writes the same texts."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    policy_of("qwen3-tied").save(tmp_path / "model")
    model = ModelOptions(path=str(tmp_path / "model"), dtype="float32", device="cpu")
    policy = Policy.load(model)
    native = NativeSampler(policy, temperature=1e-4, max_new_tokens=24, rows_at_once=16)
    expected = native.sample([torch.tensor(policy.encode(text)) for text in TEXTS], 1, seed=0)
    responder = VllmResponder(model, PromptOptions(), temperature=0.0, max_new_tokens=24)
    asked = [Asked(Problem(id=text, prompt=text, answer=""), text, 0) for text in TEXTS]
    for (_, responses), (rollout,) in zip(responder.respond(asked, 1), expected, strict=True):
        assert isinstance(responses, list)
        assert responses == [Response(rollout.text, len(rollout.completion_ids), rollout.finished)]
