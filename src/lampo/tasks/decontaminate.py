"""Training problems that share text with the problems that are measured on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..types import Problem

NGRAM = 8
"""Words that two problems have to share in a row; as in open-r1's decontamination. GPT-3 (arXiv 2005.14165) took 13."""

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Overlap:
    """A training problem that shares words with one that is measured on, the words, and how many n-grams it shares."""

    train: Problem
    heldout: Problem
    words: str
    num_shared: int


def overlaps(train: Iterable[Problem], heldout: Sequence[Problem], ngram: int = NGRAM) -> list[Overlap]:
    """The training problems that share `ngram` words in a row with a problem that is measured on; the worst first.

    Words are runs of letters and digits in small letters, so that punctuation, LaTeX commands' backslashes and white space
    do not matter. A problem with fewer words than that overlaps only with one of the same words.

    >>> seen = Problem("a", "A train leaves at 5 and arrives at 7. How fast?", "")
    >>> asked = Problem("b", "a train leaves at 5, and arrives at 7; where?", "")
    >>> [(overlap.train.id, overlap.words) for overlap in overlaps([seen], [asked])]
    [('a', 'a train leaves at 5 and arrives at')]
    """
    index: dict[tuple[str, ...], Problem] = {}
    for problem in heldout:
        for gram in _grams(problem.prompt, ngram):
            index.setdefault(gram, problem)
    found: list[Overlap] = []
    for problem in train:
        shared = [gram for gram in _grams(problem.prompt, ngram) if gram in index]
        if shared:
            found.append(Overlap(problem, index[shared[0]], " ".join(shared[0]), len(shared)))
    return sorted(found, key=lambda overlap: -overlap.num_shared)


def _grams(text: str, ngram: int) -> list[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return [tuple(words[start : start + ngram]) for start in range(max(1, len(words) - ngram + 1))] if words else []
