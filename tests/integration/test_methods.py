"""Every method trains in miniature; dynamic sampling, the untrained model, and measuring with several samples."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lampo import cli
from lampo.config.explain import dump_config
from lampo.config.methods import METHODS
from lampo.config.schema import SamplingOptions, TrainConfig
from lampo.learner.batch import Batch
from lampo.store.rollouts import read_groups
from lampo.train.loop import sample_groups
from lampo.train.run import Run
from lampo.train.session import Stopped
from lampo.train.step_record import Stopwatch, rollout_record
from lampo.types import Group, LampoError, Problem, Reward, Rollout, Verdict
from lampo.view.report.report_page import write_report

from ..helpers.small_run import curve, resume, run_to_end, small_config


def steps(path: Path, stage: str = "train") -> list[dict[str, Any]]:
    return [record for record in curve(path) if record["stage"] == stage]


def with_method(folder: Path, name: str, *settings: str, **changes: Any) -> TrainConfig:
    """The small run under a method; `settings` come after it. ROUGE-L tells the responses of this model apart, which are all wrong."""
    changes = {"training__steps": 3, "evaluation__problems": 2, "evaluation__every": 100, **changes}
    return small_config(folder, f"method={name}", "rewards.rouge_l.weight=0.5", *settings, **changes)


# Every method


@pytest.mark.parametrize("name", [name for name in METHODS if name != "cot"])
def test_every_method_trains(name: str, tmp_path: Path) -> None:
    path = run_to_end(with_method(tmp_path, name, "training.updates_per_batch=2"))
    records = steps(path)
    assert [record["step"] for record in records] == [1, 2, 3]
    for record in records:
        assert all(math.isfinite(value) for key, value in record.items() if key != "stage")
    updated = [record for record in records if "loss/value" in record]
    assert updated
    assert all(record["loss/value"] != 0 for record in updated)
    assert any(record["loss/kl_old"] > 0 for record in updated)  # the second update saw a ratio
    assert (path / "checkpoints" / "train-000003").is_dir()


def test_lampo_takes_up_the_ideas_of_others(tmp_path: Path) -> None:
    ideas = {
        "plain": [],
        "clip higher": ["loss.clip_low=1e-4", "loss.clip_high=2e-4"],  # narrow: three steps move little
        "token-level loss": ["loss.aggregation=token"],
        "sequence ratio": ["loss.surrogate=sequence", "loss.clip_low=3e-4", "loss.clip_high=4e-4"],
        "KL": ["loss.kl_coefficient=0.1"],
    }
    advantages, gradients = {}, {}
    for idea, settings in ideas.items():
        path = run_to_end(with_method(tmp_path / idea, "lampo", "training.updates_per_batch=2", *settings))
        advantages[idea] = [[rollout["advantage"] for rollout in group["rollouts"]] for group in read_groups(path, 1)]
        gradients[idea] = [record["optimizer/gradient_norm"] for record in steps(path)]
    assert all(values == advantages["plain"] for values in advantages.values())  # the idea is no part of the advantage
    assert len(set(map(tuple, gradients.values()))) == len(ideas)  # and each changes the update


@pytest.mark.parametrize("name", ["dr_grpo", "gspo", "gvpo", "reinforce_pp"])
def test_a_method_is_the_same_for_every_split(name: str, tmp_path: Path) -> None:
    norms = []
    for budget in (30, 10_000):
        config = with_method(
            tmp_path, name, f"training.tokens_per_microbatch={budget}", training__steps=1, warmstart__steps=0
        )
        norms.append(steps(run_to_end(config))[0]["optimizer/gradient_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    assert norms[0] > 0


# Dynamic sampling


def make_group(problem: Problem, statuses: str) -> Group:
    """A group whose verdicts are the letters: r(ight), w(rong), u(nknown)."""
    one = torch.ones(1)
    names: dict[str, Any] = {"r": "right", "w": "wrong", "u": "unknown"}
    return Group(
        problem,
        tuple(Rollout(one.long(), one.long(), -one, True, "") for _ in statuses),
        tuple(Verdict(names[letter]) for letter in statuses),
        tuple(Reward({}, math.nan) if letter == "u" else Reward({}, float(letter == "r")) for letter in statuses),
    )


class Rounds:
    """A session whose rounds of sampling give the verdicts written down, a word a problem."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, resample: int, *rounds: str) -> None:
        self.rounds = [words.split() for words in rounds]
        self.asked: list[tuple[int, int]] = []
        sampling = SamplingOptions(problems_per_step=3, group_size=2, resample=resample)
        run = SimpleNamespace(problems=self.problems)
        config = SimpleNamespace(sampling=sampling)
        self.session: Any = SimpleNamespace(run=run, config=config, task=SimpleNamespace(train=[]))
        monkeypatch.setattr("lampo.train.loop.sample_and_score", self.sample_and_score)

    def problems(self, _: Any, step: int, count: int, stage: str, round_: int) -> list[Problem]:
        return [Problem(f"{round_}.{index}", "?", "1") for index in range(count)]

    def sample_and_score(
        self, _: Any, problems_P: Sequence[Problem], step: int, round_: int, stopwatch: Any
    ) -> list[Group]:
        self.asked.append((round_, len(problems_P)))
        words = self.rounds[round_]
        assert len(words) == len(problems_P)
        return [make_group(problem, word) for problem, word in zip(problems_P, words, strict=True)]

    def groups(self) -> tuple[list[str], list[str]]:
        kept, aside = sample_groups(self.session, 1, Stopwatch())
        return [group.problem.id for group in kept], [group.problem.id for group in aside]


