r"""The answer that a response commits to: its last box, GSM8K's `#### answer`, or "the answer is ..."."""

from __future__ import annotations

import re

from .verifier_options import committed_text

_BOX_PART = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])|\\?[{}]")
_OPENING = re.compile(r"\s*\{")
_UNBRACED = re.compile(r"[ \t]*(-?[0-9][0-9.,/]*|\\?[A-Za-z]+|[^\s{}])")
_BETWEEN = re.compile(
    r"[\s$.]*(?:\\[()\[\]]\s*)*(?:[,;]|\\(?:text|mbox)\s*\{\s*(?:and|or|,)\s*\}|and|or|\\quad|\\,|\s|\$|\\[()\[\]])*"
)
_SEPARATOR = re.compile(r"[,;]|\b(?:and|or)\b")
_HASHES = re.compile(r"####[ \t]*(?=[-−+$£€\\(\[{.√π½0-9])(?![0-9]+[.)][ \t]+[A-Za-z])([^\n]*)")
_PHRASE = re.compile(
    r"answers?(?:[ ]{1,3}(?:to|for|of)[ ]{1,3}(?:this|the|your|that|our)[ ]{1,3}\w{1,20}){0,2}"
    r"[ \t*_]{0,8}(?:(?:is|are)\b|[=:]|#{0,6}[ \t]{0,8}\n)[ \t*_]{0,8}:?",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=[\s*_)\"']|\Z)|\n\s*\n|\n(?=\S)")
_AFTER_ANSWER = re.compile(r",?[ \t]+(?:because|since|as|which|hence|so|where|when|if|after|by|I|we)\b", re.IGNORECASE)
_MATH = re.compile(
    r"\$\$(?P<a>[^$]*)\$\$|\$(?P<b>(?:[^$\\]|\\.)+)\$|\\\((?P<c>(?:(?!\\\().)*?)\\\)|\\\[(?P<d>(?:(?!\\\[).)*?)\\\]",
    re.DOTALL,
)
_STATES = re.compile(r"[^a-z\s,.;:!?'’\"“”()_*-]|(?<![A-Za-z'’])[b-z](?![A-Za-z'’])")
"""A figure, a sign, a capital or a letter alone: what tells an answer from words about it ("correct", "helpful")."""
_MAX_PHRASE = 1500


def committed_answer(completion: str) -> str | None:
    r"""The last answer that a response commits to. None if it commits to none.

    Only the text after the last `</think>` counts, and nothing does while a thought is open. In it, the first of these
    that occurs is taken:

    1. The last complete `\boxed{...}` or `\fbox{...}`. Boxes joined by a comma, "and" or "or" are one answer: the list.
       After a box that is not closed nothing is committed to: the response was cut off.
    2. What follows the last `####`, up to the end of the line.
    3. What follows the last "answer is" or "answer:", up to the end of the sentence. Small words alone ("this answer is
       correct") count after a colon only, or where no other such sentence says more.

    >>> committed_answer(r"<think>\boxed{1}</think>So \boxed{2}, no, \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
    >>> committed_answer(r"$\boxed{3}$ and $\boxed{5}$"), committed_answer(r"\boxed{3}, thus \boxed{5")
    ('3, 5', None)
    >>> committed_answer("The answer is **$4.50**. I am sure."), committed_answer("It is 4.")
    ('$4.50', None)
    >>> committed_answer("The answer is 42. I hope this answer is helpful."), committed_answer("The answer is east.")
    ('42', 'east')
    """
    text = committed_text(completion)
    if (boxed := boxed_answer(text)) is not None:
        return boxed or None
    if hashes := list(_HASHES.finditer(text)):
        return hashes[-1][1].strip() or None
    return _phrase(text)


