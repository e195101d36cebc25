"""The packaged suite: that its tasks are those of the studies, and that the documentation shows its table."""

import json
import math
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lampo.compare.results import Point, RunResult
from lampo.compare.study import load_study
from lampo.compare.suite import OpenSuite, Row, entered_method, find_suite, open_suite
from lampo.compare.suite_table import suite_text
from lampo.config.load import differing

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def suite() -> OpenSuite:
    file = find_suite(Path("suite"))
    assert file == ROOT / "docs" / "results" / "suite" / "suite.yaml"
    return open_suite(file)


def test_an_entry_differs_from_the_runs_of_the_studies_in_its_start_alone(suite: OpenSuite) -> None:
    entry = suite.entry(entered_method("lampo", [], "mine"), 1)
    assert [run.task for run in entry.runs] == list(suite.suite.tasks)
    for run in entry.runs:
        task = suite.suite.tasks[run.task]
        plan = load_study(ROOT / "docs" / "results" / "suite" / task.study / "study.yaml")
        (theirs,) = (
            each
            for each in plan.changed(seeds=1).test({("task", "lampo"): 3e-4}, only="lampo")
            if task.task in (None, each.task)
        )
        changes = differing(theirs.config, run.config)
        assert changes.keys() <= {"run.folder", "run.name", "model.path", "evaluation.greedy"}, run.task
        assert changes["model.path"][1] == str(ROOT / "docs" / "results" / "suite" / task.start)


def test_every_method_of_the_studies_is_in_the_table_and_one_without_an_update_is_not(suite: OpenSuite) -> None:
    methods = {
        task: {run.method for study in suite.studies for run in study if run.task == task} for task in suite.suite.tasks
    }
    assert all({"grpo", "lampo"} <= each for each in methods.values())
    assert [task for task, each in methods.items() if "grpo-0.36" in each] == [
        "multiplication",
        "dropped-carries",
        "noise",
    ]
    assert "cot" not in methods["addition"]
    assert {"grpo-0", "dapo"} <= methods["multiplication"]  # of two studies


def test_the_package_carries_every_study_of_the_suite(suite: OpenSuite) -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    carried = set(built["force-include"])
    needed = {
        f"docs/results/{Path(study).name}" for task in suite.suite.tasks.values() for study in (task.study, *task.also)
    }
    assert needed | {"docs/results/suite", "recipes"} == carried


def test_the_documentation_shows_what_the_kept_results_give(tmp_path: Path) -> None:
    program = "import sys; from lampo.cli import app; app(standalone_mode=False); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", program, "compare", "suite"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert not any(tmp_path.iterdir())
    shown = (ROOT / "docs" / "suite.md").read_text(encoding="utf-8")
    tables = [part for part in ended.stdout.split("### ") if part.startswith("Minus")]
    assert len(tables) == 3
    assert all(table.partition("\n")[2].strip() in shown for table in tables)


def run(task: str, method: str, seed: int, end: float) -> RunResult:
    first, last = (
        Point(step, 10 * step, 99, step, 1.0, accuracy, None, 6.0, 0.0, 5, 2)
        for step, accuracy in enumerate((0.1, end))
    )
    return RunResult(task, method, seed, 1e-3, "test", "finished", "", 0.5, 0.0, (first, last))


def runs(method: str, by_task: dict[str, list[float]]) -> tuple[RunResult, ...]:
    return tuple(run(task, method, seed, end) for task, ends in by_task.items() for seed, end in enumerate(ends))


def test_a_row_is_paired_with_rows_and_compared_with_studies_through_the_baseline(suite: OpenSuite) -> None:
    tasks = ("addition", "multiplication", "noise")
    note = {"method": json.dumps({"method": "x"}), "commits": json.dumps(["1234567890"])}
    grpo, mine = [0.5, 0.6, 0.4, 0.5], [0.56, 0.67, 0.45, 0.58]
    rows = [
        Row("grpo", runs("grpo", dict.fromkeys(tasks, grpo)), note),
        Row("mine", runs("mine", dict.fromkeys(tasks, mine)), note),
    ]
    base, other = [0.2, 0.3, 0.1], [0.22, 0.33, 0.14]
    study = [*runs("grpo", {"addition": base}), *runs("lampo", {"addition": other})]
    further = [*runs("grpo", {"addition": [0.6, 0.7]}), *runs("lampo", {"addition": [0.0, 0.0]})]
    further += runs("rloo", {"addition": [0.61, 0.72]})
    studies = [study, further]
    text = suite_text(suite.suite, rows, studies, "mine")
    part = text.split("### mine minus each: samples, after training")[1].split("###")[0]
    ours = np.subtract(mine, grpo) * 100
    theirs = np.subtract(other, base) * 100
    value = ours.mean() - theirs.mean()
    a, b = ours.var(ddof=1) / len(ours), theirs.var(ddof=1) / len(theirs)
    freedom = (a + b) ** 2 / (a**2 / (len(ours) - 1) + b**2 / (len(theirs) - 1))  # Welch and Satterthwaite
    half = stats.t.ppf(0.975, freedom) * math.sqrt(a + b)
    (star,) = (line for line in part.splitlines() if line.startswith("| lampo *"))
    assert f"| {value:+.1f} [{value - half:+.1f}, {value + half:+.1f}] |" in star.replace("**", "")
    minus = text.split("### Minus grpo: samples, after training")[1].split("###")[0]
    (row,) = (line for line in minus.splitlines() if line.startswith("| mine"))
    assert row.count(f"{ours.mean():+.1f} [") == 4  # on each task, and over all three
    (row,) = (line for line in minus.splitlines() if line.startswith("| lampo *"))
    assert f"{theirs.mean():+.1f} [" in row
    assert row.rstrip().endswith("– |")  # nothing is pooled over one task
    (row,) = (line for line in minus.splitlines() if line.startswith("| rloo *"))
    assert "+1.5 [" in row  # beside the baseline of its own study
    assert "| lampo * | 3 |" in " ".join(text.split())  # of the first study that has it
    assert "most likely response" not in text  # it was not measured
    assert "| mine " in text.split("### Seeds")[1]
    assert "| x |" in " ".join(text.split())