def test_without_dynamic_sampling_every_group_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = Rounds(monkeypatch, 0, "rr rw ww")
    assert rounds.groups() == (["0.0", "0.1", "0.2"], [])


def test_only_the_missing_groups_are_sampled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = Rounds(monkeypatch, 3, "rr rw ww", "ww rw", "rw")
    assert rounds.groups() == (["0.1", "1.2", "2.2"], ["0.0", "0.2", "1.1"])
    assert rounds.asked == [(0, 3), (1, 2), (2, 1)]  # and the fourth round was not needed


def test_a_full_batch_needs_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = Rounds(monkeypatch, 3, "rw rw wr")
    assert rounds.groups() == (["0.0", "0.1", "0.2"], [])
    assert rounds.asked == [(0, 3)]


def test_the_rounds_are_bounded_and_what_there_is_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = Rounds(monkeypatch, 2, "rr ww ww", "rw ww ww", "ww rr")
    assert rounds.groups() == (["1.0"], ["0.0", "0.1", "0.2", "1.1", "1.2", "2.1", "2.2"])
    assert rounds.asked == [(0, 3), (1, 3), (2, 2)]


def test_where_nothing_is_mixed_the_first_groups_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = Rounds(monkeypatch, 1, "rr ww ww", "ww rr rr")
    assert rounds.groups() == (["0.0", "0.1", "0.2"], ["1.0", "1.1", "1.2"])  # no more than a step holds


def test_an_unknown_verdict_does_not_make_a_group_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = Rounds(monkeypatch, 1, "ru uw rw", "rw rw")
    assert rounds.groups() == (["0.2", "1.1", "1.2"], ["0.0", "0.1"])


def test_scores_tell_wrong_responses_apart() -> None:
    def group(*verdicts: Verdict) -> Group:
        made = make_group(Problem("p", "?", "1"), "w" * len(verdicts))
        return dataclasses.replace(made, verdicts_G=verdicts)

    better, worse = (Verdict("wrong", score=score, graded=True) for score in (0.5, 0.25))
    assert SamplingOptions().keeps(group(better, worse))
    assert not SamplingOptions().keeps(group(better, better, Verdict("unknown")))
    assert not SamplingOptions().keeps(group(Verdict("wrong", score=0.5), Verdict("wrong", score=0.25)))
    assert not SamplingOptions(accuracy_range=(0.2, 0.8)).keeps(group(better, worse))


def test_the_share_of_right_responses_is_logged_beside_what_they_are_worth() -> None:
    group = make_group(Problem("p", "?", "1"), "rwwu")
    rewards_G = tuple(
        Reward({"verifier": value}, math.nan if value is None else value) for value in (1, 0.7, 0.4, None)
    )
    record = rollout_record([dataclasses.replace(group, rewards_G=rewards_G)], Batch((), num_rows=4, num_tokens=4))
    assert record["rollouts/right"] == 1 / 3
    assert record["reward/verifier"] == pytest.approx((1 + 0.7 + 0.4) / 3)


