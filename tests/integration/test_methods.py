"""Every method trains; dynamic sampling, runs without a step, and what is measured at the ends of a run."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import lampo.train
from lampo import cli
from lampo.config import TrainConfig, dump_config
from lampo.methods import METHODS
from lampo.report import read_groups
from lampo.types import LampoError

from .helpers import curve, resume, run_to_end, small_config


def records_of(path: Path, stage: str = "train") -> list[dict[str, Any]]:
    return [record for record in curve(path) if record["stage"] == stage]


def bits_config(folder: Path, *, answers: str = "01", **changes: Any) -> TrainConfig:
    """Questions of bits, whose answer is a bit: an untrained model is right in some of its responses, and wrong in others."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "bits.jsonl"
    rows = [
        {"prompt": f"{n:06b}=", "answer": answers[n % len(answers)], "reference": f"{n % 2}=={answers[0]}"}
        for n in range(64)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "model__characters": "01=\n",
        "task": {
            "name": "jsonl",
            "train": str(data),
            "heldout_fraction": 0.3,
            "columns": {"reference": "reference"},
        },
        "warmstart__steps": 0,
        "rewards": {},
        "sampling": {"problems_per_step": 3, "group_size": 4, "max_new_tokens": 2},
    }
    return small_config(folder, **values | changes)


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_trains(method: str, tmp_path: Path) -> None:
    """With a second update of each batch, where the ratios are no longer 1."""
    steps = 0 if method == "cot" else 3
    config = bits_config(
        tmp_path, method=method, training__steps=steps, training__updates_per_batch=2, evaluation__every=3
    )
    path = run_to_end(config)
    records = records_of(path)
    assert len(records) == steps
    assert all(math.isfinite(value) for record in records for key, value in record.items() if key != "stage")
    assert all(math.isfinite(record["evaluation/accuracy"]) for record in records_of(path, "evaluation"))
    if records:
        assert any(abs(record.get("loss/value", 0.0)) > 0 for record in records)
        assert any(record.get("loss/kl_old", 0.0) > 0 for record in records)


# Dynamic sampling


def sampling_counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """(step, round, rollouts) of every call that samples."""
    original, calls = lampo.train.sample_and_score, []

    def counted(session: Any, problems_P: Any, step: int, round_: int, stopwatch: Any) -> Any:
        groups_P = original(session, problems_P, step, round_, stopwatch)
        calls.append((step, round_, sum(len(group.rollouts_G) for group in groups_P)))
        return groups_P

    monkeypatch.setattr(lampo.train, "sample_and_score", counted)
    return calls


def test_dynamic_sampling_keeps_mixed_groups_and_counts_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = sampling_counted(monkeypatch)
    path = run_to_end(bits_config(tmp_path, sampling__resample=2))
    rounds: set[int] = set()
    for record in records_of(path):
        here = [(round_, count) for step, round_, count in calls if step == record["step"]]
        assert [round_ for round_, _ in here] == list(range(len(here)))
        assert len(here) <= 1 + 2
        assert record["rollouts/sampled"] == sum(count for _, count in here)
        groups = read_groups(path, record["step"])
        statuses = [{rollout["status"] for rollout in group["rollouts"]} for group in groups]
        assert all(status == {"right", "wrong"} for status in statuses)
        assert len(groups) == 3 or len(here) == 3  # full, or the rounds are over
        kept_of_first = (
            3 - here[1][1] // 4 if len(here) > 1 else 3
        )  # a further round asks for what is missing, and no more
        assert here[0][1] == 3 * 4
        assert 0 <= kept_of_first <= 3
        assert record["rollouts/tokens"] >= sum(rollout["length"] for group in groups for rollout in group["rollouts"])
        assert record["advantage/groups_without_spread"] == 0
        rounds.add(len(here))
    assert rounds > {1}  # some steps were full at once, others were not


def test_dynamic_sampling_that_finds_nothing_stops_and_keeps_the_first_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = sampling_counted(monkeypatch)
    path = run_to_end(bits_config(tmp_path, answers="7", sampling__resample=3, training__steps=2))
    assert calls == [(step, round_, 12) for step in (1, 2) for round_ in range(4)]
    for record in records_of(path):
        assert record["rollouts/sampled"] == 4 * 12
        assert record["reward/correctness"] == 0
        assert len(read_groups(path, record["step"])) == 3
        assert "loss/value" not in record  # nothing to learn from


