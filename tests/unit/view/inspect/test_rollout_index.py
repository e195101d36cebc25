"""The index of a run's shards, which the viewer lists: `store/rollouts.py`."""

import gzip
import json
import os
import re
from pathlib import Path

import pytest

from lampo.store.rollouts import entry, read_group, read_groups, read_index, shard_path, write_shard
from lampo.types import LampoError
from lampo.view.inspect.export import export
from lampo.view.inspect.source import open_source

from ....helpers.recorded_groups import group, groups_of, rollout


def listed(run: Path) -> dict[int, list]:
    return {step: entries for step, (_, entries) in read_index(run)[0].items()}


def expected(*steps: int) -> dict[int, list]:
    return {step: [entry(each) for each in groups_of(step)] for step in steps}


def test_an_entry_says_what_one_filters_by() -> None:
    mixed, hard = (entry(each) for each in groups_of(1))
    assert mixed.marks == ["mixed", "unknown", "cut"]
    assert (mixed.verdicts, mixed.reward, mixed.spread, mixed.advantage) == ("rwu", 0.5, 1.0, 2.0)
    assert hard.marks == ["wrong", "flat"]
    assert entry(group(1, "a", rollout("unknown", 0.0))).marks == ["unknown"]
    assert entry(group(1, "a", rollout("right", 0.0))).marks == ["right"]  # one alone has no spread, not a spread of 0


def test_training_writes_the_index_and_nothing_is_read_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lampo.store.rollouts.read_groups", None)
    assert listed(run) == expected(1, 2, 3)


def test_a_run_of_an_older_version_is_indexed_once(run: Path) -> None:
    index = run / "rollouts" / "index.jsonl"
    index.unlink()
    for step in (1, 2, 3):
        old = [each | {"rollouts": [without_tokens(one) for one in each["rollouts"]]} for each in groups_of(step)]
        shard_path(run, step).write_bytes(gzip.compress("".join(json.dumps(each) + "\n" for each in old).encode()))
    told: list[int] = []
    assert {step: entries for step, (_, entries) in read_index(run, tell=told.append)[0].items()} == expected(1, 2, 3)
    assert listed(run) == expected(1, 2, 3)
    read_index(run, tell=told.append)
    assert told == [3]
    assert open_source(run).group("2", 1)["rollouts"][0]["pieces"] is None


def without_tokens(rollout: dict) -> dict:
    return {key: value for key, value in rollout.items() if key not in ("pieces", "logprobs")}


def test_a_resumed_run_is_listed_as_it_was_done_last(run: Path) -> None:
    shard_path(run, 3).unlink()
    assert listed(run) == expected(1, 2)
    again = [group(3, "again", rollout("right", -0.1))]
    write_shard(run, 3, again)
    assert listed(run) == expected(1, 2) | {3: [entry(again[0])]}


@pytest.mark.parametrize("torn", [b'\n{"step": 4, "gro', b"\n[1]", b"\nnull", b'\n{"step": 3, "groups": [{"id": 1}]}'])
def test_a_torn_line_of_the_index_harms_no_other(run: Path, torn: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with (run / "rollouts" / "index.jsonl").open("ab") as stream:
        stream.write(torn)
    write_shard(run, 4, groups_of(4))
    monkeypatch.setattr("lampo.store.rollouts.read_groups", None)
    assert listed(run) == expected(1, 2, 3, 4)


def test_what_is_known_is_taken_over_and_what_changed_is_not(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, _ = read_index(run)
    monkeypatch.setattr("lampo.store.rollouts._index_lines", None)
    again, _ = read_index(run, known)
    assert again[1][1] is known[1][1]
    monkeypatch.undo()
    write_shard(run, 1, groups_of(7))
    again, _ = read_index(run, known)
    assert again[1][1] == expected(7)[7]
    assert again[2][1] is known[2][1]


def test_a_damaged_shard_is_a_complaint_and_the_others_are_shown(run: Path) -> None:
    shard_path(run, 2).write_bytes(shard_path(run, 2).read_bytes()[:-20])
    shard_path(run, 3).write_bytes(gzip.compress(b'{"no": "group"}\n'))
    found, complaints = read_index(run)
    assert list(found) == [1]
    assert [re.sub(r".*/rollouts/", "", complaint) for complaint in complaints] == [
        "000002.jsonl.gz cannot be read (Compressed file ended before the end-of-stream marker was reached): "
        "it was probably cut short; delete it",
        "000003.jsonl.gz does not hold the groups of a training step",
    ]
    with pytest.raises(LampoError, match="no group 0 in step 2"):
        open_source(run).group("2", 0)


def deep(depth: int) -> bytes:
    return b'{"problem": ' + b"[" * depth + b"]" * depth + b', "rollouts": []}\n'


UNSHARDED = {
    "a folder": ("it is a folder", lambda path: path.mkdir()),
    "a dangling link": ("it is a link to nowhere, which is not there", lambda path: path.symlink_to("nowhere")),
    "a link to itself": ("Too many levels of symbolic links", lambda path: path.symlink_to(path)),
    "a pipe": ("it is no file", lambda path: os.mkfifo(path)),
    "nested deeply": ("nested too deeply", lambda path: path.write_bytes(gzip.compress(deep(100_000)))),
    "no group": ("does not hold the groups", lambda path: path.write_bytes(gzip.compress(deep(3)))),
    "an endless number": (
        "does not hold the groups of a training step (int too large to convert to float)",
        lambda path: path.write_bytes(
            gzip.compress(json.dumps(group(4, "huge", rollout("right", 0.0) | {"total": 10**400})).encode())
        ),
    ),
    "another verdict": (
        "does not hold the groups",
        lambda path: path.write_bytes(
            gzip.compress(json.dumps(group(4, "odd", rollout("right", 0.0) | {"status": ""})).encode())
        ),
    ),
    "not packed": ("probably cut short", lambda path: path.write_bytes(b"plain")),
}


@pytest.mark.parametrize("kind", UNSHARDED)
def test_whatever_a_shard_is_the_others_are_shown(run: Path, tmp_path: Path, kind: str) -> None:
    said, make = UNSHARDED[kind]
    make(shard_path(run, 4))
    assert list(listed(run)) == [1, 2, 3]
    source = open_source(run)
    for _ in range(2):  # when it is asked again too
        (complaint,) = source.index()["complaints"]
        assert complaint.startswith(str(shard_path(run, 4)))
        assert said in complaint
    assert export(source, tmp_path / "page.html") == 6


def test_a_run_that_may_only_be_read_opens(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "rollouts" / "index.jsonl").unlink()
    (run / "rollouts" / "index.jsonl").mkdir()  # nothing can be appended to it
    assert listed(run) == expected(1, 2, 3)


def test_one_group_is_read_without_the_others(run: Path) -> None:
    assert read_group(run, 2, 1) == groups_of(2)[1] == read_groups(run, 2)[1]
    with pytest.raises(LampoError, match="no group 2"):
        read_group(run, 2, 2)
