"""The viewer as one file."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lampo.types import LampoError
from lampo.view.inspect.export import export
from lampo.view.inspect.source import open_source

from ....helpers.recorded_groups import HOSTILE


def test_an_export_holds_the_most_telling_groups_and_no_markup_of_theirs(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "mail.html"
    assert export(open_source(run), file, groups=3) == 3
    text = file.read_text()
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, flags=re.DOTALL)
    assert len(scripts) == 2  # the data and ours
    assert text.count("<script") == 2
    data = json.loads(scripts[0])
    assert list(data["groups"]) == ["1/0", "2/0", "3/0"]
    assert data["groups"]["2/0"]["group"]["rollouts"][0]["text"] == HOSTILE
    assert data["groups"]["2/0"]["pairs"] == told_by(run, "2", 0)
    assert data["index"]["excerpt"] == {"shown": 3, "of": 6}
    assert "Content-Security-Policy" in text
    assert not re.search(r"https?://", text)


def told_by(run: Path, place: str, number: int) -> Any:
    from lampo.view.inspect.server import group_pairs

    return group_pairs(open_source(run), place, number)


def test_an_export_of_a_step(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "step.html"
    assert export(open_source(run), file, step=2) == 2
    assert '"2/1"' in file.read_text()
    assert '"1/0"' not in file.read_text()
    with pytest.raises(LampoError, match="no groups of step 9"):
        export(open_source(run), file, step=9)
