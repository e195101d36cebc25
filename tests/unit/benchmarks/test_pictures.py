import shutil
import sys
from pathlib import Path

import pytest

from benchmarks import pictures
from lampo.types import LampoError


def test_without_a_browser_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(LampoError, match="apt-get install chromium"):
        pictures.browse("about:blank", "--dump-dom")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["sunset"], "There is no picture 'sunset'"), (["viewer", "--run", "nowhere"], "nowhere is no run. Make it")],
)
def test_a_wrong_name_is_told_in_a_line(arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pictures.py", *arguments])
    with pytest.raises(SystemExit, match=said):
        pictures.main()


@pytest.mark.skipif(not any(map(shutil.which, pictures.BROWSERS)), reason="there is no browser")
def test_a_picture_ends_where_the_page_ends(tmp_path: Path) -> None:
    page, picture = tmp_path / "page.html", tmp_path / "page.png"
    hidden = "<p class=much style='height: 5000px'></p>"
    page.write_text(f"<html><head></head><body><main><p style='height: 700px'></p>{hidden}</main></body></html>")
    pictures.shoot(page, picture, hidden=".much")
    width, height = (int.from_bytes(picture.read_bytes()[at : at + 4]) for at in (16, 20))
    assert width == pictures.WIDTH
    assert 700 <= height <= 800
