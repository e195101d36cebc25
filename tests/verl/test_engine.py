"""`engine: verl`: recipes through verl's main_ppo on the CPU, two ranks of FSDP2, and their run directories.

A run takes one to three minutes and 6 GB.
"""
# ruff: noqa: E402

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("verl", reason="verl is not installed: make test-verl")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]

from rich.console import Console

from lampo import LampoError
from lampo.adapters.verl.follow import Follower, on_cpu
from lampo.algo.estimate import Estimate
from lampo.compare.command import compare_study
from lampo.compare.results import read_results
from lampo.config.explain import dump_config
from lampo.evaluation.command import evaluate_model
from lampo.learner.batch import collate
from lampo.learner.optimizer import Optimizer, learning_rate
from lampo.model.policy import load_policy
from lampo.store.metrics import read_metrics
from lampo.store.rollouts import read_groups, rollout_steps
from lampo.tasks.load import load_task
from lampo.train.engines import engine_of
from lampo.train.finish import finish
from lampo.train.loop import update
from lampo.train.run import Run, problems_of_step
from lampo.types import Group
from lampo.view.console import Progress
from lampo.view.inspect.command import inspect
from lampo.view.inspect.pairs import pairs

from ..helpers.verl_run import OPTIONS, STEPS, config_of
from .driver import ENVIRONMENT
from .small import scratch, started, wait


@pytest.fixture(scope="module", autouse=True)
def platform() -> Iterator[dict[str, str]]:
    """verl's processes find the CPU platform of the tests."""
    with pytest.MonkeyPatch.context() as patch, scratch() as environment:
        environment |= ENVIRONMENT
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment


def run_to_end(run: Run) -> Path:
    with Progress(run.path.name) as progress:
        engine_of(run.config).train(run, progress)
    finish(run)
    return run.path


Taken = list[tuple[list[Group], Estimate]]


@pytest.fixture(scope="module")
def run_and_groups(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Taken]:
    """A run, and the groups that it took in from verl, with their tokens."""
    taken: Taken = []
    inner = Follower._groups

    def _groups(self: Follower, rows: Any) -> tuple[list[Group], Estimate]:
        taken.append(inner(self, rows))
        return taken[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Follower, "_groups", _groups)
        return run_to_end(Run.create(config_of(tmp_path_factory.mktemp("verl")))), taken


@pytest.fixture(scope="module")
def run(run_and_groups: tuple[Path, Taken]) -> Path:
    return run_and_groups[0]


def records(run: Path, stage: str) -> list[dict[str, Any]]:
    return [record for record in read_metrics(run) if record["stage"] == stage]


def test_the_run_directory_is_that_of_every_engine(run: Path) -> None:
    names = {"checkpoints", "config.yaml", "manifest.json", "metrics.jsonl", "model", "reference", "report.html"}
    assert names | {"rollouts"} == {file.name for file in run.iterdir()} - {"verl", "engine.log", ".lock"}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {f"train-{step:06d}" for step in (1, 2, 3)}
    assert yaml.safe_load((run / "config.yaml").read_text())["engine"] == "verl"
    assert {"verl", "ray"} <= yaml.safe_load((run / "manifest.json").read_text())["versions"].keys()
    assert rollout_steps(run) == [1, 2, 3]
    assert [record["step"] for record in records(run, "train")] == [1, 2, 3]
    assert [record["step"] for record in records(run, "evaluation")] == [0, 2, 3]
    assert len(records(run, "warmstart")) == 4
    assert not [*(run / "verl" / "rollouts").iterdir(), *(run / "verl" / "evaluations").iterdir()]


def test_metrics_have_our_names(run: Path) -> None:
    options = config_of(run).optimizer
    told = records(run, "train")
    for record in told:
        assert {"reward/total", "reward/verifier", "reward/overlong", "rollouts/unknown", "rollouts/truncated"} <= set(
            record
        )
        assert {"loss/value", "loss/entropy", "loss/kl_ref", "optimizer/gradient_norm", "memory/peak_gib"} <= set(
            record
        )
        assert {"time/sample", "time/score", "time/update", "time/total", "time/tokens_per_s"} <= set(record)
        assert record["optimizer/learning_rate"] == learning_rate(record["step"], STEPS, options)
        assert record["rollouts/sampled"] == 16
    for record in told[:-1]:  # verl says which rate comes next
        assert record["verl/actor/lr"] == pytest.approx(learning_rate(record["step"] + 1, STEPS, options))
    for record in records(run, "evaluation"):
        assert record["evaluation/samples"] == 2
        assert 0 < record["evaluation/problems"] <= 8  # without those of which no response could be judged
        assert record["evaluation/low"] <= record["evaluation/accuracy"] <= record["evaluation/high"]


