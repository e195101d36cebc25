"""Does the signal that `lampo signal` measures before training predict what estimators gain by training?

    python benchmarks/signal_predicts.py measure    # writes docs/results/signal/measured.json, and goes on with it
    python benchmarks/signal_predicts.py report     # prints the tables

Gains are those of the committed studies, of methods that differ from GRPO in nothing but the advantage. The signal is measured on the
starts of the same seeds, before the first step, with the errors of the verifier that the study has.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from lampo import process as _process  # noqa: F401  it must run before torch is imported
from lampo.compare.comparison import compare_methods
from lampo.compare.results import MeasureName, read_results
from lampo.compare.study import MethodEntry, Plan, load_study

RESULTS = Path(__file__).parents[1] / "docs" / "results"
MEASURED = RESULTS / "signal" / "measured.json"
SETTINGS = {
    "addition": ("ablations", "task"),
    "addition, 40 % false positives": ("noise", "task"),
    "addition, dropped carries": ("dropped_carries_add", "task"),
    "products": ("dropped_carries_mul", "slips"),
    "products, dropped carries": ("dropped_carries_mul", "forgotten-carries"),
    "addition, sparse": ("sparse", "task"),
}
BASELINE = "grpo"
PERMUTATIONS = 20_000
SHOWN: tuple[tuple[str, MeasureName], ...] = (
    ("adam", "over_training"),
    ("adam", "samples"),
    ("plain", "over_training"),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """The signal of one method on one start: its difference to GRPO's, as a share, with its interval."""

    setting: str
    seed: int
    method: str
    scaling: str
    difference: float | None
    low: float | None
    high: float | None
    verdict: str


def same_but_the_advantage(plan: Plan, task: str) -> list[MethodEntry]:
    """The methods of a study that differ from the baseline in their advantage alone."""

    def rest(entry: MethodEntry) -> str:
        return plan.config_of(task, entry).model_dump_json(exclude={"advantage", "method"})

    (baseline,) = (entry for entry in plan.study.methods if entry.name == BASELINE)
    return [entry for entry in plan.study.methods if rest(entry) == rest(baseline)]


def measure(num_seeds: int, num_groups: int) -> None:
    from lampo.process import prepare
    from lampo.signal.command import WIDTH
    from lampo.signal.run import measure as measure_signal
    from lampo.view.console import Progress

    found = read_measured() if MEASURED.exists() else []
    for seed in range(num_seeds):
        for setting, (study, task) in SETTINGS.items():
            if any(each.setting == setting and each.seed == seed for each in found):
                continue
            plan = load_study(RESULTS / study / "study.yaml")
            entries = same_but_the_advantage(plan, task)
            config = plan.config_of(task, next(entry for entry in entries if entry.name == BASELINE))
            config = config.model_copy(update={"run": config.run.model_copy(update={"seed": seed, "threads": 1})})
            if (characters := config.model.characters) is not None and "*" not in characters and "mul" in study:
                # what the studies of products left out of their alphabet, which is refused by now
                config = config.model_copy(
                    update={"model": config.model.model_copy(update={"characters": characters + "*"})}
                )
            prepare(config)
            with Progress(f"{setting}, seed {seed}") as progress:
                answer = measure_signal(
                    config,
                    None,
                    {entry.name: plan.config_of(task, entry).advantage for entry in entries},
                    num_groups=num_groups,
                    false_positives=(),
                    false_negatives=(),
                    width=WIDTH,
                    progress=progress,
                )
            verdicts, size = answer.verdicts[-1], answer.group_sizes[0]  # the study's own errors, where it has any
            for scaling in ("adam", "plain"):
                for name in answer.estimators:
                    each = answer.find(verdicts, size, scaling, name)
                    found.append(
                        Measured(setting, seed, name, scaling, each.difference, each.low, each.high, each.verdict)
                    )
            MEASURED.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n")


def read_measured() -> list[Measured]:
    return [Measured(**each) for each in json.loads(MEASURED.read_text())]


