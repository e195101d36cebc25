"""Real runs of verl's main_ppo on the CPU: Ray, two ranks of FSDP2 on gloo, weights sent to two rollout servers.

Each takes about two minutes and 7 GB. verl can hang where others fail, so each run has a limit, and all it has started is ended.
"""
# ruff: noqa: E402

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("verl", reason="verl is not installed: make test-verl")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(1000)]

from lampo import pairwise_advantages, sequence_scores
from lampo.adapters.verl.unknown import UNKNOWN

from .small import prepare, run

REWARD = "reward.custom_reward_function.path=pkg://lampo.adapters.verl.reward"
STEPS = 6


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verl")
    prepare(folder)
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return tmp_path


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line)["data"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def records(folder: Path) -> list[dict[str, Any]]:
    """What the estimator was given in each step, and what it gave."""
    return [pickle.loads(file.read_bytes()) for file in sorted((folder / "records").iterdir())]


def expected(record: dict[str, Any]) -> torch.Tensor:
    """LamPO's advantages of a batch of verl, without the adapter: rows in the order of their groups, the unknown ones not valid."""
    names = list(dict.fromkeys(record["uids"]))
    ids_N = torch.tensor([names.index(uid) for uid in record["uids"]])
    order = ids_N.argsort(stable=True)
    mask_NT, logprobs_NT = record["mask"].bool()[order], record["batch"]["old_log_probs"][order]
    rewards_N = record["rewards"].sum(1)[order]
    scores_N = torch.cat(
        [sequence_scores(row[mask][None], mask[mask][None]) for row, mask in zip(logprobs_NT, mask_NT, strict=True)]
    )
    advantages_N = pairwise_advantages(
        rewards_N, scores_N, ids_N[order], valid_N=rewards_N != UNKNOWN, scale="group_std"
    )
    return advantages_N[order.argsort()][:, None] * record["mask"]


def check(folder: Path, steps: int) -> None:
    """What holds of every run: our advantages, exactly, in one process; and they are what verl's loss was made of."""
    told, given = metrics(folder), records(folder)
    assert len(told) == len(given) == steps
    assert len({record["pid"] for record in given}) == 1
    for step, record in zip(told, given, strict=True):
        assert len(set(record["uids"])) == 8
        assert torch.equal(record["advantages"], expected(record))
        counted_NT = record["mask_after"].bool()
        mean = float(record["advantages"][counted_NT].mean())
        assert step["critic/advantages/mean"] == pytest.approx(mean, rel=1e-5)
        loss = -float(record["advantages"].sum() / counted_NT.sum())  # all ratios are 1
        assert step["actor/pg_loss"] == pytest.approx(loss, rel=1e-4)
        gap = (record["batch"]["old_log_probs"] - record["batch"]["rollout_log_probs"])[record["mask"].bool()]
        assert gap.abs().max() < 1e-4


def test_two_ranks_learn_with_our_advantages_and_leave_out_what_is_unknown(folder: Path) -> None:
    run(folder, REWARD, f"trainer.total_training_steps={STEPS}")
    check(folder, STEPS)
    rewards = [step["critic/score/mean"] for step in metrics(folder)]
    assert sum(rewards[-2:]) / 2 > sum(rewards[:2]) / 2 + 0.1
    unknown = 0
    for record in records(folder):
        rows_N = (record["batch"]["rm_scores"] == UNKNOWN).any(1)
        assert torch.equal(rows_N, ~record["mask_after"].bool().any(1))
        assert not record["advantages"][rows_N].any()
        unknown += int(rows_N.sum())
    assert unknown > 0  # some responses made the verifier hang, and some it could not judge


def test_a_run_with_an_own_advantage_is_saved_and_resumed(folder: Path) -> None:
    own = ["+algorithm.lampo.name=python:tests.verl.judge.multiple", "+algorithm.lampo.factor=2"]
    saving = [REWARD, *own, "trainer.save_freq=1"]
    run(folder, *saving, "trainer.total_training_steps=2")
    shutil.rmtree(folder / "records")
    run(folder, *saving, "trainer.total_training_steps=3", "trainer.resume_mode=auto")
    assert [step["training/global_step"] for step in metrics(folder)] == [3]
    (record,) = records(folder)
    rewards_N = record["rewards"].sum(1)
    assert torch.equal(record["advantages"], 2 * (rewards_N * (rewards_N != UNKNOWN))[:, None] * record["mask"])
    assert sorted(path.name for path in (folder / "checkpoints").glob("global_step_*"))[-1] == "global_step_3"


def test_two_nodes_of_ray(folder: Path) -> None:
    nodes = ["trainer.nnodes=2", "trainer.n_gpus_per_node=1", "~ray_kwargs.ray_init.num_cpus"]
    nodes += ["~ray_kwargs.ray_init.num_gpus", "~ray_kwargs.ray_init.object_store_memory"]
    run(folder, REWARD, *nodes, "trainer.total_training_steps=2", nodes=2)
    check(folder, 2)


def test_the_older_trainer(folder: Path) -> None:
    run(folder, REWARD, "trainer.use_v1=False", "trainer.total_training_steps=2")
    assert len(records(folder)) == 2
    for record in records(folder):
        assert torch.equal(record["advantages"], expected(record))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([REWARD, "+algorithm.lampo.wight=winner"], "LampoError: algorithm.lampo.wight: Extra inputs"),
        (
            [REWARD, "+reward.custom_reward_function.reward_kwargs.verifier=nummeric"],
            "LampoError: The verifier 'nummeric' cannot be set up",
        ),
    ],
    ids=["advantage", "verifier"],
)
def test_a_mistake_ends_the_run_and_is_told(folder: Path, overrides: list[str], message: str) -> None:
    assert message in run(folder, *overrides, expect=1)


def test_an_estimator_that_is_not_there_ends_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "none")
    assert "Unknown advantage estimator simply: lampo" in run(folder, REWARD, expect=1)
