"""Results of studies as they would be read from a file, from a few accuracies."""

from dataclasses import replace

from lampo.compare.comparison import (
    Comparison,
    MethodSummary,
    compare_methods,
)
from lampo.compare.results import Point, RunResult
from lampo.compare.statistics import (
    Paired,
)


def tuning(method: str, finals: dict[float, list[float]]) -> list[RunResult]:
    return [
        run(method, seed, [0.1, final], phase="tuning", learning_rate=rate)
        for rate, at_rate in finals.items()
        for seed, final in enumerate(at_rate)
    ]


def points(accuracies: list[float], rollouts_a_step: int = 100, pass_at_k: float | None = 0.9) -> tuple[Point, ...]:
    return tuple(
        Point(step, step * rollouts_a_step, step * 1000, step, step * 2.0, accuracy, pass_at_k, 10.0, 0.0, 100, 4)
        for step, accuracy in enumerate(accuracies)
    )


def run(method: str, seed: int, accuracies: list[float], *, rollouts_a_step: int = 100, **changes) -> RunResult:
    result = RunResult(
        task="sums",
        method=method,
        seed=seed,
        learning_rate=1e-6,
        phase="test",
        status="finished",
        error="",
        entropy_end=0.5,
        gradient_spikes=0.0,
        points=points(accuracies, rollouts_a_step),
    )
    return replace(result, **changes)


def study(*methods: tuple[str, list[float]]) -> list[RunResult]:
    """A start of 0.1 and the given final accuracies, seed 0 onwards."""
    return [run(name, seed, [0.1, final]) for name, finals in methods for seed, final in enumerate(finals)]


def only(results: list[RunResult]) -> Comparison:
    (comparison,) = compare_methods(results, "grpo")
    return comparison


def of(comparison: Comparison, name: str) -> MethodSummary:
    (method,) = (method for method in comparison.methods if method.method == name)
    return method


def beside_baseline(comparison: Comparison, name: str) -> Paired:
    pair = of(comparison, name).differences["samples"]
    assert pair is not None
    return pair
