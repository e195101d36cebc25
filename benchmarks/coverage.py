"""How often a 95 % interval holds the true mean.

    python benchmarks/coverage.py       # half a minute

Simulated paired differences of a few seeds, from three populations: normal ones, the same with one seed in ten that fails badly (ten
standard deviations), and the differences of the committed studies, each in units of its own standard deviation. Then differences of
seeds and problems.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy import stats

from lampo.compare.comparison import compare_methods
from lampo.compare.results import read_results
from lampo.compare.statistics import intervals, mean_over_seeds
from lampo.compare.study import load_study
from lampo.evaluation.scores import Array, bootstrap

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SEEDS = (3, 5, 7, 10, 20)
SIMULATIONS, AT_ONCE, OVER_PROBLEMS = 2000, 100, 1000
FAILS = -10.0

Bounds = tuple[Array, Array]


def widened_bca(values_SM: Array) -> Bounds:
    """The bootstrap that the tables had until now: BCa at the level that makes it as wide as Student's t (Hesterberg 2015)."""
    n = len(values_SM)
    if n < 5:
        return students_t(values_SM)
    quantile = float(stats.t.ppf(0.975, n - 1))
    return bootstrap(values_SM, 1999, level=1 - 2 * float(stats.norm.cdf(-math.sqrt(n / (n - 1)) * quantile)))


def students_t(values_SM: Array) -> Bounds:
    """The interval of the tables."""
    bounds = intervals(values_SM)
    assert bounds
    return bounds


def committed_differences() -> Array:
    """Final accuracy of every method minus its baseline's, seed by seed, centred and in standard deviations."""
    found: list[float] = []
    for path in sorted(RESULTS.glob("*/results.parquet")):
        comparisons = compare_methods(read_results(path), load_study(path.with_name("study.yaml")).study.baseline)
        for method in (method for comparison in comparisons for method in comparison.methods):
            pair = method.differences["samples"]
            if pair and method.trained and len(pair.differences) >= 7:
                values = np.asarray(pair.differences)
                n = len(values)
                found += ((values - values.mean()) / values.std(ddof=1) * math.sqrt(n / (n - 1))).tolist()
    return np.asarray(found)


def populations(generator: np.random.Generator) -> Iterator[tuple[str, float, Callable[[int, int], Array]]]:
    """Each with its name, its true mean, and a function that draws (seeds, simulations)."""
    yield "normal", 0.0, lambda n, m: generator.normal(size=(n, m))

    def some_fail(n: int, m: int) -> Array:
        return generator.normal(size=(n, m)) + FAILS * (generator.random((n, m)) < 0.1)

    yield "one seed in ten fails", 0.1 * FAILS, some_fail
    ours = committed_differences()
    yield f"{len(ours)} of our own", float(ours.mean()), lambda n, m: generator.choice(ours, (n, m))


def covered(method: Callable[[Array], Bounds], draw: Callable[[int, int], Array], mean: float, n: int) -> float:
    """Share of simulations in which the interval holds the mean."""
    inside = 0
    for _ in range(SIMULATIONS // AT_ONCE):
        low, high = method(draw(n, AT_ONCE))
        inside += int(((low <= mean) & (mean <= high)).sum())
    return inside / SIMULATIONS


def coverage() -> str:
    """One row a population, one column a number of seeds."""
    lines = [
        "| differences | interval | " + " | ".join(f"{n} seeds" for n in SEEDS) + " |",
        "|---" * (2 + len(SEEDS)) + "|",
    ]
    for name, mean, draw in populations(np.random.default_rng(0)):
        for label, method in (("widened BCa", widened_bca), ("Student's t", students_t)):
            cells = [f"{100 * covered(method, draw, mean, n):.0f} %" for n in SEEDS]
            lines.append(f"| {name} | {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def over_problems() -> str:
    """Differences of seeds (sd 1 point), of problems, and of both (sd 40 points) on 400 problems: which interval holds the mean?"""
    generator, rows = np.random.default_rng(0), (0.0, 5.0, 10.0, 20.0)
    counts = (3, 5, 10)
    lines = ["| problems differ by | interval | " + " | ".join(f"{n} seeds" for n in counts) + " |", "|---" * 5 + "|"]
    for spread in rows:
        held = {over: dict.fromkeys(counts, 0) for over in ("over seeds", "over seeds and problems")}
        for n in counts:
            for _ in range(OVER_PROBLEMS):
                of_seeds, of_problems = generator.normal(0, 1, (n, 1)), generator.normal(0, spread, 400)
                values_SP = of_seeds + of_problems + generator.normal(0, 40, (n, 400))
                for over, values in zip(held, (values_SP.mean(1), values_SP), strict=True):
                    mean = mean_over_seeds(values)
                    assert mean.low is not None
                    assert mean.high is not None
                    held[over][n] += mean.low <= 0 <= mean.high
        for over, inside in held.items():
            cells = [f"{100 * inside[n] / OVER_PROBLEMS:.0f} %" for n in counts]
            lines.append(f"| {spread:g} points | {over} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(coverage(), over_problems(), sep="\n\n")