def test_problems_come_in_the_order_of_the_recipe(run: Path) -> None:
    config = config_of(run)
    train = load_task(config.task, config.decontamination).for_training().train
    for step in (1, 2, 3):
        asked = [group["problem"]["id"] for group in read_groups(run, step)]
        assert asked == [each.id for each in problems_of_step(train, config.run.seed, step, 4, "train")]


def test_rollouts_carry_the_advantages_that_were_used_and_unknown_ones_have_none(run: Path) -> None:
    spread = unknown = 0
    for step in (1, 2, 3):
        for group in read_groups(run, step):
            apart = pairs(group, {"name": "pairwise"})
            assert apart is not None
            advantages = [rollout["advantage"] for rollout in group["rollouts"]]
            assert advantages == pytest.approx(apart.pairwise_G, abs=1e-5)
            spread += any(advantages)
            for rollout in group["rollouts"]:
                assert len(rollout["logprobs"]) == len(rollout["pieces"]) == rollout["length"] <= 12
                if rollout["text"].endswith(("+", "=")):
                    assert (rollout["status"], rollout["total"], rollout["advantage"]) == ("unknown", None, 0)
                    assert rollout["rewards"]["verifier"] is None
                    unknown += 1
    assert spread > 0
    assert unknown > 0
    assert sum(record["rollouts/unknown"] for record in records(run, "train")) * 16 == pytest.approx(unknown)


def test_verl_sees_the_recipe_s_prompts_and_begins_with_its_weights(run_and_groups: tuple[Path, Taken]) -> None:
    run, taken = run_and_groups
    policy = load_policy(on_cpu(config_of(run)), run / "reference")
    groups_P, estimate = taken[0]
    batch = collate(groups_P, estimate.token_advantages, keep_all=True)
    for microbatch in batch.split(10_000, layout=policy.layout):
        logprobs_NT = policy.frozen_logprobs(microbatch, temperature=1.0)
        gap_NT = (logprobs_NT - microbatch.old_logprobs_NT)[microbatch.mask_NT]
        assert gap_NT.abs().max() < 1e-5


@pytest.mark.parametrize("step", [1, 2, 3])
def test_an_update_is_the_native_engine_s(step: int, run_and_groups: tuple[Path, Taken]) -> None:
    """The same rollouts and weights: loss, KL term and gradient, divided by the tokens of the rows that are known."""
    run, taken = run_and_groups
    config = on_cpu(config_of(run))
    before = run / "reference" if step == 1 else run / "checkpoints" / f"train-{step - 1:06d}"
    policy, reference = load_policy(config, before), load_policy(config, run / "reference").copy_weights()
    groups_P, estimate = taken[step - 1]
    everywhere = [group for groups, _ in taken for group in groups]  # Ray decides what is drawn, so not in each step
    assert any(not reward.valid for group in everywhere for reward in group.rewards_G)
    batch = collate(groups_P, estimate.token_advantages, keep_all=True)
    native, _ = update(policy, Optimizer(policy, config.optimizer, STEPS), batch, config, step, reference)
    theirs = records(run, "train")[step - 1]
    assert theirs["loss/value"] == pytest.approx(native["loss/value"], rel=1e-4, abs=1e-6)
    assert theirs["loss/kl_ref"] == pytest.approx(native["loss/kl_ref"], rel=1e-3, abs=1e-7)
    assert theirs["optimizer/gradient_norm"] == pytest.approx(native["optimizer/gradient_norm"], rel=1e-4)
    if step == 1:  # AdamW's moments are verl's in later steps
        after = load_policy(config, run / "checkpoints" / "train-000001")
        apart = [
            (mine - other).abs().max()
            for mine, other in zip(policy.model.parameters(), after.model.parameters(), strict=True)
        ]
        assert max(map(float, apart)) < 0.05 * config.optimizer.learning_rate


