"""ROUGE-L through rapidfuzz against the package rouge_score, on the same tokens in the same run.

The tokens are words drawn from 500, as a text of that length might have. Best of several calls, one call of rouge_score
at the longest. The table's last column is what counts: both sides share the machine's mood.
"""

import random
import time
from collections.abc import Callable

from rouge_score import rouge_scorer

from lampo import rouge_l

LENGTHS = {250: 5, 1_000: 3, 4_000: 1}
"""Tokens of either text -> calls of rouge_score."""


def best_seconds(function: Callable[[], float], calls: int) -> float:
    seconds: list[float] = []
    for _ in range(calls):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def main() -> None:
    numbers = random.Random(0)
    words = [f"word{index}" for index in range(500)]
    print(f"{'tokens':>8} {'lampo ms':>12} {'rouge_score ms':>16} {'ratio':>10}")
    for length, calls in LENGTHS.items():
        candidate, reference = numbers.choices(words, k=length), numbers.choices(words, k=length)
        theirs = rouge_scorer._score_lcs(reference, candidate).fmeasure
        assert abs(rouge_l(candidate, reference) - theirs) <= 1e-12
        ours_s = best_seconds(lambda: rouge_l(candidate, reference), 20)  # noqa: B023
        theirs_s = best_seconds(lambda: rouge_scorer._score_lcs(reference, candidate).fmeasure, calls)  # noqa: B023
        print(f"{length:>8,} {ours_s * 1e3:>12.3f} {theirs_s * 1e3:>16.1f} {theirs_s / ours_s:>9,.0f}x")


if __name__ == "__main__":
    main()
