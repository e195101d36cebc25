"""What a verifier has to offer, and the text that it may look at."""

from __future__ import annotations

from pydantic import Field

from ..options import Options
from ..types import Verdict

THOUGHT_BEGIN, THOUGHT_END = "<think>", "</think>"


class Verifier(Options):
    """Settings common to all verifiers; a verifier adds a `name` and its own."""

    marker: str | None = Field(default=None, min_length=1)
    """The answer stands after the last occurrence of this text, such as "####"; a response without it gives none."""

    def verify(self, completion: str, answer: str) -> Verdict:
        """Compare what the completion gives with the answer. Pure; may raise on what it cannot handle."""
        raise NotImplementedError


def committed_text(completion: str, marker: str | None = None) -> str:
    """The part of a response in which its answer stands; empty where there is none.

    It begins after the last `</think>`, and after the last marker where one is asked for. A thought that is still open
    at the end commits to nothing, and neither does a response without the marker.

    >>> committed_text("<think>3, no, 5</think>So it is 5.")
    'So it is 5.'
    >>> committed_text("<think>3, no, 5"), committed_text("#### 3, no, #### 5", marker="####")
    ('', ' 5')
    """
    text = completion.rpartition(THOUGHT_END)[2]
    if THOUGHT_BEGIN in text:
        return ""
    if marker is None:
        return text
    return text.rpartition(marker)[2] if marker in text else ""
