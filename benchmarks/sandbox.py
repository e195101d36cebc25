"""What the sandbox costs: an empty Python program bare, with limits only, and in the sandbox; the same without Python, which
leaves namespaces, groups and pipes; and many at once.

python benchmarks/sandbox.py
"""

import argparse
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from lampo.verify.code.sandbox import Limits, find_sandbox
from lampo.verify.code.sandbox.unsafe import UnsafeLocal


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    options = parser.parse_args()
    sandbox, unsafe = find_sandbox(), UnsafeLocal()
    command = [sandbox.python, "-I", "-S", "-c", "pass"]
    ways: dict[str, Callable[[], object]] = {
        "bare subprocess": lambda: subprocess.run(command, capture_output=True, check=True),
        "limits only (unsafe)": lambda: unsafe.run({}, command, b"", Limits()),
        "sandbox": lambda: sandbox.run({}, command, b"", Limits()),
        "bare subprocess, /bin/true": lambda: subprocess.run(["/bin/true"], capture_output=True, check=True),
        "sandbox, /bin/true": lambda: sandbox.run({}, ["/bin/true"], b"", Limits()),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.runs):
        for name, run in ways.items():  # in turn, so that a busy moment hits all of them
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    bare = statistics.median(seconds["bare subprocess"])
    print("| way | median ms | above bare, ms | ratio | fastest tenth, ms |\n| --- | ---: | ---: | ---: | ---: |")
    for name, taken in seconds.items():
        median, quick = statistics.median(taken), statistics.quantiles(taken, n=10)[0]
        print(
            f"| {name} | {1e3 * median:.1f} | {1e3 * (median - bare):.1f} | {median / bare:.2f} | {1e3 * quick:.1f} |"
        )
    print("\n| at once | sandboxed runs a second |\n| ---: | ---: |")
    for workers in (1, 2, 4):
        with ThreadPoolExecutor(workers) as pool:
            begin = time.perf_counter()
            list(pool.map(lambda _: ways["sandbox"](), range(options.runs)))
            print(f"| {workers} | {options.runs / (time.perf_counter() - begin):.0f} |")


if __name__ == "__main__":
    main()
