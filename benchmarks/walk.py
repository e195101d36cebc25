"""What a reader has to open to follow one training step, one verdict and one comparison.

    python benchmarks/walk.py                                  # of this tree
    git worktree add ../old 3c8552a; python benchmarks/walk.py --source ../old/src     # of an older one

Each is done for real while every call is watched, so the list is of files that were needed and not of files that might be. The call of a
dataclass or of a validator counts like any other. Calls in the other processes of a verifier pool are not seen: the verifier is `numeric`,
which needs none.

A climb is a pair of files: the first calls something in the second, and the second was opened before the first. Who reads along the calls
goes back up there. A folder is a room; files beside each other in `lampo/` are rooms of their own, for no folder says what they may touch.
Climbs between rooms are pairs of rooms, without those to types, options and seeds.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

SHARED = ("types.py", "options.py", "seeds.py")
"""What every file may use."""


class Walk:
    """The files of lampo in the order in which calls open them, and the climbs between them."""

    def __init__(self, source: Path) -> None:
        self.root, self.source = source.parent, f"{source / 'lampo'}/"
        self.opened: dict[str, int] = {}
        self.climbs: dict[tuple[str, str], None] = {}
        self.walking = False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """For sys.setprofile."""
        if event != "call" or not self.walking:
            return
        here = self._file(frame)
        if here is None or frame.f_code.co_name == "<module>":
            return
        self.opened.setdefault(here, len(self.opened))
        caller = frame.f_back
        while caller is not None and self._file(caller) is None:  # through torch, pydantic and the like
            caller = caller.f_back
        above = caller and self._file(caller)
        if above in self.opened and self.opened[here] < self.opened[above]:
            self.climbs[above, here] = None

    def _file(self, frame: FrameType) -> str | None:
        name = frame.f_code.co_filename
        return name.removeprefix(self.source) if name.startswith(self.source) else None

    @property
    def rooms(self) -> list[str]:
        """Folders, and the files of the root."""
        return list(dict.fromkeys(map(room_of, self.opened)))

    @property
    def climbs_between_rooms(self) -> set[tuple[str, str]]:
        """Pairs of rooms."""
        rooms = {(room_of(low), room_of(high)) for low, high in self.climbs if high not in SHARED}
        return {(low, high) for low, high in rooms if low != high}

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watch every call of this process."""
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # pyright: ignore[reportArgumentType]


def room_of(name: str) -> str:
    return name.rpartition("/")[0] or name


def training_step(walk: Walk) -> None:
    """The first step of a tiny run, from sampling to the point where a checkpoint may be due."""
    from lampo.config.load import load_config
    from lampo.train import loop

    _train(walk, load_config, loop)


def training_step_before(walk: Walk) -> None:
    """The same, where the loop was lampo/train.py."""
    from lampo import train  # pyright: ignore[reportAttributeAccessIssue]
    from lampo.config import load_config  # pyright: ignore[reportAttributeAccessIssue]

    _train(walk, load_config, train)


def _train(walk: Walk, load_config: Callable[..., Any], loop: Any) -> None:
    try:
        from lampo.train.run import Run
        from lampo.view.console import Progress
    except ModuleNotFoundError:
        from lampo.console import Progress  # pyright: ignore[reportMissingImports]
        from lampo.run import Run  # pyright: ignore[reportMissingImports]
    from rich.console import Console

    begin, end = loop.sample_groups, loop.save_if_due

    def sample_groups(*arguments: Any) -> Any:
        walk.walking = not walk.opened  # the first step only; the last one is followed by an evaluation
        walk.opened.setdefault(loop.__file__.removeprefix(walk.source), 0)
        return begin(*arguments)

    def save_if_due(session: Any, stage: str, *arguments: Any) -> Any:
        walk.walking = False
        return end(session, stage, *arguments)

    loop.sample_groups, loop.save_if_due = sample_groups, save_if_due
    with tempfile.TemporaryDirectory() as folder:
        settings = ["task.digits=1", "warmstart.steps=60", "training.steps=2", "evaluation.problems=8"]
        settings += ["evaluation.final_problems=8", f"run.folder={folder}"]
        run = Run.create(load_config(walk.root / "recipes" / "quickstart.yaml", settings))
        with walk.watched(), Progress("walk", Console(file=io.StringIO())) as progress:
            loop.train(run, progress)


def verdict(walk: Walk) -> None:
    """Whether a response is right, by the verifier `math`."""
    from lampo.verify import verify

    with walk.watched():
        walk.walking = True
        assert verify("math", r"So it is \boxed{\frac{1}{\sqrt 2}}.", r"\frac{\sqrt 2}{2}").status == "right"
        walk.walking = False


def comparison(walk: Walk) -> None:
    """From a study file and its results to tables and a page."""
    from lampo.compare.comparison import compare_methods

    try:
        from lampo.compare.comparison_page import write_comparison
    except ModuleNotFoundError:
        from lampo.compare.page import write_comparison  # pyright: ignore[reportMissingImports]
    from lampo.compare.results import read_results
    from lampo.compare.study import load_study
    from lampo.compare.table import markdown

    folder = walk.root / "docs" / "results" / "rouge_l"
    with tempfile.TemporaryDirectory() as out, walk.watched():
        walk.walking = True
        plan = load_study(folder / "study.yaml")
        plan.test({})
        results = read_results(folder / "results.parquet")
        if "comparisons" in inspect.signature(write_comparison).parameters:
            comparisons = compare_methods(results, plan.study.baseline)
            markdown(comparisons)
            given: tuple[Any, ...] = (comparisons, results)
        else:  # the older one compares and writes the tables by itself
            given = (results,)
        write_comparison(Path(out), *given, baseline=plan.study.baseline, command="", versions={}, study="")
        walk.walking = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--source", type=Path, default=Path(__file__).resolve().parents[1] / "src", help="the folder that holds lampo/"
    )
    source = parser.parse_args().source.resolve()
    sys.path.insert(0, str(source))
    before = (source / "lampo" / "train.py").is_file()
    for what in (training_step_before if before else training_step, verdict, comparison):
        walk = Walk(source)
        what(walk)
        between = len(walk.climbs_between_rooms)
        print(
            f"{what.__name__}: {len(walk.opened)} files, {len(walk.rooms)} rooms, {len(walk.climbs)} climbs, {between} between rooms"
        )
        print(f"  rooms: {', '.join(walk.rooms)}")
        print(f"  files: {', '.join(walk.opened)}")
        print(f"  climbs: {', '.join(f'{low} -> {high}' for low, high in walk.climbs)}")


if __name__ == "__main__":
    main()