def test_without_dynamic_sampling_every_group_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = sampling_counted(monkeypatch)
    path = run_to_end(bits_config(tmp_path, training__steps=3))
    assert calls == [(step, 0, 12) for step in (1, 2, 3)]
    groups = [group for step in (1, 2, 3) for group in read_groups(path, step)]
    assert len(groups) == 9
    assert any(len({rollout["status"] for rollout in group["rollouts"]}) == 1 for group in groups)


def test_a_resumed_run_with_dynamic_sampling_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    config = bits_config(tmp_path, method="dapo", training__updates_per_batch=2)
    expected = run_to_end(config)
    assert any(record["rollouts/sampled"] > 12 for record in records_of(expected)[4:])
    path = tmp_path / "again"
    shutil.copytree(expected, path)
    shutil.rmtree(path / "checkpoints" / "train-000006")
    assert resume(path) == []
    assert curve(path) == curve(expected)
    for step in range(1, 7):
        name = f"rollouts/{step:06d}.jsonl.gz"
        assert (path / name).read_bytes() == (expected / name).read_bytes()
    for name in ("model.safetensors", "training/optimizer.safetensors"):
        ours, theirs = (load_file(run / "checkpoints" / "train-000006" / name) for run in (path, expected))
        assert ours.keys() == theirs.keys()
        assert all(ours[key].equal(theirs[key]) for key in ours)


# LamPO with ideas of the others


def test_lampo_with_clip_higher_token_loss_sequence_ratio_and_dynamic_sampling(tmp_path: Path) -> None:
    loss = {"surrogate": "sequence", "clip_low": 0.01, "clip_high": 0.02, "aggregation": "token"}
    config = bits_config(
        tmp_path, method="lampo", loss=loss, sampling__resample=2, training__updates_per_batch=2, training__steps=3
    )
    assert config.advantage.model_dump()["scale"] == "group_std"
    records = records_of(run_to_end(config))
    assert len(records) == 3
    assert all("advantage/saturation" in record for record in records)
    assert all(math.isfinite(record["loss/value"]) for record in records)


# A run without a step, and the ends of a run


def test_cot_measures_and_ends_with_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_config(bits_config(tmp_path, evaluation__final_samples=4)))
    monkeypatch.setattr(sys, "argv", ["lampo", "train", str(recipe), "--set", "method=cot"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert not exit_.value.code
    path = tmp_path / "small"
    assert f"report: {path / 'report.html'}" in capfd.readouterr().out
    (record,) = curve(path)
    assert (record["stage"], record["step"], record["evaluation/samples"]) == ("evaluation", 0, 4)
    assert (path / "report.html").stat().st_size > 10_000


def test_leaving_out_every_problem_is_told(tmp_path: Path) -> None:
    with pytest.raises(LampoError, match=r"No problem is left to evaluate on: evaluation\.skip is 1000"):
        run_to_end(bits_config(tmp_path, evaluation__skip=1000))


def test_samples_at_the_ends_and_problems_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, asked = lampo.train.evaluate, []

    def recorded(policy: Any, sampler: Any, problems: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append([problem.id for problem in problems])
        return original(policy, sampler, problems, *args, **kwargs)

    monkeypatch.setattr(lampo.train, "evaluate", recorded)
    options = {"every": 2, "problems": 4, "final_problems": 6, "final_samples": 3, "skip": 5}
    config = bits_config(tmp_path, evaluation=options, training__steps=4)
    first, middle, last = records_of(run_to_end(config), "evaluation")
    heldout = [problem.id for problem in config.task.load().heldout]
    assert asked == [heldout[5:11], heldout[5:9], heldout[5:11]]
    for record in (first, last):
        assert (record["evaluation/problems"], record["evaluation/samples"]) == (6, 3)
        assert record["evaluation/accuracy"] <= record["evaluation/pass_at_k"] <= 1
    assert (middle["evaluation/problems"], middle["evaluation/samples"]) == (4, 1)
    assert "evaluation/pass_at_k" not in middle  # of one sample it is the accuracy
