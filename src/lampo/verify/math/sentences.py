r"""The few words of a sentence around an answer: "The largest $n$ is 34", "$k\pi$ for any integer $k$"."""

from __future__ import annotations

import re

_LEAD_IN = re.compile(
    r"(?:(?:Solution|Answer|Ans)\s*(?:is)?\s*:"
    r"|(?:(?:The|Thus|So|Hence|Therefore|Its|There|It|Our)\b,?)(?P<words>(?:\s+(?:[A-Za-z][A-Za-z'-]*,?|\\?[A-Za-z]+(?:_\{?[a-z0-9]\}?)?)){0,10}?)"
    r"\s+(?:is|are|equals|will be|must be)\b:?)\s*(?=[-+(\[{0-9\\a-zA-Z.$])"
)
_TURNED = re.compile(
    r"\b(?:not|no|never|none|neither|nor|wrong|incorrect|false|less|greater|more|fewer|smaller|larger|bigger|than|least|most|"
    r"about|approximately|roughly|minus|negative|opposite|half|twice|double|triple|square|root|reciprocal|inverse|without|"
    r"either|or|if|unless|except|maybe|perhaps|cannot|can't|isn't|aren't|doesn't|think|one|another|other|first|second)\b",
    re.IGNORECASE,
)
"""Words after which the rest may be another thing than the answer."""
_SETS = {"real": "R", "integer": "Z", "natural": "N", "rational": "Q"}
_OPEN, _CLOSE = r"(?:\\text\s*\{)?\s*", r"\s*\}?\s*"
_FOR_ALL = re.compile(
    rf"[\s,;]+{_OPEN}\(?(?:(?:for|where|with)\s+)?(?:(?:any|all|every|each|some)\s+)?"
    rf"(?P<set>real|integer|natural|rational)(?:s|\s+numbers?)?{_CLOSE}(?P<name>[a-zA-Z])\)?\s*\Z"
)
_WHERE = re.compile(
    rf"[\s,;]+{_OPEN}\(?(?:where\s*\}}?\s*)?(?P<name>[a-zA-Z])\s*{_OPEN}is\s+(?:an?\s+)?(?:any\s+|arbitrary\s+)?"
    rf"(?P<set>real|integer|natural|rational)(?:\s+number)?{_CLOSE}\)?\s*\Z"
)
_ANY = re.compile(r"\(?\b(?:any|all|every|for|where|with)\b")


def without_lead_in(clean: str) -> str:
    """The answer of a sentence such as "The largest n is 34"; a text that is none, or that turns its meaning, as it is.

    >>> without_lead_in("The largest n is 34"), without_lead_in("The answer is not 34"), without_lead_in("The least it is not is 3")
    ('34', 'not 34', 'The least it is not is 3')
    """
    match = _LEAD_IN.match(clean)
    if match is None or _TURNED.search(match["words"] or ""):
        return clean
    return clean[match.end() :]


def with_domain_as_set(clean: str) -> str:
    r"""Words about a variable as a membership.

    >>> with_domain_as_set(r"k\pi for any integer k"), with_domain_as_set("n + 1, where n is an integer")
    ('k\\pi, k \\in \\mathbb{Z}', 'n + 1, n \\in \\mathbb{Z}')
    """
    match = _WHERE.search(clean) or _FOR_ALL.search(clean)
    if match is None or (match.re is _FOR_ALL and not _ANY.search(match[0])) or not clean[: match.start()].strip():
        return clean
    return rf"{clean[: match.start()]}, {match['name']} \in \mathbb{{{_SETS[match['set']]}}}"
