"""Does the signal that `lampo signal` measures before training predict what estimators gain by training?

    python benchmarks/signal_predicts.py measure    # writes docs/results/signal/measured.json, and goes on with it
    python benchmarks/signal_predicts.py report     # prints the tables; a family is named behind either

Gains are those of the committed studies, of methods that differ from GRPO in nothing but the advantage. The signal is measured on the
starts of the same seeds, before the first step or after the first few, with the errors of the verifier that the study has.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations, groupby
from pathlib import Path

import numpy as np
from scipy import stats

from lampo import process as _process  # noqa: F401  it must run before torch is imported
from lampo.compare.comparison import Comparison, compare_methods
from lampo.compare.measures import by_seed, value_of
from lampo.compare.results import MeasureName, read_results
from lampo.compare.statistics import mean_difference
from lampo.compare.study import MethodEntry, Plan, load_study
from lampo.config.explain import dump_config
from lampo.config.schema import TrainConfig
from lampo.rewards import VerifierReward
from lampo.store.checkpoints import model_of_run

RESULTS = Path(__file__).parents[1] / "docs" / "results"
MEASURED = RESULTS / "signal" / "measured.json"


@dataclass(frozen=True, slots=True)
class Setting:
    """A task of a committed study, and how many steps GRPO has made on it when the signal is measured."""

    study: str
    task: str = "task"
    steps: int = 0


FAMILIES = {
    "first": {
        "addition": Setting("ablations"),
        "addition, 40 % false positives": Setting("noise"),
        "addition, dropped carries": Setting("dropped_carries_add"),
        "products": Setting("dropped_carries_mul", "slips"),
        "products, dropped carries": Setting("dropped_carries_mul", "forgotten-carries"),
        "addition, sparse": Setting("sparse"),
    },
    "second": {
        "20 % false positives": Setting("noise_kinds", "few"),
        "20 % false negatives": Setting("noise_kinds", "negatives"),
        "40 % false positives, dropped carries": Setting("noise_kinds", "dropped-carries"),
    },
    "later": {
        "40 % false positives, dropped carries, five steps": Setting("noise_kinds", "dropped-carries", steps=5),
        "addition, dropped carries, five steps": Setting("dropped_carries_add", steps=5),
    },
    "fourth": {
        "products, 40 % false positives": Setting("calibrated", "products"),
        "sums without carries, 40 % false positives": Setting("calibrated", "sums-without-carries"),
        "products without carries, 40 % false positives": Setting("calibrated", "products-without-carries"),
    },
}
"""Each is a question of its own, declared in docs/results/signal/README.md before it was measured."""
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


def measure(family: str, num_seeds: int, num_groups: int) -> None:
    found = read_measured() if MEASURED.exists() else []
    for seed in range(num_seeds):
        for names in measured_together(family):
            known = {each.setting for each in found if each.seed == seed}
            if missing := [name for name in names if name not in known]:
                found += measured(family, missing, seed, num_groups)
                MEASURED.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n")


def measured_together(family: str) -> Iterator[list[str]]:
    """The settings of a family, those beside each other that differ in the errors of the verifier alone: their rollouts are the same."""

    def rollouts(item: tuple[str, Setting]) -> tuple[str, ...]:
        name, setting = item
        config = load_study(RESULTS / setting.study / "study.yaml").config_of(setting.task)
        return setting.study, config.model_dump_json(exclude={"rewards"}), name if setting.steps else ""

    for _, items in groupby(FAMILIES[family].items(), rollouts):
        yield [name for name, _ in items]


def errors(config: TrainConfig) -> tuple[float, float]:
    """The shares of false positives and of false negatives of the verifier, one of which is 0."""
    (verifier,) = (reward for reward in config.rewards if isinstance(reward, VerifierReward))
    assert not (verifier.false_positives and verifier.false_negatives)
    return verifier.false_positives, verifier.false_negatives


def measured(family: str, names: Sequence[str], seed: int, num_groups: int) -> Iterator[Measured]:
    """Every method of settings with the same rollouts, on the start of one seed."""
    from lampo.process import prepare
    from lampo.signal.command import WIDTH
    from lampo.signal.run import CLEAN
    from lampo.signal.run import measure as measure_signal
    from lampo.view.console import Progress

    settings = [FAMILIES[family][name] for name in names]
    setting = settings[0]
    plan = load_study(RESULTS / setting.study / "study.yaml")
    entries = same_but_the_advantage(plan, setting.task)
    shares = [errors(plan.config_of(each.task)) for each in settings]
    config = plan.config_of(setting.task, next(entry for entry in entries if entry.name == BASELINE))
    config = config.model_copy(update={"run": config.run.model_copy(update={"seed": seed, "threads": 1})})
    if (characters := config.model.characters) is not None and "*" not in characters and "mul" in setting.study:
        # what the studies of products left out of their alphabet, which is refused by now
        config = config.model_copy(update={"model": config.model.model_copy(update={"characters": characters + "*"})})
    prepare(config)
    with tempfile.TemporaryDirectory() as folder:
        policy = trained(config, setting.steps, Path(folder)) if setting.steps else None
        with Progress(f"{' and '.join(names)}, seed {seed}") as progress:
            answer = measure_signal(
                config,
                policy,
                {entry.name: plan.config_of(setting.task, entry).advantage for entry in entries},
                num_groups=num_groups,
                false_positives=[positives for positives, _ in shares if positives],
                false_negatives=[negatives for _, negatives in shares if negatives],
                width=WIDTH,
                progress=progress,
            )
    for name, (positives, negatives) in zip(names, shares, strict=True):
        verdicts = f"{positives or negatives:.0%} false {'positives' if positives else 'negatives'}"
        for scaling in ("adam", "plain"):
            for method in answer.estimators:
                each = answer.find(
                    verdicts if positives or negatives else CLEAN, answer.group_sizes[0], scaling, method
                )
                yield Measured(name, seed, method, scaling, each.difference, each.low, each.high, each.verdict)


def trained(config: TrainConfig, steps: int, folder: Path) -> Path:
    """The policy after the first steps of the baseline, which in a longer run are the same: the schedule does not end with them."""
    from lampo.train.command import train

    recipe = folder / "recipe.yaml"
    recipe.write_text(dump_config(config))
    settings = {
        "run.folder": folder,
        "run.name": "short",
        "training.steps": steps,
        "optimizer.schedule": "constant",
        "evaluation.problems": 1,
        "evaluation.final_problems": 1,
        "evaluation.final_samples": 1,
    }
    train(recipe, [f"{key}={value}" for key, value in settings.items()], resume=False, dry_run=False)
    return model_of_run(folder / "short")


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


def points(family: str, scaling: str, measure: MeasureName, seeds: Collection[int] = ()) -> Iterator[Point]:
    """Every method of every setting; the baseline itself is 0 in both. Signals are means over all seeds measured, or over these."""
    found = read_measured()
    for name, setting in FAMILIES[family].items():
        for method in comparison(setting).methods:
            of = [
                each.difference
                for each in found
                if (each.setting, each.method, each.scaling) == (name, method.method, scaling)
                and each.difference is not None
                and (not seeds or each.seed in seeds)
            ]
            pair = method.differences[measure]
            if not of or (pair is None and method.method != BASELINE):
                continue
            gain = (
                (0.0, 0.0, 0.0)
                if pair is None
                else tuple(getattr(pair.difference, at) for at in ("value", "low", "high"))
            )
            yield Point(name, method.method, 100 * float(np.mean(of)), *(100 * each for each in gain))


@cache
def comparison(setting: Setting) -> Comparison:
    results = read_results(RESULTS / setting.study / "results.parquet")
    return next(each for each in compare_methods(results, BASELINE) if each.task == setting.task)


def told_apart(setting: Setting, first: str, second: str, measure: MeasureName) -> bool:
    """Whether training tells two methods apart: the 95 % interval of their difference over seeds leaves out 0. p is not corrected."""
    of, budget = {each.method: each for each in comparison(setting).methods}, comparison(setting).budget
    ours, theirs = (by_seed(of[name].runs, lambda run: value_of(run, measure, budget)) for name in (first, second))
    difference = mean_difference(ours, theirs)
    return difference.low is not None and difference.high is not None and not difference.low <= 0 <= difference.high


def concordance(signals: np.ndarray, gains: np.ndarray) -> tuple[float, int]:
    """Of the pairs of methods, how many have the same order in both, ties half; and the number of pairs."""
    upper = np.triu_indices(len(signals), 1)
    a, b = (np.sign(values[:, None] - values[None])[upper] for values in (signals, gains))
    return float((1 + a * b).sum() / 2), len(a)


def by_chance(arrays: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """One-sided p of so many pairs in the same order, had the gains been dealt at random within each setting."""
    random, right = np.random.default_rng(0), sum(concordance(*each)[0] for each in arrays)
    found = np.zeros(PERMUTATIONS)
    for signals, gains in arrays:
        first, second = np.triu_indices(len(signals), 1)
        dealt = random.permuted(np.tile(gains, (PERMUTATIONS, 1)), axis=1)
        found += (1 + np.sign(signals[first] - signals[second]) * np.sign(dealt[:, first] - dealt[:, second])).sum(
            1
        ) / 2
    return float((1 + (found >= right).sum()) / (1 + PERMUTATIONS))


def table(family: str) -> str:
    """The declared measure of a family, by setting and over all, and the starts one by one."""
    groups, seeds = grouped(family, "adam", "over_training"), sorted(seeds_of(family))
    alone = {
        seed: {group[0].setting: group for group in grouped(family, "adam", "over_training", {seed})} for seed in seeds
    }
    known = {(each.setting, each.seed) for each in read_measured()}
    head = [
        f"{family} family",
        "same order",
        *(f"seed {seed} alone" for seed in seeds),
        "p",
        "Spearman",
        "of those told apart",
    ]
    rows = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, shown in [*((group[0].setting, [group]) for group in groups), ("all", groups)]:
        starts = [[alone[seed][each[0].setting] for each in shown if each[0].setting in alone[seed]] for seed in seeds]
        of_starts = [
            of(*of_pairs(each)) if each else "too noisy" if (name, seed) in known else "–"
            for seed, each in zip(seeds, starts, strict=True)
        ]
        arrays = [signals_and_gains(group) for group in shown]
        rank = f"{spearman(*arrays[0]):+.2f}" if len(shown) == 1 and len(shown[0]) > 2 else ""
        chance = in_words(by_chance(arrays)) if len(shown[0]) > 2 else ""
        clear, same = told(family, shown, "over_training")
        cells = [
            name if name == "all" else f"[{name}](../{FAMILIES[family][name].study}/README.md)",
            of(*of_pairs(shown)),
            *of_starts,
            chance,
            rank,
            of(same, clear),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def in_words(p: float) -> str:
    return f"{p:.2g}" if p >= 0.0001 else "below 0.0001"


def of(part: float, whole: int) -> str:
    return f"{part:g} of {whole}"


def signals_and_gains(group: Sequence[Point]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([each.signal for each in group]), np.array([each.gain for each in group])


def spearman(signals: np.ndarray, gains: np.ndarray) -> float:
    return float(np.corrcoef(stats.rankdata(signals), stats.rankdata(gains))[0, 1])


def measured_families() -> list[str]:
    return [family for family in FAMILIES if seeds_of(family)]


def seeds_of(family: str) -> set[int]:
    return {each.seed for each in read_measured() if each.setting in FAMILIES[family]}


def told(family: str, groups: Sequence[Sequence[Point]], measure: MeasureName) -> tuple[int, int]:
    """How many pairs training tells apart, and how many of these have the same order."""
    same = [
        (a.signal - b.signal) * (a.gain - b.gain) > 0
        for group in groups
        for a, b in combinations(group, 2)
        if told_apart(FAMILIES[family][a.setting], a.method, b.method, measure)
    ]
    return len(same), sum(same)


def report(family: str) -> None:
    print(f"\n# {family}\n\n{table(family)}")
    for scaling, measure in SHOWN:
        report_one(family, scaling, measure)


def report_one(family: str, scaling: str, measure: MeasureName) -> None:
    groups = grouped(family, scaling, measure)
    arrays = [signals_and_gains(group) for group in groups]
    print(
        f"\n{scaling}, {measure}\n\n| setting | same order | p | Spearman | points a percent |\n|---|---|---|---|---|"
    )
    for group, (signals, gains) in zip(groups, arrays, strict=True):
        agree, count = concordance(signals, gains)
        cells = [f"{group[0].setting}", f"{agree:g} of {count}"]
        if len(group) > 2:
            slope = float(np.polyfit(signals, gains, 1)[0])
            cells += [f"{by_chance([(signals, gains)]):.4f}", f"{spearman(signals, gains):+.2f}", f"{slope:+.2f}"]
        print(f"| {' | '.join(cells)} |")
    right, total = of_pairs(groups)
    print(f"| all | {right:g} of {total} ({right / total:.0%}) | {by_chance(arrays):.4f} | | |")
    print()
    for seed in sorted(seeds_of(family)):
        alone = grouped(family, scaling, measure, {seed})
        print(f"Seed {seed} alone: {of(*of_pairs(alone))} ({', '.join(of(*of_pairs([group])) for group in alone)})")
    clear, same = told(family, groups, measure)
    print(f"Of the pairs that training tells apart: {same} of {clear}.")
    beside = [each for group in groups for each in group if each.method != BASELINE]
    signs = sum(np.sign(each.signal) == np.sign(each.gain) for each in beside)
    print(f"On the side of GRPO that training put it: {signs} of {len(beside)}.\n")
    print("| setting | method | signal | gain |\n|---|---|---|---|")
    for group in groups:
        for each in sorted(group, key=lambda each: -each.signal):
            gain = f"{each.gain:+.1f} [{each.low:+.1f}, {each.high:+.1f}]"
            print(f"| {each.setting} | {each.method} | {each.signal:+.0f} | {gain} |")


def grouped(family: str, scaling: str, measure: MeasureName, seeds: Collection[int] = ()) -> list[list[Point]]:
    """The points of each setting that has any pair."""
    found = [*points(family, scaling, measure, seeds)]
    groups = [[each for each in found if each.setting == setting] for setting in FAMILIES[family]]
    return [group for group in groups if len(group) > 1]


def of_pairs(groups: Sequence[Sequence[Point]]) -> tuple[float, int]:
    """Over all settings, how many pairs of methods have the same order, and of how many."""
    counts = [concordance(*signals_and_gains(group)) for group in groups]
    return sum(right for right, _ in counts), sum(count for _, count in counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "report"))
    parser.add_argument("family", nargs="?", choices=[*FAMILIES], help="one of the families alone")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--groups", type=int, default=160)
    arguments = parser.parse_args()
    for family in [arguments.family] if arguments.family else FAMILIES:
        if arguments.what == "measure":
            measure(family, arguments.seeds, arguments.groups)
        else:
            report(family)


if __name__ == "__main__":
    main()
