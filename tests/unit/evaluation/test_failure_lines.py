import pytest

from lampo.evaluation import command
from lampo.evaluation.command import FailureLines


def test_the_first_failure_is_told_at_once_and_the_others_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(command.time, "monotonic", lambda: now[0])
    tell = FailureLines()
    tell("a, try 1 of 6: 500")
    assert capsys.readouterr().err == "failed: a, try 1 of 6: 500\n"
    for _ in range(3):
        now[0] += 1
        tell("b, try 1 of 6: 500")
    assert capsys.readouterr().err == ""
    now[0] += 10
    tell("c, try 1 of 6: \x1b[2J")
    assert capsys.readouterr().err == "failed: c, try 1 of 6: \\x1b[2J (4 since the line before)\n"
