r"""Answers that are sentences with formulas in them: "concave up on $(0, \infty)$", "Yes. $f(x) = x^2$ works".

They are the same where their words are and their formulas are, by value. Another sentence may say the same, so nothing else is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from .latex import is_readable
from .tree import MAX_LENGTH, Malformed
from .typesetting import PLAIN_COMMANDS, clean_answer, mark_words

_DELIMITERS = re.compile(r"\\[()\[\]]|\$\$")
_DOLLAR = re.compile(r"(?<!\\)\$")
_MARK = re.compile(r"\x00\{([0-9]+)\}")
_SPLIT_BRACKET = re.compile(r"\\right\.\s*\$\s*\$\s*\\left\.")
_ORDINAL = re.compile(r"\^\s*\{?\s*\\(?:text|mathrm)\s*\{\s*(th|st|nd|rd)\s*\}\s*\}?")
_SIGN = re.compile(r"[-+=<>]|\\[a-z]+")
_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*")
_BARE_WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,}(?![A-Za-z}])")
_AROUND = " \t\n,;:.?!\"'“”"


class Sentence(NamedTuple):
    """A sentence, with an empty word in the place of each formula."""

    words: tuple[str, ...]
    formulas: tuple[str, ...]


def read_sentence(text: str) -> Sentence | None:
    r"""The words and formulas of a sentence. None for a text without words, and for one that is too long.

    >>> read_sentence(r"Concave up on $(0, \infty)$.") == read_sentence(r"\text{concave up on } (0, \infty)")
    True
    >>> read_sentence("It has 2 roots, $x$ and $-x$.").words, read_sentence(r"\frac{1}{2}")
    (('it', 'has', '', 'roots', '', 'and', ''), None)
    """
    if len(text) > MAX_LENGTH or "\x00" in text:
        return None
    try:
        text = _ORDINAL.sub(r"\\text{ \1 }", _SPLIT_BRACKET.sub("", text))
        parts = list(_parts(_DELIMITERS.sub("$", text)))
    except Malformed:
        return None
    words = tuple(word for word, _ in parts)
    formulas = tuple(formula for _, formula in parts if formula)
    return Sentence(words, formulas) if any(words) else None


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """(word, "") and ("", formula) in order."""
    pieces = _DOLLAR.split(text)
    if len(pieces) == 1:
        yield from _formula_parts(text)
        return
    begins_inside = len(pieces) % 2 == 0 and _BARE_WORD.search(pieces[0]) is None
    for i, piece in enumerate(pieces):
        is_formula = i % 2 == 1 - begins_inside
        if is_formula and is_readable(piece):
            yield "", piece.strip()
        else:
            yield from _formula_parts(piece) if is_formula else _word_parts(piece)


def _word_parts(text: str) -> Iterator[tuple[str, str]]:
    """Words outside of formulas, among which numbers are formulas too."""
    if "\\" in text:
        yield from _formula_parts(text)
        return
    for token in text.split():
        token = token.strip(_AROUND).strip("()") if _WORD.search(token) else token.strip(_AROUND)
        if _WORD.fullmatch(token) or re.search(r"[A-Za-z]", token):
            yield token.casefold(), ""
        elif token.strip("()- "):
            yield "", token


def _formula_parts(text: str) -> Iterator[tuple[str, str]]:
    r"""A formula, and the words in it: those in `\text{...}`, and all that are longer than a letter and no command."""
    texts: list[str] = []
    marked = mark_words(clean_answer(text), texts)
    if r"\begin" not in marked and "\\" not in re.sub(r"\\[ ,;]", "", marked):
        marked = _BARE_WORD.sub(lambda match: _marked(match[0], texts), marked)
    position = 0
    for mark in _MARK.finditer(marked):
        yield from _formula(marked[position : mark.start()])
        yield from _word_parts(texts[int(mark[1])])
        position = mark.end()
    yield from _formula(marked[position:])


def _formula(text: str) -> Iterator[tuple[str, str]]:
    """A formula, unless it is empty; a sign or command alone is a word."""
    if text := text.strip(_AROUND):
        yield (text, "") if _SIGN.fullmatch(text) else ("", text)


def _marked(word: str, texts: list[str]) -> str:
    if word in PLAIN_COMMANDS:
        return word
    texts.append(word)
    return f" \x00{{{len(texts) - 1}}} "
