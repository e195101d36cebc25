"""Processor seconds of the commands that train nothing: from the shell to their end.

    python benchmarks/startup.py [--repeats 3]

The limit is 0.7 s. Exits with status 1 where one is slower.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT_S = 0.7
RESPONSES = '{"completion": "It is 19.", "answer": "19"}\n{"completion": "It is 20.", "answer": "19"}\n'
COMMANDS = [
    "--help",
    "--version",
    "train --help",
    "train nosuch",
    "eval --help",
    "config quickstart",
    "methods",
    "tasks",
    "verify responses.jsonl --verifier numeric",
    "verify responses.jsonl --verifier math",
    "compare --help",
    "inspect --help",
]


def seconds(command: str, folder: str) -> float:
    """Of one start, the system's included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run([sys.executable, "-m", "lampo", *command.split()], capture_output=True, cwd=folder)
    assert ended.returncode == 0 or "nosuch" in command, ended.stderr.decode()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error("every number must be at least 1")
    print("| command | processor seconds |\n|---|---:|", flush=True)
    slow = False
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "responses.jsonl").write_text(RESPONSES)
        for command in COMMANDS:
            took = statistics.median(seconds(command, folder) for _ in range(options.repeats))
            slow |= took > LIMIT_S
            print(f"| lampo {command} | {took:.2f} |", flush=True)
    sys.exit(slow)


if __name__ == "__main__":
    main()
