from pathlib import Path

import lampo
from benchmarks.walk import Walk, verdict


def test_a_verdict_is_followed_through_the_files_that_it_needs() -> None:
    walk = Walk(Path(lampo.__file__).resolve().parents[1])
    verdict(walk)
    assert next(iter(walk.opened)) == "verify/__init__.py"
    assert {"verify/answers.py", "verify/math/equality.py"} <= set(walk.opened)
    assert set(walk.rooms) == {"verify", "verify/math", "options.py", "types.py"}
    assert walk.climbs_between_rooms == set()
