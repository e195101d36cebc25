"""Text that a file can hold: JSON may say half of a character (a lone surrogate), which no encoding has."""

from __future__ import annotations

import re
from typing import Any

HALF = re.compile("[\ud800-\udfff]")


def writable(value: Any) -> Any:
    r"""A text, or all texts in lists and mappings, with the replacement character in the place of half ones.

    What has none is returned as it is, the same object.

    >>> writable({"a": ["x\ud83dy", 1]})
    {'a': ['x\ufffdy', 1]}
    """
    match value:
        case str():
            return HALF.sub("\ufffd", value) if HALF.search(value) else value
        case dict():
            changed = {writable(key): writable(inner) for key, inner in value.items()}
            same = all(key in value and value[key] is inner for key, inner in changed.items())
            return value if same else changed
        case list():
            items = [writable(inner) for inner in value]
            return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
        case _:
            return value