@dataclass(frozen=True, slots=True)
class Point:
    """A method in a setting: its signal and its gain, each minus GRPO's, in percent and in points."""

    setting: str
    method: str
    signal: float
    gain: float
    low: float
    high: float


def points(scaling: str, measure: MeasureName) -> Iterator[Point]:
    """Every method of every setting; the baseline itself is 0 in both."""
    measured = read_measured()
    for setting, (study, task) in SETTINGS.items():
        comparison = next(
            each
            for each in compare_methods(read_results(RESULTS / study / "results.parquet"), BASELINE)
            if each.task == task
        )
        for method in comparison.methods:
            of = [
                each.difference
                for each in measured
                if (each.setting, each.method, each.scaling) == (setting, method.method, scaling)
                and each.difference is not None
            ]
            pair = method.differences[measure]
            if not of or (pair is None and method.method != BASELINE):
                continue
            gain = (
                (0.0, 0.0, 0.0)
                if pair is None
                else tuple(getattr(pair.difference, at) for at in ("value", "low", "high"))
            )
            yield Point(setting, method.method, 100 * float(np.mean(of)), *(100 * each for each in gain))


def concordance(signals: np.ndarray, gains: np.ndarray) -> tuple[float, int]:
    """Of the pairs of methods, how many have the same order in both, ties half; and the number of pairs."""
    upper = np.triu_indices(len(signals), 1)
    a, b = (np.sign(values[:, None] - values[None])[upper] for values in (signals, gains))
    return float((1 + a * b).sum() / 2), len(a)


def by_chance(arrays: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """One-sided p of so many pairs in the same order, had the gains been dealt at random within each setting."""
    random, right = np.random.default_rng(0), sum(concordance(*each)[0] for each in arrays)
    reached = sum(
        sum(concordance(signals, random.permutation(gains))[0] for signals, gains in arrays) >= right
        for _ in range(PERMUTATIONS)
    )
    return (1 + reached) / (1 + PERMUTATIONS)


def report() -> None:
    for scaling, measure in SHOWN:
        all_points = [*points(scaling, measure)]
        groups = [[each for each in all_points if each.setting == setting] for setting in SETTINGS]
        groups = [group for group in groups if len(group) > 1]
        arrays = [(np.array([e.signal for e in group]), np.array([e.gain for e in group])) for group in groups]
        print(
            f"\n{scaling}, {measure}\n\n| setting | same order | p | Spearman | points a percent |\n|---|---|---|---|---|"
        )
        for group, (signals, gains) in zip(groups, arrays, strict=True):
            agree, count = concordance(signals, gains)
            cells = [f"{group[0].setting}", f"{agree:g} of {count}"]
            if len(group) > 2:
                rho = np.corrcoef(stats.rankdata(signals), stats.rankdata(gains))[0, 1]
                slope = float(np.polyfit(signals, gains, 1)[0])
                cells += [f"{by_chance([(signals, gains)]):.4f}", f"{rho:+.2f}", f"{slope:+.2f}"]
            print(f"| {' | '.join(cells)} |")
        right, total = (sum(values) for values in zip(*(concordance(*each) for each in arrays), strict=True))
        beside = [each for each in all_points if each.method != BASELINE]
        signs = sum(np.sign(each.signal) == np.sign(each.gain) for each in beside)
        print(f"| all | {right:g} of {total} ({right / total:.0%}) | {by_chance(arrays):.4f} | | |")
        print(f"\nOn the side of GRPO that training put it: {signs} of {len(beside)}.\n")
        print("| setting | method | signal | gain |\n|---|---|---|---|")
        for group in groups:
            for each in sorted(group, key=lambda each: -each.signal):
                gain = f"{each.gain:+.1f} [{each.low:+.1f}, {each.high:+.1f}]"
                print(f"| {each.setting} | {each.method} | {each.signal:+.0f} | {gain} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "report"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--groups", type=int, default=160)
    arguments = parser.parse_args()
    if arguments.what == "measure":
        measure(arguments.seeds, arguments.groups)
    else:
        report()


if __name__ == "__main__":
    main()
