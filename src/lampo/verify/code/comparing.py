"""Whether what a program stated is what a test expects. Nothing here runs code, or trusts what came out of the sandbox."""

from __future__ import annotations

import functools
import json
import math
import re
from fractions import Fraction
from typing import Any

_WHOLE = re.compile(r"[-+]?\d+")
_FLOAT = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(\.\d*)?[eE][-+]?\d+|\d*\.\d+[eE][-+]?\d+)")
FLOAT_TOLERANCE = 1e-6
MAX_VALUE_DEPTH = 50


def same_output(output: str, expected: str, *, whole_by_value: bool = False) -> bool:
    """Whether two outputs are the same to a public grader: line by line, white space at the ends and its amount aside.

    A word that is expected to be a decimal number ("0.50", "1e-3") may differ by 1e-6, absolutely or relatively. A whole
    number may not, unless `whole_by_value` lets 2.0 pass for 2. The output has to be there to its last line: a right
    beginning is not enough.

    >>> same_output("1  2 \\n0.3333333\\n\\n", "1 2\\n0.33333333"), same_output("1", "1\\n2"), same_output("1.0", "1")
    (True, False, False)
    """
    same_word = functools.partial(_same_word, whole_by_value=whole_by_value)
    lines, expected_lines = ([line.split() for line in text.rstrip().split("\n")] for text in (output, expected))
    return len(lines) == len(expected_lines) and all(
        len(words) == len(expected_words) and all(map(same_word, words, expected_words))
        for words, expected_words in zip(lines, expected_lines, strict=True)
    )


def _same_word(word: str, expected: str, *, whole_by_value: bool) -> bool:
    if word == expected:
        return True
    if whole_by_value and _WHOLE.fullmatch(expected) and _FLOAT.fullmatch(word) and len(word) + len(expected) <= 120:
        return "e" not in word.casefold() and Fraction(word) == int(expected)
    if not _FLOAT.fullmatch(expected) or len(word) > 60:
        return False
    try:
        return math.isclose(float(word), float(expected), rel_tol=FLOAT_TOLERANCE, abs_tol=FLOAT_TOLERANCE)
    except ValueError:
        return False


def same_json(value: Any, expected: Any) -> bool:
    """Equality with a JSON value: tuples are lists, keys of objects are text, decimals may differ by 1e-6."""
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(map(same_json, value, expected))
    if isinstance(value, dict) and isinstance(expected, dict):
        named = {key if isinstance(key, str) else json.dumps(key): item for key, item in value.items()}
        return named.keys() == expected.keys() and all(same_json(named[key], expected[key]) for key in expected)
    if isinstance(value, bool) != isinstance(expected, bool):
        return False
    if isinstance(expected, float) and isinstance(value, int | float):
        return math.isclose(value, expected, rel_tol=FLOAT_TOLERANCE, abs_tol=FLOAT_TOLERANCE)
    return type(value) is type(expected) and value == expected


def plain_value(value: Any, most_members: int, depth: int = 0) -> Any:
    """The value that the sandbox stated, of plain types only.

    Its sets and dicts may have so many members: the program can choose numbers that all have one hash, and to put those
    into one set takes time as their square.
    """
    if depth > MAX_VALUE_DEPTH:
        raise ValueError("nested too deeply")
    if not isinstance(value, dict):
        if isinstance(value, list):
            raise TypeError("untagged")
        return value
    ((kind, items),) = value.items()
    if kind in ("dict", "set", "frozenset") and len(items) > most_members:
        raise ValueError("more members than any set or dict that is expected")
    if kind == "dict":
        return {
            plain_value(key, most_members, depth + 1): plain_value(item, most_members, depth + 1) for key, item in items
        }
    if kind == "complex":
        return complex(*items)
    build = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind]
    return build(plain_value(item, most_members, depth + 1) for item in items)


def largest(value: Any) -> int:
    """How many members the largest set or dict within a value has."""
    if isinstance(value, dict):
        return max([len(value), *map(largest, value), *map(largest, value.values())])
    if isinstance(value, list | tuple | set | frozenset):
        own = len(value) if isinstance(value, set | frozenset) else 0
        return max([own, *map(largest, value)])
    return 0
