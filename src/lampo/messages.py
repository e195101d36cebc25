"""Phrases that error messages share."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from .types import LampoError

STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that steer a terminal or turn the order of text around, line feed and tab left out, and half ones, which none can show."""


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known name that is spelt most like this one, whatever its case, one with the same letters first. None if none is near.

    >>> nearest("lampoo", ["grpo", "lampo"]), nearest("Question", ["answer", "question"]), nearest("x", ["lampo"])
    ('lampo', 'question', None)
    """
    by_lower = {each.lower(): each for each in reversed([*known])}
    found = difflib.get_close_matches(name.lower(), by_lower, cutoff=cutoff)
    found.sort(key=lambda each: sorted(each) != sorted(name.lower()))  # two letters that changed places
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


def refuse_settings(who: str, found: Iterable[str], otherwise: str) -> None:
    """Refuse a recipe for all of its settings that somebody cannot honour, in one message.

    Args:
        who: cannot.
        found: the settings, a sentence each.
        otherwise: what to do, if not to change them.

    Raises:
        LampoError: there are some.
    """
    if lines := [f"  {line}" for line in found]:
        raise LampoError("\n".join([f"{who} cannot honour these settings:", *lines, f"Change them, or {otherwise}"]))


def printable(text: str) -> str:
    r"""Text from models and files as a terminal may show it: what would steer the terminal is an escape.

    >>> print(printable("red: \x1b[31m, π\r"))
    red: \x1b[31m, π\x0d
    """
    return STEERING.sub(
        lambda found: f"\\x{ord(found[0]):02x}" if found[0] < "\xff" else f"\\u{ord(found[0]):04x}", text
    )


def names_of(option: str, given: str, known: Sequence[str]) -> list[str]:
    """The names in a list that was given on the command line, separated by commas.

    Raises:
        LampoError: there is none.
    """
    names = [name for name in map(str.strip, given.split(",")) if name]
    if not names:
        raise LampoError(f"{option} {given!r} names none. Known: {', '.join(known)}.")
    return names
