"""Text: the response and the answer are the same words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from ..types import Verdict
from .verifier_options import VerifierOptions, committed_text


class ExactOptions(VerifierOptions):
    """The whole response, or all that follows its last marker, compared as text. White space counts as one space."""

    name: Literal["exact"] = "exact"
    """Selects this verifier."""
    marker: str | None = Field(default=None, min_length=1)
    """The answer stands after the last occurrence of this text, such as "####". A response without it gives none."""
    ignore_case: bool = False
    """Whether capitals and small letters are the same."""
    partial_credit: bool = False
    """The reward is the F1 of the words in common, in their order, and 1 only for the same words. Off: 1 for these, else 0."""

    def verify(self, completion: str, answer: str) -> Verdict:
        """Right if the response is the answer, white space at the ends and its amount between words aside.

        Returns:
            unknown if the answer is empty, wrong with nothing extracted if the response gives no text.

        >>> ExactOptions(marker="Answer:", ignore_case=True).verify("I think so. Answer: New  york ", "New York")
        Verdict(status='right', extracted='New york', detail='', seconds=0.0, score=None, graded=False)
        """
        gold = " ".join(answer.split())
        if not gold:
            return Verdict("unknown", detail="the answer is empty")
        found = " ".join(committed_text(completion, self.marker).split())
        if not found:
            return Verdict("wrong", detail="no answer given", **self._graded([], gold.split()))
        said, asked = (found.casefold(), gold.casefold()) if self.ignore_case else (found, gold)
        return Verdict("right" if said == asked else "wrong", found, **self._graded(said.split(), asked.split()))

    def _graded(self, words: Sequence[str], gold_words: Sequence[str]) -> dict[str, Any]:
        return {"score": _f1(words, gold_words), "graded": True} if self.partial_credit else {}

    def answer_text(self, answer: str) -> str:
        """See `VerifierOptions.answer_text`."""
        return f"{self.marker or ''}{answer}"


def _f1(words: Sequence[str], gold_words: Sequence[str]) -> float:
    """2 LCS / (number of words + number of gold words), as ROUGE-L has it (Lin 2004).

    >>> _f1("New old York".split(), "New York".split()), _f1(["York", "New"], ["New", "York"])
    (0.8, 0.5)
    """
    from rapidfuzz.distance import LCSseq  # without partial credit the verifiers need pydantic and mpmath alone

    return 2 * LCSseq.similarity(words, gold_words) / (len(words) + len(gold_words))
