r"""False accepts and false rejects of the `choice` verifier, beside the pattern of OpenAI's simple-evals.

    python benchmarks/choice_verifier.py tests/data/choice.jsonl

Lines of a file hold `gold`, `completion`, `category` and `expected`, which is how a person reads the response.
"""

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from lampo.verify import ChoiceOptions

SIMPLE_EVALS = re.compile(r"(?i)Answer[ \t]*:[ \t]*\$?([A-D])\$?")


def ours(completion: str, gold: str) -> bool:
    return ChoiceOptions().verify(completion, gold).status == "right"


def simple_evals(completion: str, gold: str) -> bool:
    """Its pattern for multiple choice, which takes the first match."""
    letter = gold if len(gold) == 1 else json.loads(gold)["letter"]
    match = SIMPLE_EVALS.search(completion)
    return match is not None and match[1].upper() == letter


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("cases", type=Path)
    parser.add_argument("--show", action="store_true", help="print the cases that LamPO's verifier gets wrong")
    options = parser.parse_args()
    cases = [json.loads(line) for line in options.cases.read_text(encoding="utf-8").splitlines()]
    verifiers: dict[str, Callable[[str, str], bool]] = {"LamPO choice": ours, "simple-evals' pattern": simple_evals}
    print("| verifier | should be right | false rejects | should be wrong | false accepts | median ms |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, accepts in verifiers.items():
        milliseconds, mistaken = [], []
        for case in cases:
            begin = time.perf_counter()
            accepted = accepts(case["completion"], case["gold"])
            milliseconds.append((time.perf_counter() - begin) * 1e3)
            if accepted != case["expected"]:
                mistaken.append(case)
        num_right = sum(case["expected"] for case in cases)
        rejects = sum(case["expected"] for case in mistaken)
        print(
            f"| {name} | {num_right} | {rejects} | {len(cases) - num_right} | {len(mistaken) - rejects} "
            f"| {statistics.median(milliseconds):.2f} |"
        )
        if options.show and name == "LamPO choice":
            for case in mistaken:
                print(f"  {case['id']}: expected {case['expected']} for {case['gold']}: {case['completion']!r}")


if __name__ == "__main__":
    main()
