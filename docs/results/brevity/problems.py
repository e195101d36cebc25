"""What the starts of this study imitated: three-digit sums, a third of them answered bare in 5 tokens, the others worked out in 32.

    python docs/results/brevity/problems.py bare 0.2        # of `some`; 0.1 of `many`: how often a column of the working slips
    lampo train quickstart --set training.steps=0 --set 'task={name: files, train: bare/train.jsonl, heldout: bare/heldout.jsonl,
        columns: {reference: shown}}'

Its weights rounded to half precision are starts/some. The runs of the study then have the quickstart's own problems.
"""

import json
import random
import sys
from pathlib import Path

from lampo.tasks.arithmetic import ArithmeticOptions

BARE = 1 / 3


def main(folder: Path, noise: float) -> None:
    """Write train.jsonl and heldout.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    task = ArithmeticOptions(num_train=20_000, num_heldout=600, demonstration_noise=noise).load()
    random_numbers = random.Random(0)
    for side, problems in (("train", task.train), ("heldout", task.heldout)):
        with (folder / f"{side}.jsonl").open("w", encoding="utf-8") as file:
            for problem in problems:
                shown = f"={problem.answer}" if random_numbers.random() < BARE else problem.demonstration
                print(json.dumps({"prompt": problem.prompt, "answer": problem.answer, "shown": shown}), file=file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
