from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from lampo.compare.collect import collect
from lampo.compare.results import Point, RunResult, read_results, write_results
from lampo.compare.study import load_study

from ...helpers.small_study import RECIPE

POINT = Point(1, 10, 99, 1, 1.0, 0.5, 1.0, 6.0, 0.0, 3, 2, greedy=1 / 3)
RUN = RunResult("task", "grpo", 0, 1e-3, "test", "finished", "", 0.5, 0.0, (POINT,))


def test_results_of_each_problem_are_kept_and_older_tables_have_none(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    known = replace(POINT, by_problem=(1.0, 0.5, 0.0), greedy_by_problem=(1.0, 0.0, 0.0))
    results = [replace(RUN, points=(POINT, known)), replace(RUN, seed=1, points=(), status="crashed")]
    write_results(path, results)
    assert read_results(path) == results
    pq.write_table(pq.read_table(path).drop_columns(["greedy", "by_problem", "greedy_by_problem"]), path)
    assert read_results(path)[0].points[1] == replace(POINT, greedy=None)


def test_results_of_400_problems_take_little_room(tmp_path: Path) -> None:
    shares = tuple((at * 7 % 5) / 4 for at in range(400))
    runs = [
        replace(RUN, seed=seed, points=(replace(POINT, by_problem=shares[seed:] + shares[:seed]),))
        for seed in range(50)
    ]
    write_results(tmp_path / "with.parquet", runs)
    write_results(tmp_path / "without.parquet", [replace(run, points=(POINT,)) for run in runs])
    with_them, without = ((tmp_path / f"{name}.parquet").stat().st_size for name in ("with", "without"))
    assert with_them - without < 50 * 400 / 2  # half a byte a problem and run


def test_a_problem_without_a_verdict_leaves_only_the_mean(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(f"{{name: s, recipe: {RECIPE}, methods: [grpo], folder: {tmp_path}}}\n")
    run = load_study(tmp_path / "study.yaml").test({})[0]
    run.path.mkdir(parents=True)
    numbers = ", ".join(
        f'"evaluation/{name}": 2' for name in ("accuracy", "length_mean", "truncated", "problems", "samples")
    )
    line = f'{{"stage": "evaluation", "step": 0, {numbers}, "evaluation/by_problem": [1.0, %s], '
    line += '"evaluation/greedy/by_problem": [1.0, 0.0]}\n'
    (run.path / "metrics.jsonl").write_text(line % "null")
    (point,) = collect(run, "test", None).points
    assert (point.by_problem, point.greedy_by_problem) == (None, (1.0, 0.0))
    (run.path / "metrics.jsonl").write_text(line % "0.5")
    (point,) = collect(run, "test", None).points
    assert point.by_problem == (1.0, 0.5)
