"""Phrases that error messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known name that is spelt most like this one, whatever its case. None if none is near.

    >>> nearest("lampoo", ["grpo", "lampo"]), nearest("Question", ["answer", "question"]), nearest("x", ["lampo"])
    ('lampo', 'question', None)
    """
    by_lower = {each.lower(): each for each in reversed([*known])}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None


def joined(words: Sequence[str]) -> str:
    """Words as a sentence lists them.

    >>> joined(["a"]), joined(["a", "b"]), joined(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence to put behind the one that refuses a name, with the space before it. "" if no known name is near.

    >>> did_you_mean("lampoo", ["grpo", "lampo"]), did_you_mean("x", ["lampo"])
    (' Did you mean lampo?', '')
    """
    near = nearest(name, known)
    return f" Did you mean {near}?" if near else ""
