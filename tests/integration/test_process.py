"""RLPR and PRIME in a run: they learn what they keep beside the policy, and both survive a kill bit for bit."""

import math
import multiprocessing
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lampo.learner.answer_likelihood import answer_likelihoods
from lampo.model.policy import Policy
from lampo.model.prompts import encode_prompts
from lampo.rollout.native import NativeSampler
from lampo.store.rollouts import read_groups
from lampo.tasks.load import load_task
from lampo.types import LampoError
from lampo.verify import NumericOptions, judge

from ..helpers.small_run import curve, resume, run_to_end, small_config
from .test_resume import die_at

METHODS: dict[str, dict[str, Any]] = {
    "prime": {"advantage": {"name": "prime"}, "sampling__resample": 1, "sampling__accuracy_range": [0.2, 0.8]},
    "prime, double forward, Dr. GRPO's loss, KL": {
        "advantage": {"name": "prime"},
        "loss": {"aggregation": "constant", "kl_coefficient": 0.01},
    },
    "prime, LoRA": {"advantage": {"name": "prime"}, "model__lora": {"rank": 2}},
    "rlpr": {
        "advantage": {"name": "grpo"},
        "rewards": {"verifier": {"weight": 0.0}, "likelihood": {"credit": "reasoning"}, "overlong": {"weight": 0.1}},
        "spread_filter": {"share": 0.8, "average_from": 1, "filter_from": 3},
    },
}


def steps(path: Path) -> list[dict[str, Any]]:
    return [record for record in curve(path) if record["stage"] == "train"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    return {
        name: run_to_end(small_config(folder / str(n), **changes)) for n, (name, changes) in enumerate(METHODS.items())
    }


@pytest.mark.parametrize("name", METHODS)
def test_everything_is_finite(name: str, uninterrupted: dict[str, Path]) -> None:
    records = steps(uninterrupted[name])
    assert len(records) == 6
    assert all(math.isfinite(value) for record in records for key, value in record.items() if key != "stage")
    assert any(record.get("loss/value") for record in records)


@pytest.mark.parametrize("name", METHODS)
def test_killed_and_resumed_equals_uninterrupted(name: str, tmp_path: Path, uninterrupted: dict[str, Path]) -> None:
    """Killed in step 4, after the companions learned from it: what they learned is undone, and learned again."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lampo.train.loop"])
    process = context.Process(target=die_at, args=(tmp_path, ("lampo.train.loop", "collate", 4), METHODS[name]))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert resume(tmp_path / "small") == []
    assert curve(tmp_path / "small") == curve(uninterrupted[name])
    ours, theirs = (path / "checkpoints" / "train-000006" for path in (tmp_path / "small", uninterrupted[name]))
    files = {file.relative_to(theirs) for file in theirs.rglob("*") if file.suffix in (".json", ".safetensors")}
    assert {file.relative_to(ours) for file in ours.rglob("*") if file.suffix in (".json", ".safetensors")} == files
    kept = {file.parts[1] for file in files if len(file.parts) == 3}
    assert kept == ({"spread_filter"} if name == "rlpr" else {"process_rewards"})
    for file in files:
        if file.suffix == ".safetensors":
            a, b = load_file(ours / file), load_file(theirs / file)
            assert a.keys() == b.keys()
            assert all(a[key].equal(b[key]) for key in a)
        elif kept & set(file.parts):
            assert (ours / file).read_bytes() == (theirs / file).read_bytes()
    for step in range(1, 7):
        group_file = f"rollouts/{step:06d}.jsonl.gz"
        assert (tmp_path / "small" / group_file).read_bytes() == (uninterrupted[name] / group_file).read_bytes()


def test_the_process_reward_model_is_not_the_policy(uninterrupted: dict[str, Path]) -> None:
    checkpoint = uninterrupted["prime"] / "checkpoints" / "train-000006"
    policy = load_file(checkpoint / "model.safetensors")
    process = load_file(checkpoint / "training" / "process_rewards" / "weights.safetensors")
    start = load_file(uninterrupted["prime"] / "reference" / "model.safetensors")
    assert process.keys() <= start.keys()
    assert any(not process[key].equal(start[key]) for key in process)
    assert any(not process[key].equal(policy[key]) for key in process)


def test_rlpr_saves_likelihoods_and_leaves_groups_out(uninterrupted: dict[str, Path]) -> None:
    path = uninterrupted["rlpr"]
    records = steps(path)
    assert any(record["spread/groups_left_out"] > 0 for record in records[2:])
    for record in records:
        assert record["rollouts/unknown"] == 0
        penalty = 0.1 * record["reward/overlong"]
        assert record["reward/total"] == pytest.approx(record["reward/likelihood"] + penalty)
        for group in read_groups(path, record["step"]):
            for rollout in group["rollouts"]:
                assert rollout["total"] == pytest.approx(
                    rollout["rewards"]["likelihood"] + 0.1 * rollout["rewards"]["overlong"]
                )


def test_prime_refuses_rewards_that_are_no_verdicts(tmp_path: Path) -> None:
    with pytest.raises(LampoError, match="learns from verdicts, so it needs the reward verifier"):
        small_config(tmp_path, advantage={"name": "prime"}, rewards={"verifier": None, "likelihood": {}})


def test_right_responses_have_the_larger_likelihood_rewards(tmp_path: Path) -> None:
    config = small_config(
        tmp_path,
        run__checkpoint_every=100,
        task={"name": "arithmetic", "digits": 1, "num_train": 64, "num_heldout": 8, "demonstration_noise": 0.3},
        warmstart={"steps": 150, "rows_per_step": 16, "optimizer": {"learning_rate": 1e-2, "schedule": "cosine"}},
        training__steps=0,
    )
    path = run_to_end(config)
    policy = Policy.load(config.model, weights=next((path / "checkpoints").iterdir()))
    problems = load_task(config.task, config.decontamination).train[:32]
    prompts = encode_prompts(problems, policy, config.prompt)
    rollouts = NativeSampler(policy, temperature=1.0, max_new_tokens=14, rows_at_once=256).sample(prompts, 8, seed=0)
    verdicts = [
        [judge(NumericOptions(), rollout.text, problem.answer) for rollout in rollouts_G]
        for problem, rollouts_G in zip(problems, rollouts, strict=True)
    ]
    likelihoods = answer_likelihoods(policy, problems, prompts, rollouts, verdicts, 4096)
    pairs = [
        (verdict.status, likelihood.value)
        for verdicts_G, likelihoods_G in zip(verdicts, likelihoods, strict=True)
        for verdict, likelihood in zip(verdicts_G, likelihoods_G, strict=True)
    ]
    means = {
        status: torch.tensor([value for found, value in pairs if found == status]).mean()
        for status in ("right", "wrong")
    }
    assert means["right"] > means["wrong"] + 0.1
