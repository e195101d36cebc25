"""How long `lampo inspect` takes to open a run of 100,000 rollouts, with the index that training wrote and without it.

    python benchmarks/viewer.py [ROLLOUTS]

A synthetic run in a temporary folder: steps of 16 groups of 8, each response of 150 tokens with their log-probs. Opening is
from the start of the process to the answer of the first request for the index, as the page makes it; then the first group,
and its table of pairs, for which torch is imported. Then 60 requests for the index at once. Processor seconds are those of
the server, from its start.
"""

import os
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lampo.store.rollouts import write_shard

GROUPS, SIZE, TOKENS = 16, 8, 150
WORDS = [f" word{index}" for index in range(800)]


def write_run(run: Path, num_rollouts: int) -> None:
    numbers = random.Random(0)
    (run / "rollouts").mkdir(parents=True)
    (run / "config.yaml").write_text("advantage: {name: pairwise, scale: group_std}\n")
    for step in range(1, -(-num_rollouts // (GROUPS * SIZE)) + 1):
        groups = []
        for number in range(GROUPS):
            rollouts = []
            for _ in range(SIZE):
                pieces = numbers.choices(WORDS, k=TOKENS)
                logprobs = [round(-numbers.expovariate(2), 3) for _ in pieces]
                right = numbers.random() < 0.5
                rollouts.append(
                    {
                        "text": "".join(pieces),
                        "status": "right" if right else "wrong",
                        "extracted": "1",
                        "detail": "",
                        "correctness": float(right),
                        "rouge_l": None,
                        "total": float(right),
                        "score": sum(logprobs) / TOKENS,
                        "advantage": numbers.gauss(0, 0.5),
                        "length": TOKENS,
                        "finished": True,
                        "pieces": [len(piece) for piece in pieces],
                        "logprobs": logprobs,
                    }
                )
            prompt = "".join(numbers.choices(WORDS, k=40))
            problem = {"id": f"{step}-{number}", "prompt": prompt, "answer": "1", "reference": None}
            groups.append({"step": step, "problem": problem, "rollouts": rollouts})
        write_shard(run, step, groups)


def open_run(run: Path, at_once: int = 0) -> None:
    begin = time.perf_counter()
    command = [sys.executable, "-m", "lampo", "inspect", str(run), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None

        def told(since: float, what: str, size: int = 0) -> None:
            seconds, used = time.perf_counter() - since, processor_seconds(process.pid)
            print(
                f"  {seconds:6.2f} s  {used:6.2f} s of processor  {what}" + (f"  {size / 1e6:.2f} MB" if size else "")
            )

        try:
            found = re.search(r"(http://127\.0\.0\.1:\d+/)\?token=(\S+)", process.stdout.readline())
            assert found is not None
            address, token = found.groups()
            told(begin, "it listens")

            def ask(what: str) -> int:
                request = urllib.request.Request(address + what, headers={"Authorization": f"token {token}"})
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return len(answer.read())

            for what in ("index", "group?place=1&number=0", "pairs?place=1&number=0", "pairs?place=2&number=3"):
                told(begin, what, ask(f"api/{what}"))
            if at_once:
                since = time.perf_counter()
                with ThreadPoolExecutor(at_once) as pool:
                    told(
                        since, f"{at_once} requests for the index at once", sum(pool.map(ask, ["api/index"] * at_once))
                    )
        finally:
            process.terminate()


def processor_seconds(pid: int) -> float:
    """What a process has used by now (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    num_rollouts = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "synthetic"
        begin = time.perf_counter()
        write_run(run, num_rollouts)
        index = run / "rollouts" / "index.jsonl"
        shards = sum(file.stat().st_size for file in (run / "rollouts").glob("*.gz"))
        print(f"{num_rollouts:,} rollouts, written in {time.perf_counter() - begin:.0f} s")
        print(f"shards {shards / 1e6:.0f} MB, index {index.stat().st_size / 1e6:.1f} MB")
        print("with the index that training wrote, twice:")
        open_run(run)
        open_run(run, at_once=60)
        index.unlink()
        print("without it, as a run of an older version, once; the index is written then:")
        open_run(run)


if __name__ == "__main__":
    main()
