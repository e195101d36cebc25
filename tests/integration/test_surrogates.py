"""Half a character, as JSON may hold it, in a data file: replaced at the door, told, and written everywhere."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from lampo.model.pretrained import decode
from lampo.store.rollouts import read_groups, write_shard
from lampo.store.text import writable
from lampo.train.finish import finish
from lampo.train.run import Run

from ..helpers.small_run import resume, run_to_end, small_config

HALF = "\ud83d"


def test_a_run_whose_data_hold_half_a_character(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"prompt": f"{a}+{b}=", "answer": str(a + b), "reference": str(a + b)} for a in range(6) for b in range(6)]
    rows[3] |= {"reference": f"{HALF}3", "note": HALF}
    rows[8]["answer"] = f"{HALF}"
    data = tmp_path / "problems.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))  # escaped, as JSON allows
    changes = {
        "task": {"name": "files", "train": str(data), "heldout_fraction": 0.2, "columns": {"reference": "reference"}},
        "verifier": {"name": "exact"},
        "model__characters": "0123456789+=\n\ufffd",
        "warmstart__steps": 2,
        "sampling__problems_per_step": 24,
        "training__steps": 2,
    }
    path = run_to_end(small_config(tmp_path, **changes))
    assert "2 rows hold half a character, which is replaced. The first is in line 4." in caplog.text
    resume(path, "training.steps=3")
    run, _ = Run.resume(path)
    run.close()
    finish(run)
    assert any("\ufffd" in str(group) for step in (1, 2, 3) for group in read_groups(path, step))


def test_what_comes_in_elsewhere_is_written_as_json_writes_it(tmp_path: Path) -> None:
    (tmp_path / "rollouts").mkdir()
    rollout = {"text": "x", "status": "unknown", "detail": HALF, "total": None, "finished": True}
    group = {"step": 1, "problem": {"id": HALF, "prompt": "?", "answer": ""}, "rollouts": [rollout]}
    write_shard(tmp_path, 1, [group])
    assert read_groups(tmp_path, 1) == [group]


def test_what_a_model_writes_is_made_writable() -> None:
    tokenizer = SimpleNamespace(decode=lambda ids, **_: "".join(map(chr, ids)))
    assert decode(tokenizer, [0x34, 0xD83D]) == "4\ufffd"


def test_pairs_stay_and_what_has_no_half_is_the_same_object() -> None:
    plain = {"a": ["😀", 1, {"b": None}]}
    assert writable(plain) is plain
    assert writable({f"{HALF}k": [f"a{HALF}"]}) == {"\ufffdk": ["a\ufffd"]}
