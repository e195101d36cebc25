"""Does a verifier that hangs slow a training run? The same run with and without, in turn.

    PYTHONPATH=. python benchmarks/hanging_verifier.py recipes/smollm2-135m-arithmetic.yaml --steps 6 --repeats 2

Both runs use a user's own verifier in the worker pool. In the second it hangs on 5 % of the responses, chosen by a hash
of their text: half of those sleep, half spin. The learning rate is next to nothing, so that both sample the same responses.
Printed are the seconds of a step and of its parts, and the ratios.
"""

import lampo.process  # isort: skip  # noqa: F401  it must run before torch is imported

import argparse
import statistics
import tempfile
from pathlib import Path

from lampo.config.load import load_config
from lampo.store.metrics import read_metrics
from lampo.train.loop import train
from lampo.train.run import Run
from lampo.view.console import Progress

PARTS = ("sample", "verify", "update", "total")


def run(recipe: Path, steps: int, share: float, timeout_s: float, settings: list[str]) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(
            recipe,
            [
                f"run.folder={folder}",
                f"training.steps={steps}",
                "optimizer.learning_rate=1e-12",
                "warmstart.steps=0",
                "evaluation.problems=16",
                "evaluation.final_problems=16",
                "verifier.name=python:benchmarks.hanging.verify",
                f"verifier.options.share={share}",
                f"verifier.timeout_s={timeout_s}",
                *settings,
            ],
        )
        run = Run.create(config)
        with Progress(run.path.name) as progress:
            train(run, progress)
        return [record for record in read_metrics(run.path) if record["stage"] == "train"][1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--timeout", type=float, default=3.0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="over the recipe")
    options = parser.parse_args()
    shares = (0.0, options.share)
    records: dict[float, list[dict[str, float]]] = {share: [] for share in shares}
    for repeat in range(options.repeats):
        for share in shares if repeat % 2 == 0 else reversed(shares):
            records[share] += run(options.recipe, options.steps, share, options.timeout, options.set)
    print(
        f"| hanging | steps | unknown | {' | '.join(f'{part} s' for part in PARTS)} |\n|{' ---: |' * (3 + len(PARTS))}"
    )
    medians = {
        share: [statistics.median(record[f"time/{part}"] for record in records[share]) for part in PARTS]
        for share in shares
    }
    for share in shares:
        unknown = statistics.mean(record["rollouts/unknown"] for record in records[share])
        parts = " | ".join(f"{seconds:.2f}" for seconds in medians[share])
        print(f"| {share:.0%} | {len(records[share])} | {unknown:.1%} | {parts} |")
    ratios = [record["time/total"] / quiet["time/total"] for quiet, record in zip(*records.values(), strict=True)]
    print(f"\nratio of a step to the same step without: median {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