def test_the_other_commands_take_the_run_as_any_other(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    inspect(run, step=None, export=page, groups=4, port=0, open_browser=False)
    assert page.stat().st_size > 10_000
    plain = {"benchmarks": None, "temperature": None, "max_new_tokens": None, "backend": None, "output": None}
    table = evaluate_model(
        str(run), ["num_problems", "samples"], settings=[], num_problems=4, samples=1, data=[], seed=None, **plain
    )
    assert "accuracy" in table


def test_a_run_goes_on_from_verl_s_checkpoint(run: Path) -> None:
    resumed, _ = Run.resume(run, ["training.steps=4"])
    assert run_to_end(resumed) == run
    assert [record["step"] for record in records(run, "train")] == [1, 2, 3, 4]
    assert [record["step"] for record in records(run, "evaluation")] == [0, 2, 3, 4]
    assert "setting global step to 3" in (run / "engine.log").read_text()
    assert {path.name for path in (run / "verl" / "checkpoints").glob("global_step_*")} == {
        f"global_step_{step}" for step in (2, 3, 4)
    }
    other, _ = Run.resume(run, ["training.steps=5", "run.processes=1"])
    with pytest.raises(LampoError, match=r"is of 2 processes, and run.processes x run.nodes is 1"):
        run_to_end(other)
    other.close()


def test_ctrl_c_ends_after_a_step_with_a_checkpoint(tmp_path: Path, platform: dict[str, str]) -> None:
    recipe, log = tmp_path / "recipe.yaml", tmp_path / "log.txt"
    changes = {"training__steps": 1000, "run__checkpoint_every": 500, "evaluation__every": 500}
    recipe.write_text(dump_config(config_of(tmp_path, warmstart__steps=0, **changes)), encoding="utf-8")
    process = started([sys.executable, "-m", "lampo", "train", str(recipe)], platform, log)
    deadline = time.monotonic() + 400
    while "lampo 1/1000" not in log.read_text() and "pairwise 1/1000" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    said = wait(process, log, 200, 130)
    assert "with a checkpoint" in said
    last = records(tmp_path / "small", "train")[-1]["step"]
    assert last < 100
    assert (tmp_path / "small" / "checkpoints" / f"train-{last:06d}").is_dir()
    assert (tmp_path / "small" / "verl" / "checkpoints" / f"global_step_{last}" / "actor").is_dir()


def test_two_nodes_of_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated ones, with a process each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 24, "num_gpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=8, num_gpus=1)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        options = [option for option in OPTIONS.split() if "ray_init" not in option]
        nodes = {
            "run__processes": 1,
            "run__nodes": 2,
            "run__engine_options": options,
        }
        run = run_to_end(Run.create(config_of(tmp_path, training__steps=1, warmstart__steps=0, **nodes)))
    finally:
        cluster.shutdown()
    assert [record["step"] for record in records(run, "train")] == [1]
    assert (run / "model").is_dir()


def test_what_verl_refuses_is_told_in_a_line(tmp_path: Path) -> None:
    options = [*OPTIONS.split(), "trainer.nope=1"]
    run = Run.create(config_of(tmp_path, warmstart__steps=0, run__engine_options=options))
    with pytest.raises(LampoError, match=r"verl ended after step 0, with status 1. .*trainer.nope"):
        run_to_end(run)


def test_a_study_compares_on_verl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = config_of(tmp_path, training__steps=2, loss__kl_coefficient=0.0).model_dump(mode="json")
    values["sampling"].pop("resample")
    written = {key: value for key, value in values.items() if key not in ("advantage", "loss", "spread_filter")}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    study = {"name": "engines", "recipe": "recipe.yaml", "methods": ["lampo"], "baseline": "lampo", "seeds": 1}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    compare_study(tmp_path / "study.yaml", Console(quiet=True))
    (result,) = read_results(tmp_path / "runs" / "engines" / "results.parquet")
    assert result.status == "finished"
    assert [point.step for point in result.points] == [0, 2]
