"""What verl wrote for a recipe becomes a run directory. verl itself wrote the files: tests/helpers/trainer_dumps.py. No verl needed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'lampo[verl]'")

from lampo import LampoError
from lampo.adapters.verl.engine import _write_inputs
from lampo.adapters.verl.follow import METRICS_FILE, Follower, evaluation_record, translated
from lampo.store.metrics import read_metrics
from lampo.store.rollouts import read_groups, rollout_steps
from lampo.train.run import Run
from lampo.view.console import Progress
from lampo.view.inspect.pairs import pairs
from lampo.view.trackers import open_trackers

from ....helpers.verl_run import config_of

WRITTEN = Path(__file__).parents[3] / "data" / "trainers" / "verl-0.9.1-lampo"


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[tuple[Run, Path, Follower]]:
    """A run that is about to take in what verl wrote, and verl's folder."""
    run, folder = Run.create(config_of(tmp_path)), tmp_path / "small" / "verl"
    with ExitStack() as stack, Progress("small") as progress:
        stack.callback(run.close)
        asked, tokenizer, longest = _write_inputs(run, folder, progress, checked=False)
        assert longest == 6
        for name in ("rollouts", "evaluations"):
            shutil.copytree(WRITTEN / name, folder / name)
        yield run, folder, Follower(run, folder, asked, tokenizer, progress, open_trackers([], run.path, "small", {}))


def records(run: Run, stage: str) -> list[dict[str, Any]]:
    return [record for record in read_metrics(run.path) if record["stage"] == stage]


def test_a_step_is_taken_in_when_its_line_is_whole(follower: tuple[Run, Path, Follower]) -> None:
    run, folder, follows = follower
    follows.poll()  # verl has written nothing yet
    lines = (WRITTEN / METRICS_FILE).read_bytes().splitlines(keepends=True)
    file = folder / METRICS_FILE
    file.write_bytes(lines[0] + lines[1][:50])
    follows.poll()
    assert (follows.step, rollout_steps(run.path)) == (0, [])
    assert [record["step"] for record in records(run, "evaluation")] == [0]
    file.write_bytes(b"".join(lines))
    follows.poll()
    follows.poll()
    assert (follows.step, rollout_steps(run.path)) == (3, [1, 2, 3])
    assert [record["step"] for record in records(run, "train")] == [1, 2, 3]
    assert [record["step"] for record in records(run, "evaluation")] == [0, 2, 3]
    assert not [*folder.glob("rollouts/*.jsonl"), *folder.glob("evaluations/*.jsonl")]


def test_rollouts_have_verl_s_advantages_and_unknown_ones_have_none(follower: tuple[Run, Path, Follower]) -> None:
    run, folder, follows = follower
    shutil.copyfile(WRITTEN / METRICS_FILE, folder / METRICS_FILE)
    follows.poll()
    unknown = 0
    for step in (1, 2, 3):
        groups = read_groups(run.path, step)
        assert [len(group["rollouts"]) for group in groups] == [4] * 4
        for group in groups:
            apart = pairs(group, {"name": "pairwise"})
            assert apart is not None
            assert [each["advantage"] for each in group["rollouts"]] == pytest.approx(apart.pairwise_G, abs=1e-5)
            unknown += sum(each["status"] == "unknown" and each["total"] is None for each in group["rollouts"])
    assert unknown == round(16 * sum(record["rollouts/unknown"] for record in records(run, "train"))) > 0


def test_a_dump_that_is_not_there_is_told(follower: tuple[Run, Path, Follower]) -> None:
    _, folder, follows = follower
    (folder / "rollouts" / "1.jsonl").unlink()
    shutil.copyfile(WRITTEN / METRICS_FILE, folder / METRICS_FILE)
    with pytest.raises(LampoError, match=r"verl has not written .*1.jsonl, which it was asked for"):
        follows.poll()


def test_metrics_have_our_names_and_the_others_verl_s() -> None:
    told = json.loads((WRITTEN / METRICS_FILE).read_text().splitlines()[1])["data"]
    record = translated(told)
    assert record["optimizer/gradient_norm"] == told["actor/grad_norm"]
    assert record["time/score"] == sum(told[f"timing_s/{part}"] for part in ("old_log_prob", "ref", "adv"))
    assert record["verl/actor/pg_clipfrac"] == told["actor/pg_clipfrac"]
    assert not any("val-" in name or "critic" in name for name in record)


def row(verdict: str, length: int = 5) -> dict[str, Any]:
    return {"verdict": verdict, "length": length, "detail": "", "pred": ""}


def test_an_evaluation_leaves_out_what_nobody_could_judge(tmp_path: Path) -> None:
    rows_PG = [[row("right"), row("unknown")], [row("right", 12), row("wrong")], [row("unknown"), row("unknown")]]
    record = evaluation_record(dict(zip("abc", rows_PG, strict=True)), config_of(tmp_path), "evaluation/")
    assert sorted(record["evaluation/by_problem"], key=str) == [0.5, 1.0, None]
    assert record["evaluation/accuracy"] == (1 + 0.5) / 2
    assert (record["evaluation/problems"], record["evaluation/samples"], record["evaluation/pass_at_k"]) == (2, 2, 1)
    assert record["evaluation/unknown"] == 1 - 3 / 6
    assert record["evaluation/truncated"] == 1 / 6
    with pytest.raises(LampoError, match="Every verdict of the evaluation is unknown"):
        evaluation_record({"c": rows_PG[2]}, config_of(tmp_path), "evaluation/")
