"""`lampo verify` from the shell's side."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lampo.cli import app
from lampo.types import LampoError

ROWS = [
    {"completion": "It is 4.", "answer": "4"},
    {"completion": "It is 5.", "answer": 4},
    {"completion": [{"role": "assistant", "content": "4"}], "answer": "four"},
    {"completion": "4", "answer": "vier"},
]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_is_scored_and_the_unknown_are_told(tmp_path: Path) -> None:
    file, output = write(tmp_path / "responses.jsonl", ROWS), tmp_path / "verdicts.jsonl"
    result = CliRunner().invoke(app, ["verify", str(file), "--verifier", "numeric", "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert "right 1, wrong 1, unknown 2. 50.0% right of those verified" in result.output
    assert "the answer 'four' is not a number" in " ".join(result.output.split())
    verdicts = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["verdict"]["status"] for row in verdicts] == ["right", "wrong", "unknown", "unknown"]
    assert verdicts[1]["completion"] == "It is 5."


def test_half_a_surrogate_pair_costs_no_verdict(tmp_path: Path) -> None:
    rows = [{"completion": "4 \ud83d", "answer": "4"}, {"completion": "é 4", "answer": "\ud83d"}]
    file, output = write(tmp_path / "r.jsonl", rows), tmp_path / "verdicts.jsonl"
    result = CliRunner().invoke(app, ["verify", str(file), "--verifier", "numeric", "--output", str(output)])
    assert result.exit_code == 0, result.output
    verdicts = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["verdict"]["status"] for row in verdicts] == ["right", "unknown"]
    assert [row["completion"] for row in verdicts] == ["4 \N{REPLACEMENT CHARACTER}", "é 4"]
    assert "é" in output.read_text()


def test_what_models_and_files_say_is_shown_and_steers_nothing(tmp_path: Path) -> None:
    for text in ("[/red]", "[bold]four", "[link=file:///x]four", "\x1b[2Jfour\x07", "fo\u202eur", "{task}", "\ud83d"):
        file = write(tmp_path / "r.jsonl", [{"completion": text, "answer": text}])
        result = CliRunner().invoke(app, ["verify", str(file), "--verifier", "numeric"])
        assert result.exit_code == 0, (text, result.exception)
        assert "right 0, wrong 0, unknown 1" in result.output
        assert not set(result.output) & set("\x1b\x07\u202e")
        if "[" in text:
            assert text.replace("\x1b", "\\x1b").replace("\x07", "") in result.output.replace("\\\\", "\\")


def test_what_a_verifier_says_is_written_and_steers_nothing(tmp_path: Path) -> None:
    file, output = write(tmp_path / "r.jsonl", [{"completion": "half", "answer": "4"}]), tmp_path / "verdicts.jsonl"
    own = ["--verifier", "python:tests.helpers.pathological.verify"]
    result = CliRunner().invoke(app, ["verify", str(file), *own, "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert json.loads(output.read_text())["verdict"]["extracted"] == "4\ud83d"
    assert r"half \ud83d, \x1b[2J, \u202e" in result.output


def test_an_own_function_and_its_limits(tmp_path: Path) -> None:
    file = write(tmp_path / "r.jsonl", [{"said": text, "gold": "4"} for text in ("4", "5", "spin")])
    result = CliRunner().invoke(
        app,
        [
            "verify",
            str(file),
            "--verifier",
            "python:tests.helpers.pathological.verify",
            *["--set", "timeout_s=1", "--completion", "said"],
        ],
    )
    assert result.exit_code == 0, result.output
    assert "right 1, wrong 1, unknown 1" in result.output
    assert "took longer than 1 s" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--verifier", "numerik"], "Known: numeric, exact"),
        (["--verifier", "numeric", "--set", "marker"], "write it as"),
        (["--verifier", "numeric", "--set", "limit=3"], "cannot be set up"),
        (["--verifier", "numeric", "--completion", "answers"], "no column 'answers' for the completion"),
        (["--verifier", "python:no.such.module"], "There is no module"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, arguments: list[str], message: str) -> None:
    file = write(tmp_path / "r.jsonl", ROWS)
    result = CliRunner().invoke(app, ["verify", str(file), *arguments])
    assert isinstance(result.exception, LampoError)
    assert message in str(result.exception)


def test_rows_without_text_and_files_without_rows(tmp_path: Path) -> None:
    for rows, message in (
        ([{"completion": None, "answer": "4"}], "Row 1, column 'completion': holds NoneType"),
        ([], "empty"),
    ):
        result = CliRunner().invoke(app, ["verify", str(write(tmp_path / "r.jsonl", rows)), "--verifier", "numeric"])
        assert isinstance(result.exception, LampoError)
        assert message in str(result.exception)
