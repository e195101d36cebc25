"""Training problems that share text with the problems that are measured on."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..types import Problem

NGRAM = 8
"""Words in a row that two problems have to share. As in open-r1's decontamination. GPT-3 (arXiv 2005.14165) took 8 to 13,
by data set, and lm-evaluation-harness 13."""

_WORD = re.compile(r"[^\W_]+")

Gram = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """A training problem, and the problem measured on that it shares most with.

    Attributes:
        train: the training problem.
        heldout: the problem that is measured on.
        words: the longest run of words that both have.
        share: of the n-grams of the one that is measured on, how many are in the training problem, from 0 to 1. A stock
            phrase ("where m and n are relatively prime positive integers") has a small share, a copy nearly 1.
    """

    train: Problem
    heldout: Problem
    words: str
    share: float

    @property
    def is_copy(self) -> bool:
        """Whether more than half of the problem that is measured on is in the training problem."""
        return self.share > 0.5


def overlaps(train: Iterable[Problem], heldout: Sequence[Problem], ngram: int = NGRAM) -> list[Overlap]:
    r"""The training problems that share `ngram` words in a row with a problem that is measured on. The worst first.

    Words are runs of letters and digits in small letters, so punctuation, white space and the signs of LaTeX do not
    matter: `\frac{1}{2}` is the words frac, 1, 2. A problem with fewer words than that overlaps only with one of the same
    words. Takes time in proportion to the words of both sides, by an index of the n-grams that are measured on.

    >>> seen = Problem("a", "A train leaves at 5 and arrives at 7. How fast?", "")
    >>> asked = Problem("b", "a train leaves at 5, and arrives at 7; where?", "")
    >>> [(overlap.train.id, overlap.words, overlap.share) for overlap in overlaps([seen], [asked])]
    [('a', 'a train leaves at 5 and arrives at 7', 0.6666666666666666)]
    """
    holders: dict[Gram, list[int]] = defaultdict(list)
    sizes: list[int] = []
    for index, problem in enumerate(heldout):
        grams = set(_grams(_words(problem.prompt), ngram))
        sizes.append(len(grams))
        for gram in grams:
            holders[gram].append(index)
    found: list[Overlap] = []
    for problem in train:
        words = _words(problem.prompt)
        grams = _grams(words, ngram)
        if shared := {gram for gram in grams if gram in holders}:
            counts = Counter(index for gram in shared for index in holders[gram])
            index, count = max(counts.items(), key=lambda item: (item[1] / sizes[item[0]], -item[0]))
            run = _longest_run([gram in shared and index in holders[gram] for gram in grams])
            text = " ".join(words[run.start : run.stop + ngram - 1])
            found.append(Overlap(problem, heldout[index], text, count / sizes[index]))
    return sorted(found, key=lambda overlap: -overlap.share)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _grams(words: list[str], ngram: int) -> list[Gram]:
    return [tuple(words[start : start + ngram]) for start in range(max(1, len(words) - ngram + 1))] if words else []


def _longest_run(flags: Sequence[bool]) -> range:
    """Where the longest run of true flags stands.

    >>> _longest_run([True, False, True, True])
    range(2, 4)
    """
    best, start = range(0), 0
    for index, flag in enumerate(flags):
        if not flag:
            start = index + 1
        elif index + 1 - start > len(best):
            best = range(start, index + 1)
    return best
