"""How long verifications that never end hold up the pool, those that sleep and those that spin.

PYTHONPATH=. python benchmarks/spinning.py --number 16 --timeout 2
"""

import argparse
import time

from lampo.verify import VerifierPool, verifier


def verify(completion: str, answer: str) -> bool:
    """A user's own verifier that never ends where it is told to."""
    if completion == "sleep":
        time.sleep(3600)
    while completion == "spin":
        pass
    return completion == answer


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--number", type=int, default=16)
    parser.add_argument("--timeout", type=float, default=2.0)
    options = parser.parse_args()
    own = verifier("python:benchmarks.spinning.verify", timeout_s=options.timeout)
    print(f"| {options.number} verifications that | s |\n| --- | ---: |")
    for said in ("sleep", "spin"):
        with VerifierPool(workers=2) as pool:
            pool.verify(own, ["4"], ["4"])  # started
            begin = time.monotonic()
            pool.verify(own, [said] * options.number, ["4"] * options.number)
            print(f"| {said} | {time.monotonic() - begin:.1f} |", flush=True)


if __name__ == "__main__":
    main()
