r"""What an answer is called that uses mathematics which is not read: wrong, unless that is more ours to answer for than its own.

"Unknown" leaves a rollout out of the update. An answer that could choose to be unknown, by a stray `\sum`, could step out
of being judged.
"""

from __future__ import annotations

import re

from .tree import Node

_UNREAD_ALONE = re.compile(r"\\(?:i{0,3}int|oint|sum|prod|lim|[lcv]?dots)(?![A-Za-z])[\s$.)}\]]*\Z")


def may_be_unread(gold: Node, answer: str) -> bool:
    r"""Whether an answer that cannot be read may still be the gold answer, written otherwise.

    Where the gold answer holds no variable it may not: a value is what was asked for. Where it does, the answer has to hold one
    of its variables, and may not end in a sign that asks for more.

    >>> from .latex import read_answer
    >>> gold = read_answer(r"\frac{n(n+1)}{2}")
    >>> may_be_unread(gold, r"\sum_{k=1}^n k"), may_be_unread(gold, r"n\sum"), may_be_unread(read_answer("2"), r"\sum_{k=1}^n k")
    (True, False, False)
    """
    if _UNREAD_ALONE.search(answer):
        return False
    names = {name.partition("_")[0].lstrip("\\") for name in _names(gold)}
    return bool(
        names & set(re.findall(r"[A-Za-z]+", answer)) or names & set(re.findall(r"(?<![A-Za-z\\])[A-Za-z]", answer))
    )


def _names(node: Node) -> set[str]:
    own = {str(node.value)} if node.op == "symbol" else set()
    return own.union(*map(_names, node.args))
