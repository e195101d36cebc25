r"""Of gold answers, how many `math` reads and finds equal to themselves, and how many rewritings of them it accepts.

    python benchmarks/math_reading.py college_math.jsonl olympiadbench.jsonl

A gold answer that is given back as the same text is right without being read. So this calls the comparison itself: both
sides are read. The first table tells apart what is equal by value, what is the same expression without a value that is
computed, and what is the same sentence with formulas of the same value. The second table counts rewritings, each where it
changes an answer. `--half odd` and `--half even` take every other row, counted from 1.
Files hold a field `answer` in each line.
"""

import argparse
import json
import re
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from lampo.verify.answers import committed_answer
from lampo.verify.math.equality import SENTENCE, WRITTEN_SO, equal

_FINITE = re.compile(r"-?[0-9]+\.[0-9]+")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\}")
_LIST = re.compile(r"[^\\(){}\[\]=<>$]+(?:, ?[^\\(){}\[\]=<>$]+)+")
_WORDS = re.compile(r"[A-Za-z]{2}|\\(?:text|mathrm|mbox|begin|left|right)")
_THOUSANDS = re.compile(r"[0-9],\s?[0-9]{3}|\\!")


def large_fractions(answer: str) -> str:
    return answer.replace(r"\frac", r"\dfrac")


def large_brackets(answer: str) -> str:
    if _WORDS.search(answer) or "$" in answer.strip("$"):
        return answer
    return re.sub(r"(?<!\\)([(\[])", r"\\left\1", re.sub(r"(?<!\\)([)\]])", r"\\right\1", answer))


def small_brackets(answer: str) -> str:
    return answer if r"\begin" in answer else re.sub(r"\\(?:left|right)(?![a-z.])\s*", "", answer)


def other_spaces(answer: str) -> str:
    """Spaces around plus and equality signs and commas."""
    if _WORDS.search(re.sub(r"\\(?!text|mathrm|begin)[A-Za-z]+", "", answer)) or _THOUSANDS.search(answer):
        return answer
    return re.sub(r"\s*([=+,])\s*", r" \1 ", answer)


def in_dollars(answer: str) -> str:
    return answer if "$" in answer else f"${answer}$"


def thin_spaces(answer: str) -> str:
    return (
        answer.replace(", ", r",\ ").replace(" ", r"\,")
        if not re.search(r"[A-Za-z]{2}|[0-9] [0-9]", answer)
        else answer
    )


def slashed(answer: str) -> str:
    """1/2 for a plain fraction."""
    return f"{match[1]}{match[2]}/{match[3]}" if (match := _FRACTION.fullmatch(answer)) else answer


def as_decimal(answer: str) -> str:
    """A plain fraction as a decimal, where it has an end."""
    if (match := _FRACTION.fullmatch(answer)) is None or int(match[3]) == 0:
        return answer
    value = Fraction(int(match[2]), int(match[3]))
    places = next((k for k in range(1, 7) if (value * 10**k).denominator == 1), 0)
    whole = f"{int(value * 10**places):0{places + 1}d}"
    return f"{match[1]}{whole[:-places]}.{whole[-places:]}" if places else answer


def as_fraction(answer: str) -> str:
    """A plain decimal as a fraction."""
    if not _FINITE.fullmatch(answer):
        return answer
    value = Fraction(answer)
    sign = "-" if value < 0 else ""
    return rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def turned_round(answer: str) -> str:
    """A list of plain members without brackets in the other order."""
    is_list = _LIST.fullmatch(answer) and not _THOUSANDS.search(answer) and not re.search(r"[a-z]{4}", answer)
    return ", ".join(re.split(", ?", answer.rstrip("."))[::-1]) if is_list else answer


def braced_powers(answer: str) -> str:
    return re.sub(r"\^([0-9a-z])(?![0-9])", r"^{\1}", answer)


def other_names(answer: str) -> str:
    """The long names of signs."""
    for short, long in ((r"\le", r"\leq"), (r"\ge", r"\geq"), (r"\ne", r"\neq")):
        answer = re.sub(rf"\\{short[1:]}(?![a-z])", lambda _, long=long: long, answer)
    return answer


def with_a_point(answer: str) -> str:
    return answer if answer.endswith(".") else f"{answer}."


REWRITINGS: list[Callable[[str], str]] = [
    large_fractions, large_brackets, small_brackets, other_spaces, thin_spaces, in_dollars, braced_powers, other_names, with_a_point,
    slashed, as_decimal, as_fraction, turned_round,
]  # fmt: skip


def golds_of(path: Path, half: str | None) -> list[str]:
    lines = path.read_text(encoding="utf-8").strip().split("\n")
    golds = [str(json.loads(line)["answer"]).strip() for line in lines]
    golds = [committed_answer(gold) or gold if "boxed{" in gold else gold for gold in golds]
    return golds if half is None else golds[0 if half == "odd" else 1 :: 2]


def print_read(path: Path, golds: list[str], show: bool) -> None:
    begin = time.process_time()
    verdicts = [equal(gold, gold) for gold in golds]
    milliseconds = (time.process_time() - begin) * 1e3 / len(golds)
    read = [why for same, why in verdicts if same]
    written, sentences = read.count(WRITTEN_SO), read.count(SENTENCE)
    print(
        f"| {path.stem} | {len(golds)} | {len(read) - written - sentences} | {written} | {sentences} | {len(golds) - len(read)} "
        f"| {100 * len(read) / len(golds):.1f} % | {milliseconds:.2f} |",
        flush=True,
    )
    if show:
        for gold, (same, why) in zip(golds, verdicts, strict=True):
            if same is not True:
                print(f"    {gold!r}: {why}")


def print_rewritings(golds: list[str], show: bool) -> None:
    for rewrite in REWRITINGS:
        changed = [(gold, rewrite(gold)) for gold in golds if rewrite(gold) != gold]
        verdicts = [equal(gold, answer) for gold, answer in changed]
        right, unknown = (sum(same is value for same, _ in verdicts) for value in (True, None))
        share = f"{100 * right / len(changed):.1f} %" if changed else ""
        name = rewrite.__name__.replace("_", " ")
        print(
            f"| {name} | {len(changed)} | {right} | {len(changed) - right - unknown} | {unknown} | {share} |",
            flush=True,
        )
        if show:
            for (gold, answer), (same, why) in zip(changed, verdicts, strict=True):
                if same is False:
                    print(f"    {gold!r} {answer!r}: {why}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="JSONL files with a field `answer`")
    parser.add_argument("--half", choices=("odd", "even"), help="only the odd or the even rows")
    parser.add_argument("--show", action="store_true", help="print what is not read, and the rewritings called wrong")
    arguments = parser.parse_args()
    print(
        "| set | rows | equal by value | same expression | same sentence | not read | equal themselves | processor ms |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    all_golds: list[str] = []
    for path in arguments.files:
        golds = golds_of(path, arguments.half)
        all_golds += golds
        print_read(path, golds, arguments.show)
    print("\n| rewriting | changed | right | wrong | unknown | right |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    print_rewritings(list(dict.fromkeys(all_golds)), arguments.show)


if __name__ == "__main__":
    main()
