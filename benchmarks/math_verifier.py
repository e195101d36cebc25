"""False accepts and false rejects of the `math` verifier, beside math-verify as it comes and with TRL's settings.

    python benchmarks/math_verifier.py --math500 math500.jsonl --tricky tests/data/tricky_math.jsonl tests/data/more_math.jsonl

    python benchmarks/math_verifier.py --golds college_math.jsonl olympiadbench.jsonl --rows 300

The second takes gold answers (`answer`) of sets that nobody tuned on: each beside itself, with one digit changed, and beside another.
Lines of the tricky files hold `gold`, `completion` and `expected`; those of MATH-500 `answer` and `solution`. All run in
this process, math-verify with its own time limits. Nothing but "right" is an accept: a verdict "unknown" on a case that
is expected to be right counts as a false reject.
"""

import argparse
import json
import logging
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from lampo.verify.math.verifier import MathOptions

Verifier = Callable[[str, str], bool]


class Case(NamedTuple):
    completion: str
    gold: str
    expected: bool


def ours() -> Verifier:
    verifier = MathOptions()
    verifier.warm_up()
    return lambda completion, gold: verifier.verify(completion, gold).status == "right"


def math_verify_default() -> Verifier:
    from math_verify import parse, verify

    return lambda completion, gold: bool(verify(parse(in_dollars(gold)), parse(completion)))


def math_verify_as_in_trl() -> Verifier:
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    config = LatexExtractionConfig(
        normalization_config=NormalizationConfig(units=True),
        boxed_match_priority=0,
        try_extract_without_anchor=False,
    )

    def accepts(completion: str, gold: str) -> bool:
        answer = parse(completion, extraction_config=[config], extraction_mode="first_match")
        return bool(verify(parse(in_dollars(gold)), answer))

    return accepts


VERIFIERS: dict[str, Callable[[], Verifier]] = {
    "LamPO math": ours,
    "math-verify": math_verify_default,
    "math-verify, TRL's settings": math_verify_as_in_trl,
}


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").strip().split("\n")]


def without_dollars(answer: str) -> str:
    """A formula without its dollar signs; one with words between formulas keeps them."""
    return answer[1:-1].strip() if re.fullmatch(r"\$[^$]+\$", answer) else answer


def in_dollars(gold: str) -> str:
    return gold if "$" in gold else f"${gold}$"


def boxed(answer: str) -> str:
    return rf"So the answer is \boxed{{{answer}}}." if "$" in answer else rf"So the answer is $\boxed{{{answer}}}$."


def one_digit_changed(golds: list[str], generator: random.Random) -> Iterator[Case]:
    for gold in golds:
        places = [i for i, character in enumerate(gold) if character.isdigit()]
        if places:
            place = generator.choice(places)
            digit = generator.choice(sorted(set("0123456789") - {gold[place]}))
            yield Case(boxed(gold[:place] + digit + gold[place + 1 :]), gold, False)


def gold_suites(name: str, golds: list[str], generator: random.Random) -> Iterator[tuple[str, list[Case]]]:
    yield f"{name}, gold itself", [Case(boxed(gold), gold, True) for gold in golds]
    yield f"{name}, one digit changed", list(one_digit_changed(golds, generator))
    others = [(gold, generator.choice(golds)) for gold in golds]
    yield f"{name}, another gold", [Case(boxed(other), gold, False) for gold, other in others if other != gold]


def suites(
    math500: Path | None, tricky: list[Path], files: list[Path], most: int | None
) -> Iterator[tuple[str, list[Case]]]:
    for path in tricky:
        yield path.stem, [Case(row["completion"], row["gold"], row["expected"]) for row in rows(path)]
    for path in files:
        golds = [without_dollars(str(row["answer"]).strip()) for row in rows(path)]
        chosen = random.Random(0).sample(golds, min(most or len(golds), len(golds)))
        yield from gold_suites(path.stem, chosen, random.Random(0))
    if math500 is None:
        return
    problems = rows(math500)
    golds = [row["answer"] for row in problems]
    generator = random.Random(0)
    yield "MATH-500, gold itself", [Case(boxed(gold), gold, True) for gold in golds]
    yield "MATH-500, reference solution", [Case(row["solution"], row["answer"], True) for row in problems]
    yield "MATH-500, one digit changed", list(one_digit_changed(golds, generator))
    others = [(gold, generator.choice(golds)) for gold in golds]
    yield "MATH-500, another gold", [Case(boxed(other), gold, False) for gold, other in others if other != gold]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--math500", type=Path)
    parser.add_argument("--tricky", type=Path, nargs="*", default=[])
    parser.add_argument("--golds", type=Path, nargs="*", default=[], help="JSONL files with a field `answer`")
    parser.add_argument("--rows", type=int, help="at most so many rows of each of --golds, drawn by a seed")
    parser.add_argument("--show", action="store_true", help="print the cases that LamPO's verifier gets wrong")
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)  # math-verify tells of each time-out
    verifiers = {name: make() for name, make in VERIFIERS.items()}
    print(
        "| cases | verifier | should be right | false rejects | should be wrong | false accepts | median ms | p99 ms |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for suite, cases in suites(arguments.math500, arguments.tricky, arguments.golds, arguments.rows):
        for name, accepts in verifiers.items():
            milliseconds, wrong = [], []
            for case in cases:
                begin = time.perf_counter()
                accepted = accepts(case.completion, case.gold)
                milliseconds.append((time.perf_counter() - begin) * 1e3)
                if accepted != case.expected:
                    wrong.append(case)
            num_right = sum(case.expected for case in cases)
            rejects = sum(case.expected for case in wrong)
            p99 = statistics.quantiles(milliseconds, n=100)[98]
            print(
                f"| {suite} | {name} | {num_right} | {rejects} | {len(cases) - num_right} | {len(wrong) - rejects} "
                f"| {statistics.median(milliseconds):.2f} | {p99:.1f} |",
                flush=True,
            )
            if arguments.show and name == "LamPO math":
                for case in wrong:
                    print(
                        f"    {case.gold!r} {case.completion[-100:]!r}: {'rejected' if case.expected else 'accepted'}"
                    )


if __name__ == "__main__":
    main()
