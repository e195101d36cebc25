"""lampo_ob and GRPO on the suite's tasks, each at its best of three learning rates.

    python benchmarks/rates.py

A task's best rate of a method is the one with the highest mean accuracy of samples after training, over the seeds that all rates have.
Both methods choose on the seeds that they are compared on, so both are a little too high, and alike.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lampo.compare.measures import MEASURES
from lampo.compare.numbers import NONE, points
from lampo.compare.results import MeasureName
from lampo.compare.statistics import paired
from lampo.compare.suite import Row, read_row
from lampo.compare.suite_table import values_by_seed

ROWS = Path(__file__).parents[1] / "docs" / "results" / "suite"
OURS, BASELINE = "lampo_ob", "grpo"
RATES = {"1.5e-4": "-1.5e-4", "3e-4": "", "6e-4": "-6e-4"}
"""Each with what it puts behind a method's name in a row's."""
CHOSEN_BY: MeasureName = "samples"


def common_seeds(rows: list[Row]) -> set[int]:
    """Those that every row has on every task."""
    by_task: dict[tuple[str, str], set[int]] = {}
    for row in rows:
        for run in row.runs:
            by_task.setdefault((row.name, run.task), set()).add(run.seed)
    return set.intersection(*by_task.values())


def table() -> str:
    """Accuracy at each rate with the best in bold, and the differences between the best ones."""
    rows = [read_row(ROWS / f"{name}.parquet") for method in (BASELINE, OURS) for name in names(method)]
    seeds = common_seeds(rows)
    runs = [run for row in rows for run in row.runs if run.seed in seeds]
    values = {measure: values_by_seed(runs, measure) for measure in MEASURES}
    head = ["task", *(f"{method} at {rate}" for method in (BASELINE, OURS) for rate in RATES), *MEASURES.values()]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for task, by_name in values[CHOSEN_BY].items():
        means = {name: float(np.mean(list(by_seed.values()))) for name, by_seed in by_name.items()}
        baseline, ours = (max(names(method), key=means.__getitem__) for method in (BASELINE, OURS))
        cells = [
            f"**{100 * means[name]:.1f}**" if name in (baseline, ours) else f"{100 * means[name]:.1f}"
            for method in (BASELINE, OURS)
            for name in names(method)
        ]
        pairs = [paired(by_task[task][ours], by_task[task][baseline]) for by_task in values.values()]
        cells += [points(pair.difference) if pair else NONE for pair in pairs]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Accuracies in percent of seeds {', '.join(map(str, sorted(seeds)))}."])


def names(method: str) -> list[str]:
    """Its rows, one a rate."""
    return [f"{method}{suffix}" for suffix in RATES.values()]


if __name__ == "__main__":
    print(table())
