"""Three-digit sums whose solutions are worked out or bare: `python docs/results/brevity/problems.py FOLDER` writes train.jsonl and heldout.jsonl.

The warm start imitates them: a third are the bare answer, 5 tokens, and the others are worked out with slips, 32 tokens. So a policy can choose
how long to answer, which no tiny task of this project lets it do.
"""

import json
import random
import sys
from pathlib import Path

from lampo.tasks.arithmetic import ArithmeticOptions

BARE = 1 / 3


def main(folder: Path) -> None:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    task = ArithmeticOptions(num_train=20_000, num_heldout=600, demonstration_noise=0.1).load()
    random_numbers = random.Random(0)
    for side, problems in (("train", task.train), ("heldout", task.heldout)):
        with (folder / f"{side}.jsonl").open("w", encoding="utf-8") as file:
            for problem in problems:
                shown = f"={problem.answer}" if random_numbers.random() < BARE else problem.demonstration
                row = {"prompt": problem.prompt, "answer": problem.answer, "shown": shown}
                print(json.dumps(row), file=file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
