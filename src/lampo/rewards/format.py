"""Whether a response has a form."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import field_validator

from .reward import Responses, RewardOptions


class FormatReward(RewardOptions):
    """1 for a response with the pattern, 0 for one without.

    >>> from lampo.types import Problem
    >>> reward = FormatReward(pattern=r"<think>.+</think>.+")
    >>> reward.values(Responses(Problem("0", "2+3=", "5"), ["<think>two and three</think>5", "5"], [], [], 9))
    [1.0, 0.0]
    """

    name: Literal["format"] = "format"
    """Selects this reward."""
    pattern: str
    """A regular expression of Python that the whole response must match. `.` also matches the end of a line. White space around
    the response is left out."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return pattern

    def values(self, responses: Responses) -> list[float | None]:
        """See `RewardOptions.values`."""
        compiled = re.compile(self.pattern, re.DOTALL)
        return [float(compiled.fullmatch(text.strip()) is not None) for text in responses.texts_G]
