import sys
from pathlib import Path

import pytest

import lampo
from benchmarks.walk import Walk, verdict


def test_a_verdict_is_followed_through_the_files_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    # the plugin of verl, which another test may have loaded, is asked at each import
    theirs = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("lampo.")]
    monkeypatch.setattr(sys, "meta_path", theirs)
    walk = Walk(Path(lampo.__file__).resolve().parents[1])
    verdict(walk)
    assert next(iter(walk.opened)) == "verify/__init__.py"
    assert {"verify/answers.py", "verify/math/equality.py"} <= set(walk.opened)
    assert set(walk.rooms) == {"verify", "verify/math", "options.py", "types.py"}
    assert walk.climbs_between_rooms == set()
