"""What a folder holds: a run or an evaluation."""

import shutil
from pathlib import Path

import pytest

from lampo.types import LampoError
from lampo.view.inspect.export import export
from lampo.view.inspect.source import open_source


@pytest.mark.parametrize(
    "config",
    [
        "a: &a [1, 1]\nadvantage: {name: *a}\n",
        "advantage: " + "[" * 400,
        "advantage: !!int foo\n",
        "7",
        "\0",
        "a: 2024-99-99",
    ],
)
def test_whatever_the_settings_are_the_rollouts_are_shown(run: Path, config: str) -> None:
    (run / "config.yaml").write_text(config)
    index = open_source(run).index()
    assert (len(index["groups"]), index["advantage"]) == (6, {})


@pytest.mark.parametrize(
    ("loss", "clip"),
    [
        ("{surrogate: token, clip_low: 0.2, clip_high: 0.28}", [0.8, 1.28]),
        ("{surrogate: sequence, clip_low: 3.0e-4, clip_high: 4.0e-4}", None),  # no token's ratio is clipped
        ("7", None),
    ],
)
def test_the_index_says_where_ratios_of_tokens_are_clipped(run: Path, loss: str, clip: list[float] | None) -> None:
    with (run / "config.yaml").open("a") as file:
        file.write(f"loss: {loss}\n")
    assert open_source(run).index()["clip"] == clip


def test_one_benchmark_alone_and_its_export(evaluation: Path, tmp_path: Path) -> None:
    source = open_source(evaluation / "aime24")
    assert source.index()["places"] == ["aime24"]
    assert export(source, tmp_path / "file.html") == 2


def test_a_record_that_is_being_written_is_left_out_and_a_damaged_one_is_said(evaluation: Path) -> None:
    file = evaluation / "aime24" / "records.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0] + '{"id": 3}\n' + lines[1] + lines[1][:30])
    source = open_source(evaluation)
    index = source.index()
    assert [line["id"] for line in index["groups"] if line["place"] == "aime24"] == ["aime24/0", "aime24/1"]
    assert "records.jsonl, line 2: not a record" in index["complaints"][0]
    assert source.group("aime24", 1)["problem"]["id"] == "aime24/1"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"[" * 100_000 + b"\n", "line 3: not a record (maximum recursion depth exceeded"),
        (b'{"responses": [{"status": []}], "id": 1}\n', "line 3: not a record (unhashable"),
        (None, "cannot be read: Is a directory"),
    ],
)
def test_whatever_a_record_is_the_others_are_shown(evaluation: Path, line: bytes | None, said: str) -> None:
    file = evaluation / "aime24" / "records.jsonl"
    if line is None:
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(file.read_bytes() + line)
    source = open_source(evaluation)
    for _ in range(2):
        index = source.index()
        (complaint,) = index["complaints"]
        assert said in complaint
        assert len(index["groups"]) == (2 if line is None else 4)


def test_a_record_that_has_changed_under_the_viewer_is_said(evaluation: Path) -> None:
    source = open_source(evaluation)
    source.index()
    (evaluation / "aime24" / "records.jsonl").write_text("{\n" * 50)
    with pytest.raises(LampoError, match="was changed and cannot be read"):
        source.group("aime24", 1)


def test_a_folder_of_something_else_is_refused(tmp_path: Path, run: Path) -> None:
    with pytest.raises(LampoError, match="There is no .*nowhere"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(LampoError, match="neither a run directory"):
        open_source(run.parent)
    shutil.rmtree(run / "rollouts")
    (run / "rollouts").mkdir()
    assert open_source(run).index()["groups"] == []
