import pytest

from lampo.verify.pool import progress


def test_a_bar_shows_its_name_as_it_is(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "SECONDS_BEFORE", -1.0)
    monkeypatch.setenv("COLUMNS", "100")
    with progress.bar("aime24 in [/red] {task}") as show:
        show(1, 2)
    assert "aime24 in [/red] {task}" in capfd.readouterr().err