def boxed_answer(text: str) -> str | None:
    r"""What stands in the last boxes of a text. Empty if nothing does or the text ends inside of a box, None without a box.

    >>> boxed_answer(r"\boxed{A}, no: \fbox{\text{\textbf{B}}}"), boxed_answer(r"\boxed{A}, no: \boxed{"), boxed_answer("A")
    ('\\text{\\textbf{B}}', '', None)
    """
    boxes, cut_off = _boxes(text)
    if cut_off:
        return ""
    return _joined(text, boxes) if boxes else None


def ends_inside_box(text: str) -> bool:
    """Whether a text ends inside of a box: it was cut off."""
    return _boxes(text)[1]


def _boxes(text: str) -> tuple[list[tuple[int, int, str]], bool]:
    """(start, end, content) of the outermost complete boxes in order, and whether the text ends inside of another."""
    boxes: list[tuple[int, int, str]] = []
    open_braces: list[tuple[int, int] | None] = []  # of a box: where it starts, and where its content does
    position = 0
    while match := _BOX_PART.search(text, position):
        position = match.end()
        token = match[0]
        if token == "{":
            open_braces.append(None)
        elif token == "}":
            box = open_braces.pop() if open_braces else None
            if box is not None:
                start, content = box
                while boxes and boxes[-1][0] > start:  # boxes inside of this one
                    boxes.pop()
                boxes.append((start, match.end(), _unboxed(text[content : match.start()])))
        elif len(token) > 2:
            if brace := _OPENING.match(text, position):
                position = brace.end()
                open_braces.append((match.start(), position))
            elif bare := _UNBRACED.match(text, position):
                position = bare.end()
                boxes.append((match.start(), position, bare[1].rstrip(".,")))
            else:
                open_braces.append((match.start(), position))
    last_end = boxes[-1][0] if boxes else -1
    cut_off = any(box is not None and box[0] > last_end for box in open_braces)
    return boxes, cut_off


def _unboxed(content: str) -> str:
    return re.sub(r"\\+(?:boxed|fbox)(?=\s*\{)", "", content).strip()


def _joined(text: str, boxes: list[tuple[int, int, str]]) -> str:
    """The last box, with those before it that are joined to it by a comma, "and" or "or"."""
    contents = [boxes[-1][2]]
    for (_, end, content), (start, _, _) in zip(reversed(boxes[:-1]), reversed(boxes), strict=False):
        between = text[end:start]
        if len(between) > 40 or not _SEPARATOR.search(between) or not _BETWEEN.fullmatch(between):
            break
        contents.append(content)
    return ", ".join(reversed(contents))


def _phrase(text: str) -> str | None:
    lowered, words = text.lower(), None
    position = len(lowered) if len(lowered) == len(text) else -1
    for _ in range(50):
        position = lowered.rfind("answer", 0, max(position, 0))
        if position < 0:
            break
        if match := _PHRASE.match(text, position):
            said = _sentence(text[match.end() : match.end() + _MAX_PHRASE])
            if said and (match[0].rstrip(" *_").endswith((":", "\n")) or _STATES.search(said)):
                return said
            words = words or said
    return words or None


def _sentence(text: str) -> str:
    """The answer at the beginning of a text: its first sentence, without what explains it."""
    text = text.strip().removeprefix("**").lstrip(" :").lstrip()
    masked = _MATH.sub(lambda match: "x" * len(match[0]), text)
    if end := _SENTENCE_END.search(masked):
        text, masked = text[: end.start()], masked[: end.start()]
    if reason := _AFTER_ANSWER.search(masked):
        text = text[: reason.start()]
    text = text.strip().strip("*_`").strip()
    first = _MATH.match(text)
    if first:
        rest = text[first.end() :].strip(" *_")
        if not rest or not (
            re.match(r"(?:or|and|,|;|%|\\%)", rest) or re.fullmatch(r"[A-Za-z]+(?: [A-Za-z]+){0,2}", rest)
        ):
            return next(group for group in first.groups() if group is not None).strip()
    return _MATH.sub(lambda match: next(group for group in match.groups() if group is not None), text).strip()
