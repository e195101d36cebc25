"""How long the viewer takes to open long dumps of TRL and verl: until a step that is asked for is there, and until all is.

    python benchmarks/trainer_dumps.py [STEPS]

Made-up dumps in a temporary folder, with the columns of tests/data/trainers: steps of 32 groups of 8, each response of 4,000
characters. The first answer is what the page waits for. Then it shows the step, and reads the others.
"""

import json
import random
import sys
import tempfile
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet

from lampo.view.inspect.server import PATIENCE_S
from lampo.view.inspect.source import open_source

GROUPS, SIZE, CHARACTERS = 32, 8, 4_000
WORDS = [f" word{index}" for index in range(800)]


def write_dumps(folder: Path, num_steps: int) -> None:
    numbers = random.Random(0)
    (folder / "trl" / "completions").mkdir(parents=True)
    (folder / "verl").mkdir()
    for step in range(1, num_steps + 1):
        prompts = ["".join(numbers.choices(WORDS, k=40)) for _ in range(GROUPS) for _ in range(SIZE)]
        prompts = [prompts[at - at % SIZE] for at in range(GROUPS * SIZE)]
        texts = ["".join(numbers.choices(WORDS, k=CHARACTERS // 7))[:CHARACTERS] for _ in prompts]
        rewards = [float(numbers.random() < 0.5) for _ in prompts]
        columns = {"step": [step] * len(prompts), "prompt": prompts, "completion": texts}
        columns |= {"accuracy_reward": rewards, "advantage": [numbers.gauss(0, 1) for _ in prompts]}
        pyarrow.parquet.write_table(
            pyarrow.table(columns), folder / "trl" / "completions" / f"completions_{step:05}.parquet"
        )
        lines = [
            {
                "input": prompt,
                "output": text,
                "gts": "1",
                "score": reward,
                "step": step,
                "uid": f"{at // SIZE}_{at % SIZE}_0",
            }
            for at, (prompt, text, reward) in enumerate(zip(prompts, texts, rewards, strict=True))
        ]
        (folder / "verl" / f"{step}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def main() -> None:
    num_steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as scratch:
        write_dumps(Path(scratch), num_steps)
        for trainer in ("trl", "verl"):
            folder = Path(scratch) / trainer
            megabytes = sum(file.stat().st_size for file in folder.rglob("*.*")) / 1e6
            print(f"{trainer}: {num_steps} steps, {num_steps * GROUPS * SIZE:,} responses, {megabytes:.0f} MB")
            begin, used = time.perf_counter(), time.process_time()

            def told(what: str, begin: float = begin, used: float = used) -> None:
                seconds, processor = time.perf_counter() - begin, time.process_time() - used
                print(f"  {seconds:6.2f} s  {processor:6.2f} s of processor  {what}")

            source = open_source(folder)
            index = source.index(str(num_steps), 0)
            told(f"the last step, {len(index['groups'])} groups")
            source.group(str(num_steps), 3)
            told("a group of it, whole")
            index = source.index(str(num_steps), PATIENCE_S)
            told(f"as much as a page waits for, {num_steps - index['unread']} steps")
            source.index()
            told("all")


if __name__ == "__main__":
    main()
