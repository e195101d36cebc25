"""LamPO, GRPO and GRPO with its negative advantages times 0.36, over all settings that have the three and a clean verifier.

    python benchmarks/pooled.py

A setting is a task with a start. Within one, methods are paired by seed. Over settings the means are pooled by random effects, with Hartung
and Knapp's interval (`lampo.compare.statistics.pooled`). Settings that share their task and start count once.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from lampo.compare.measures import MEASURES
from lampo.compare.numbers import NONE, points
from lampo.compare.results import MeasureName, RunResult, read_results
from lampo.compare.statistics import OverSeeds, paired, pooled
from lampo.compare.suite_table import values_by_seed

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SETTINGS = (
    ("addition, dropped carries at the start", "dropped_carries_add", "task"),
    ("multiplication, dropped carries at the start", "dropped_carries_mul", "forgotten-carries"),
    ("multiplication, slips at the start", "dropped_carries_mul", "slips"),
    ("sums of complex numbers", "complex_arithmetic", "task"),
    ("one-step arithmetic, SmolLM2-135M", "smollm2", "task"),
    ("arithmetic in words, SmolLM2-135M", "word_arithmetic", "task"),
    ("two-term sums and differences, SmolLM2-135M", "chain_sum", "task"),
)
SCALED = ("grpo-less-against-wrong", "grpo-0.36")
PAIRS = (("LamPO", "GRPO"), ("GRPO x 0.36", "GRPO"), ("LamPO", "GRPO x 0.36"))


def runs_of(study: str, task: str) -> list[RunResult]:
    """The runs of the three methods, by their names here."""
    names = {"lampo": "LamPO", "grpo": "GRPO", **dict.fromkeys(SCALED, "GRPO x 0.36")}
    results = read_results(RESULTS / study / "results.parquet")
    chosen = [run for run in results if run.phase == "test" and run.task == task and run.method in names]
    return [replace(run, method=names[run.method]) for run in chosen]


def differences(runs: list[RunResult], ours: str, theirs: str, measure: MeasureName) -> tuple[float, ...] | None:
    """By seed. None where the study did not measure it."""
    values = values_by_seed(runs, measure).get(runs[0].task, {})
    pair = paired(values.get(ours, {}), values.get(theirs, {}))
    return pair.differences if pair else None


def table() -> str:
    """One row a pair of methods, as docs/results/README.md has it."""
    settings = {label: runs_of(study, task) for label, study, task in SETTINGS}
    lines = ["| in points | " + " | ".join(MEASURES.values()) + " |", "|---" * (1 + len(MEASURES)) + "|"]
    for ours, theirs in PAIRS:
        cells = []
        for measure in MEASURES:
            found = [each for runs in settings.values() if (each := differences(runs, ours, theirs, measure))]
            means = [float(np.mean(each)) for each in found]
            errors = [float(np.std(each, ddof=1)) / math.sqrt(len(each)) for each in found]
            cells.append(bold(pooled(means, errors)))
        lines.append(f"| {ours} minus {theirs} | {' | '.join(cells)} |")
    return "\n".join(lines)


def bold(whole: OverSeeds) -> str:
    assert whole.low is not None
    assert whole.high is not None
    text = points(whole) or NONE
    return f"**{text}**" if whole.low > 0 or whole.high < 0 else text


if __name__ == "__main__":
    print(table())
