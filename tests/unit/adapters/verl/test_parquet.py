"""Recipes as verl's data."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lampo import LampoError
from lampo.adapters.verl.parquet import overrides, rewards_of, write_parquet
from lampo.adapters.verl.reward import compute_score
from lampo.config.load import parse_config

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'lampo[verl]'")
import pyarrow.parquet

MINE = "prompt,answer,working,unit\nWhat is 7+5?,12,7+5=12,m\n"
OTHER = "prompt,answer,working,unit\nWhat is 1+1?,2,1+1=2,s\n"


def recipe(folder: Path, **changes: Any) -> Any:
    (folder / "mine.csv").write_text(MINE)
    (folder / "other.csv").write_text(OTHER)
    values = {
        "run": {"name": "mine"},
        "model": {"path": "Qwen/Qwen3-0.6B"},
        "task": {
            "name": "files",
            "train": str(folder / "mine.csv"),
            "heldout": str(folder / "other.csv"),
            "columns": {"reference": "working"},
        },
        "prompt": {"template": "{prompt} Think.", "system": "Be brief.", "chat_options": {"enable_thinking": False}},
        "verifier": {"name": "math"},
        "rewards": [{"name": "verifier"}, {"name": "rouge_l", "weight": 0.2}],
    }
    return parse_config(values | changes, "mine")


def test_a_row_is_what_verl_reads_and_what_compute_score_reads(tmp_path: Path) -> None:
    counts = write_parquet(recipe(tmp_path), tmp_path / "data")
    assert counts == {"train": 1, "test": 1}
    (row,) = pyarrow.parquet.read_table(tmp_path / "data" / "train.parquet").to_pylist()
    assert row["prompt"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 7+5? Think."},
    ]
    assert row["data_source"] == "lampo/files"
    assert json.loads(row["extra_info"]["fields"]) == {"unit": "m"}
    text = "7+5=12. So \\boxed{12}"
    said = asyncio.run(compute_score(row["data_source"], text, row["reward_model"]["ground_truth"], row["extra_info"]))
    assert said["reward/verifier"] == 1.0
    assert said["score"] == 1 + 0.2 * said["reward/rouge_l"]


def test_the_options_say_where_the_files_are_and_how_the_template_is_filled(tmp_path: Path) -> None:
    assert overrides(recipe(tmp_path), tmp_path) == [
        f"data.train_files={tmp_path}/train.parquet",
        f"data.val_files={tmp_path}/test.parquet",
        "+data.apply_chat_template_kwargs.enable_thinking=False",
        "reward.custom_reward_function.path=pkg://lampo.adapters.verl.reward",
    ]


def test_overlong_brings_the_manager_that_counts_tokens_and_what_verl_cannot_do_is_refused(tmp_path: Path) -> None:
    sampling = {"max_new_tokens": 1000}
    config = recipe(tmp_path, rewards=[{"name": "verifier"}, {"name": "overlong", "weight": 0.5}], sampling=sampling)
    said = overrides(config, tmp_path)
    assert "reward.reward_manager.name=CountingRewardManager" in said
    assert "data.max_response_length=1000" in said
    assert [reward["name"] for reward in json.loads(rewards_of(config))] == ["verifier", "overlong"]
    with pytest.raises(LampoError, match="likelihood"):
        write_parquet(recipe(tmp_path, rewards=[{"name": "likelihood"}]), tmp_path / "data")


def test_the_command_prints_the_options(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lampo.adapters.verl", "quickstart", str(tmp_path), "--set", "task.digits=1"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert process.stdout.splitlines()[0] == f"data.train_files={tmp_path}/train.parquet"
    assert "problems to train on" in process.stderr
    wrong = subprocess.run([*command[:3], "quickstrat", str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert wrong.returncode == 1
    assert "quickstart" in wrong.stderr
