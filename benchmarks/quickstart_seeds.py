"""Does the quickstart learn for every seed? Runs a recipe for several seeds, each in its own process with the recipe's threads.

    python benchmarks/quickstart_seeds.py [--seeds 10] [--workers 2] [--recipe recipes/quickstart.yaml] [--set KEY=VALUE ...]

Prints held-out accuracy before and after (sampled at the temperature of training, 95 % interval) and the whole process's seconds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lampo.store.metrics import read_metrics


def run(recipe: str, seed: int, folder: str, settings: list[str]) -> tuple[int, list[dict[str, Any]], float]:
    changes = [f"run.seed={seed}", f"run.name=seed-{seed}", f"run.folder={folder}", *settings]
    command = [sys.executable, "-m", "lampo", "train", recipe]
    start = time.perf_counter()
    settings_given = (part for change in changes for part in ("--set", change))
    finished = subprocess.run([*command, *settings_given], capture_output=True, text=True)
    if finished.returncode:
        sys.exit(f"seed {seed} failed: {finished.stderr}")
    records = [record for record in read_metrics(Path(folder) / f"seed-{seed}") if record["stage"] == "evaluation"]
    return seed, records, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default=str(Path(__file__).parents[1] / "recipes" / "quickstart.yaml"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    options = parser.parse_args()
    before, after, seconds = [], [], []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.workers) as pool:
        jobs = [pool.submit(run, options.recipe, seed, folder, options.settings) for seed in range(options.seeds)]
        print("seed   before                  after                   seconds")
        for job in jobs:
            seed, records, took = job.result()
            texts = [
                f"{record['evaluation/accuracy']:6.1%} [{record['evaluation/low']:.1%}, {record['evaluation/high']:.1%}]"
                for record in (records[0], records[-1])
            ]
            print(f"{seed:4}   {texts[0]:22}  {texts[1]:22}  {took:7.0f}", flush=True)
            before.append(records[0]["evaluation/accuracy"])
            after.append(records[-1]["evaluation/accuracy"])
            seconds.append(took)
    print(
        f"before: {min(before):.1%} to {max(before):.1%}; after: {min(after):.1%} to {max(after):.1%}, mean {statistics.mean(after):.1%}; "
        f"from under 35 % to over 70 %: {sum(b < 0.35 and a > 0.7 for b, a in zip(before, after, strict=True))} of {len(after)}; "
        f"seconds: median {statistics.median(seconds):.0f}, longest {max(seconds):.0f}"
    )


if __name__ == "__main__":
    main()
