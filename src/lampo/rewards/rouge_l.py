"""ROUGE-L against the reference solution."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import Literal

from rapidfuzz.distance import LCSseq

from ..types import LampoError, Problem
from ..verify import THOUGHT_BEGIN, THOUGHT_END
from .reward import Responses, RewardOptions

_TOKEN = re.compile(r"[^\W\d_]+|\S")
_THOUGHT = re.compile(rf"{THOUGHT_BEGIN}(.*?)(?:{THOUGHT_END}|\Z)", re.DOTALL)


class RougeLReward(RewardOptions):
    """ROUGE-L F1 of the response against the reference solution, from 0 to 1. A problem without one has no such reward.

    That it is added to correctness is LamPO (arXiv 2605.21235), as its readers report it. The weight, the tokens and the scope are this
    project's choice.
    """

    name: Literal["rouge_l"] = "rouge_l"
    """Selects this reward."""
    scope: Literal["response", "trace"] = "response"
    """What is compared with the reference: the whole response, or only its thought (the text in <think> tags)."""

    def values(self, responses: Responses) -> list[float | None]:
        """See `RewardOptions.values`."""
        if responses.problem.reference is None:
            return [None] * len(responses.texts_G)
        reference = rouge_tokens(responses.problem.reference)
        scope = reasoning_trace if self.scope == "trace" else str
        return [rouge_l(rouge_tokens(scope(text)), reference) for text in responses.texts_G]

    def prepare(self, problems: Sequence[Problem]) -> None:
        """See `RewardOptions.prepare`.

        Raises:
            LampoError: no problem has a reference solution.
        """
        if not any(problem.reference for problem in problems):
            raise LampoError(
                f"The reward rouge_l has the weight {self.weight:g}, but no problem has a reference solution to compare with. "
                "Name the task's column of reference solutions, or leave the reward out."
            )


def rouge_l(candidate_tokens: Sequence[Hashable], reference_tokens: Sequence[Hashable]) -> float:
    """F1 of the longest common subsequence of two token sequences.

        P = LCS / |candidate|,   R = LCS / |reference|,   F1 = 2 P R / (P + R) = 2 LCS / (|candidate| + |reference|)

    ROUGE-L (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries"), sentence level, P and R weighted
    equally. It is the same number as the package rouge_score gives for the same tokens.

    Returns:
        A number from 0 (no token in common, or a side without tokens) to 1 (the same tokens).

    >>> rouge_l("a b c d".split(), "a x c".split())  # LCS: a c
    0.5714285714285714
    """
    if not candidate_tokens or not reference_tokens:
        return 0.0
    return 2 * LCSseq.similarity(candidate_tokens, reference_tokens) / (len(candidate_tokens) + len(reference_tokens))


def rouge_tokens(text: str) -> list[str]:
    r"""The tokens that the ROUGE-L reward compares: words, single digits, single symbols. White space is left out.

    A digit stands for itself, so that 1032 against 1033 earns three quarters, and the working of a character-level
    model ("7+5=12" has no white space) is compared figure by figure. Symbols are kept and capitals stay capitals,
    because in mathematics they carry the meaning (x - y, X and x). rouge_score's own tokenizer lower-cases and drops
    all but a-z and 0-9, so its number for a LaTeX text is another.

    >>> rouge_tokens(r"So \frac{1}{2}x = 10.")
    ['So', '\\', 'frac', '{', '1', '}', '{', '2', '}', 'x', '=', '1', '0', '.']
    """
    return _TOKEN.findall(text)


def reasoning_trace(text: str) -> str:
    """The thought of a response: the text between <think> and </think>. Of several thoughts, one a line.

    A first </think> without its <think> ends a thought that the prompt began. A last <think> without its </think> runs
    to the end. Without tags there is no thought.

    >>> reasoning_trace("<think>7+5</think>12"), reasoning_trace("7+5</think>12")
    ('7+5', '7+5')
    >>> reasoning_trace("So: <think>7+"), reasoning_trace("12")
    ('7+', '')
    """
    begun_by_prompt = THOUGHT_END in text.partition(THOUGHT_BEGIN)[0]
    return "\n".join(_THOUGHT.findall(THOUGHT_BEGIN + text if begun_by_prompt else text))