@pytest.fixture
def chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the responses are right, told by their tokens: some groups are mixed and some are not."""

    def verdicts(self: Any, rollouts_PG: Any, **_: Any) -> list[list[Verdict]]:
        return [
            [Verdict("right" if rollout.completion_ids.sum() % 3 == 0 else "wrong") for rollout in rollouts_G]
            for rollouts_G in rollouts_PG
        ]

    monkeypatch.setattr("lampo.train.loop.Verification.verdicts", verdicts)


DYNAMIC = {"sampling__resample": 2, "warmstart__steps": 1, "evaluation__problems": 2}
ROWS = 3 * 4


@pytest.mark.usefixtures("chance")
def test_kept_groups_are_mixed_and_all_rollouts_are_counted(tmp_path: Path) -> None:
    path = run_to_end(small_config(tmp_path, **DYNAMIC))
    sampled = []
    for record in steps(path):
        groups = read_groups(path, record["step"])
        for group in groups:
            assert {rollout["status"] for rollout in group["rollouts"]} == {"right", "wrong"}
        sampled.append(record["rollouts/sampled"])
        assert ROWS <= sampled[-1] <= 3 * ROWS
        assert sampled[-1] % 4 == 0
        assert len(groups) == 3 or (len(groups) < 3 and sampled[-1] > ROWS + 4)  # or the three rounds were over
    assert max(sampled) > ROWS


@pytest.mark.usefixtures("chance")
def test_a_resumed_run_with_dynamic_sampling_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run_to_end(small_config(tmp_path / "whole", **DYNAMIC))
    assert any(record["rollouts/sampled"] > ROWS for record in steps(expected))
    log = Run.log

    def interrupting(run: Run, stage: str, step: int, record: dict[str, float]) -> Any:
        if (stage, step) == ("train", 3):
            os.kill(os.getpid(), signal.SIGINT)
        return log(run, stage, step, record)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", interrupting)
        with pytest.raises(Stopped):
            run_to_end(small_config(tmp_path, **DYNAMIC))
    path = tmp_path / "small"
    resume(path)
    assert curve(path) == curve(expected)
    for step in range(1, 7):
        name = f"rollouts/{step:06d}.jsonl.gz"
        assert (path / name).read_bytes() == (expected / name).read_bytes()
    weights = "checkpoints/train-000006/model.safetensors"
    assert (path / weights).read_bytes() == (expected / weights).read_bytes()


@pytest.mark.parametrize("correctness", [0.0, 1.0])
def test_batches_that_are_all_wrong_or_all_right_end_gracefully(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, correctness: float
) -> None:
    def verdicts(self: Any, rollouts_PG: Any, **_: Any) -> list[list[Verdict]]:
        return [[Verdict("right" if correctness else "wrong") for _ in rollouts_G] for rollouts_G in rollouts_PG]

    monkeypatch.setattr("lampo.train.loop.Verification.verdicts", verdicts)
    path = run_to_end(small_config(tmp_path, sampling__resample=2, rewards__rouge_l__weight=0.0, training__steps=2))
    for record in steps(path):
        assert record["reward/verifier"] == correctness
        assert record["rollouts/sampled"] == 3 * ROWS
        assert record["advantage/mean_absolute"] == 0
        assert "loss/value" not in record
        assert len(read_groups(path, record["step"])) == 3
    assert write_report(path).is_file()


# The untrained model, and measuring


def test_cot_is_measured_and_has_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_config(small_config(tmp_path, optimizer__schedule="cosine", evaluation__final_samples=3)))
    monkeypatch.setattr(sys, "argv", ["lampo", "train", str(recipe), "--set", "method=cot"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert "report.html" in capsys.readouterr().out
    path = tmp_path / "small"
    assert steps(path) == []
    (record,) = steps(path, "evaluation")
    assert (record["step"], record["evaluation/samples"]) == (0, 3)
    assert (path / "report.html").is_file()
    before = curve(path)
    resume(path)
    assert curve(path) == before


def test_cot_without_a_warm_start_resumes_too(tmp_path: Path) -> None:
    path = run_to_end(with_method(tmp_path, "cot", warmstart__steps=0))
    before = curve(path)
    resume(path)
    assert curve(path) == before


@pytest.mark.usefixtures("chance")
def test_the_ends_are_measured_with_more_samples(tmp_path: Path) -> None:
    path = run_to_end(small_config(tmp_path, evaluation__final_samples=4, evaluation__skip=10))
    records = steps(path, "evaluation")
    assert [record["evaluation/samples"] for record in records] == [4, 1, 4]
    assert [record["evaluation/problems"] for record in records] == [
        6,
        6,
        6,
    ]  # 16 are held out, the first 10 are skipped
    assert ["evaluation/pass_at_k" in record for record in records] == [True, False, True]
    for record in (records[0], records[2]):
        assert record["evaluation/accuracy"] <= record["evaluation/pass_at_k"] <= 4 * record["evaluation/accuracy"]


def test_skipping_all_problems_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(LampoError, match=r"evaluation\.skip is 16, and there are 16 held-out problems"):
        run_to_end(small_config(tmp_path, evaluation__skip=16))
    assert not (tmp_path / "small").exists()
