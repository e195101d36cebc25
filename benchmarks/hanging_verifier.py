"""Does a verifier that hangs slow a training run? The same run with and without, in turn.

    python benchmarks/hanging_verifier.py recipes/smollm2-135m-arithmetic.yaml --steps 6 --repeats 2

Both runs use a user's own verifier in the worker pool. In the second it hangs on 5 % of the responses, chosen by a hash
of their text: half of those sleep, half spin. Printed are the seconds of a step, and their ratio.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from lampo.config import load_config
from lampo.console import Progress
from lampo.report import read_metrics
from lampo.run import Run
from lampo.train import train


def run(recipe: Path, steps: int, share: float, timeout_s: float) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(
            recipe,
            [
                f"run.folder={folder}",
                f"training.steps={steps}",
                "warmstart.steps=0",
                "evaluation.problems=16",
                "evaluation.final_problems=16",
                "verifier.name=python:benchmarks.hanging.verify",
                f"verifier.options.share={share}",
                f"verifier.timeout_s={timeout_s}",
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
    options = parser.parse_args()
    shares = (0.0, options.share)
    records: dict[float, list[dict[str, float]]] = {share: [] for share in shares}
    for repeat in range(options.repeats):
        for share in shares if repeat % 2 == 0 else reversed(shares):
            records[share] += run(options.recipe, options.steps, share, options.timeout)
    print("| hanging | steps | unknown | s a step | of it waiting for verdicts |\n| ---: | ---: | ---: | ---: | ---: |")
    seconds = {share: statistics.median(record["time/total"] for record in records[share]) for share in shares}
    for share in shares:
        unknown = statistics.mean(record["rollouts/unknown"] for record in records[share])
        waiting = statistics.median(record["time/verify"] for record in records[share])
        print(f"| {share:.0%} | {len(records[share])} | {unknown:.1%} | {seconds[share]:.2f} | {waiting:.2f} |")
    print(f"\nratio of the medians: {seconds[options.share] / seconds[0.0]:.3f}")


if __name__ == "__main__":
    main()
