"""What a study shows while it runs."""

import io
from pathlib import Path

from rich.console import Console

from lampo.compare.progress import PhaseProgress
from lampo.compare.study import Planned, load_study

STUDY = """
name: shown
recipe: {recipe}
methods: [grpo, lampo]
seeds: 1
folder: {folder}
"""


def planned(folder: Path) -> list[Planned]:
    recipe = Path(__file__).parents[3] / "recipes" / "quickstart.yaml"
    file = folder / "study.yaml"
    file.write_text(STUDY.format(recipe=recipe, folder=folder))
    return list(load_study(file).test({}))


def test_under_the_bar_stands_the_last_line_of_each_run_under_way(tmp_path: Path) -> None:
    first, second = planned(tmp_path)
    console = Console(file=io.StringIO(), force_terminal=True, width=60)
    progress = PhaseProgress("comparison", 2, console)
    progress.begins(first)
    progress.begins(second)
    first.log.parent.mkdir(parents=True)
    first.log.write_text("x" * 10_000 + "\n[0:00:05] grpo 3/60  \x1b[2Jreward 0.5\n\n")
    with console.capture() as capture:
        console.print(progress)
    lines = capture.get().splitlines()
    assert "comparison" in lines[0]
    assert "0/2" in lines[0]
    assert lines[1].strip() == f"task {first.path.name}: [0:00:05] grpo 3/60  \\x1b[2Jreward 0.5"
    assert lines[2].strip() == f"task {second.path.name}:"  # nothing written yet
    progress.fails(first, "[/b] \x1b[2J is no folder")  # rich would take it for markup, and the terminal would be cleared
    assert "tried once more: [/b] \\x1b[2J is no folder\n" in console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    with console.capture() as capture:
        console.print(progress)
    assert len(capture.get().splitlines()) == 2
