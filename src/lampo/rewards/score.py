"""Verdicts and texts -> rewards: correctness, and ROUGE-L against a reference solution."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence
from typing import Literal

from pydantic import Field
from rapidfuzz.distance import LCSseq

from ..options import Options
from ..types import Group, Likelihood, Problem, Reward, Rollout, Verdict
from ..verify import THOUGHT_BEGIN, THOUGHT_END

_TOKEN = re.compile(r"[^\W\d_]+|\S")
_THOUGHT = re.compile(rf"{THOUGHT_BEGIN}(.*?)(?:{THOUGHT_END}|\Z)", re.DOTALL)


class RewardOptions(Options):
    """total = correctness + rouge_l x F1 - overlong_penalty x overlong, with correctness 1 or 0 (or a likelihood in its place)."""

    source: Literal["verifier", "likelihood"] = "verifier"
    """verifier: correctness; likelihood: how much likelier the response makes the reference answer, by the policy itself (RLPR, arXiv
    2506.18254), while verdicts are only logged."""
    likelihood_credit: Literal["response", "reasoning"] = "response"
    """Whose tokens the update credits with a likelihood: those of the whole response (RLPR), or those before its answer, on which alone
    the likelihood depends: the same gradient in expectation, and far less noise."""
    rouge_l: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Coefficient of the ROUGE-L F1 against the reference solution. 0: never computed."""
    rouge_scope: Literal["response", "trace"] = "response"
    """What is compared with the reference: the whole response, or only its thought (the text in <think> tags)."""
    overlong_penalty: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Taken from the reward of a response of the greatest length. 0: length does not matter. DAPO (arXiv 2503.14476) takes 1 from
    rewards of 1 and -1, which is 0.5 here."""
    overlong_share: float = Field(default=0.2, gt=0, le=1)
    """Share of the greatest length over which the penalty rises from 0 (DAPO: 4,096 of 20,480 tokens)."""


def score(
    problem: Problem,
    rollouts_G: Sequence[Rollout],
    verdicts_G: Sequence[Verdict],
    options: RewardOptions,
    max_new_tokens: int,
    likelihoods_G: Sequence[Likelihood] | None = None,
) -> Group:
    """Reward all rollouts of one problem.

        R_i = correctness_i + rouge_l * F1_i - overlong_penalty * overlong_i

    correctness is 1 (right), 0 (wrong) or None (unknown: the total is then NaN and the row not valid). F1 is None, and
    adds nothing, where its coefficient is 0 or the problem has no reference. The sum is that of LamPO (arXiv
    2605.21235, as its readers report it); the coefficient, the tokens and the scope are this project's choice. Likelihoods, where
    given, stand in the sum in the place of correctness; then no row is invalid.

    Args:
        problem: the problem, with the answer and perhaps a reference solution.
        rollouts_G: its responses.
        verdicts_G: what the verifier says of them.
        options: the coefficients, and what is compared with the reference.
        max_new_tokens: the greatest length of a response.
        likelihoods_G: see `lampo.learner.answer_likelihood`; None where the verifier decides.

    >>> import torch
    >>> one = torch.ones(1)
    >>> rollouts_G = [Rollout(one.long(), one.long(), -one, True, text) for text in ("7+5=12", "7+5=13")]
    >>> verdicts_G = [Verdict("right"), Verdict("wrong")]
    >>> group = score(Problem("0", "7+5=", "12", "7+5=12"), rollouts_G, verdicts_G, RewardOptions(rouge_l=0.6), 8)
    >>> [round(reward.total, 6) for reward in group.rewards_G]  # 0.6 * 5/6 for five tokens of six
    [1.6, 0.5]
    """
    if options.rouge_l > 0 and problem.reference is not None:
        reference = rouge_tokens(problem.reference)
        scope = reasoning_trace if options.rouge_scope == "trace" else str
        rouge_G = [rouge_l(rouge_tokens(scope(rollout.text)), reference) for rollout in rollouts_G]
    else:
        rouge_G = [None] * len(rollouts_G)
    likelihood_G = [None] * len(rollouts_G) if likelihoods_G is None else likelihoods_G
    rewards_G = tuple(
        _reward(
            verdict,
            rouge,
            overlong(len(rollout.completion_ids), max_new_tokens, options.overlong_share),
            likelihood,
            options,
        )
        for rollout, verdict, rouge, likelihood in zip(rollouts_G, verdicts_G, rouge_G, likelihood_G, strict=True)
    )
    return Group(problem, tuple(rollouts_G), tuple(verdicts_G), rewards_G)


def _reward(
    verdict: Verdict, rouge: float | None, length: float, likelihood: Likelihood | None, options: RewardOptions
) -> Reward:
    excess = length if options.overlong_penalty > 0 else None
    correctness = {"right": 1.0, "wrong": 0.0, "unknown": None}[verdict.status]
    first = correctness if likelihood is None else likelihood.value
    if first is None:
        return Reward(correctness=None, rouge_l=rouge, overlong=excess, total=math.nan)
    total = first + options.rouge_l * (rouge or 0.0) - options.overlong_penalty * (excess or 0.0)
    if likelihood is None:
        return Reward(correctness, rouge, total, excess)
    credited = likelihood.num_tokens if options.likelihood_credit == "reasoning" else None
    return Reward(correctness, rouge, total, excess, likelihood.value, credited)


def overlong(num_tokens: int, max_new_tokens: int, share: float) -> float:
    """How far a response reaches into the last `share` of the greatest length: 0 before it, 1 at its end, linear between.

    DAPO's soft overlong punishment (arXiv 2503.14476, equation 13) is minus this number.

    >>> [overlong(num_tokens, 100, 0.2) for num_tokens in (50, 80, 90, 100)]
    [0.0, 0.0, 0.5, 1.0]
    """
    buffer = share * max_new_tokens
    return max(0.0, num_tokens - (max_new_tokens - buffer)) / buffer


def rouge_l(candidate_tokens: Sequence[Hashable], reference_tokens: Sequence[Hashable]) -> float:
    """F1 of the longest common subsequence of two token sequences.

        P = LCS / |candidate|,   R = LCS / |reference|,   F1 = 2 P R / (P + R) = 2 LCS / (|candidate| + |reference|)

    ROUGE-L (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries"), sentence level, P and R weighted
    equally; the same number as the package rouge_score gives for the same tokens.

    Returns:
        A number from 0 (no token in common, or a side without tokens) to 1 (the same tokens).

    >>> rouge_l("a b c d".split(), "a x c".split())  # LCS: a c
    0.5714285714285714
    """
    if not candidate_tokens or not reference_tokens:
        return 0.0
    return 2 * LCSseq.similarity(candidate_tokens, reference_tokens) / (len(candidate_tokens) + len(reference_tokens))


def rouge_tokens(text: str) -> list[str]:
    r"""The tokens that the ROUGE-L reward compares: words, single digits, single symbols; white space is left out.

    A digit stands for itself, so that 1032 against 1033 earns three quarters, and the working of a character-level
    model ("7+5=12" has no white space) is compared figure by figure. Symbols are kept and capitals stay capitals,
    because in mathematics they carry the meaning (x - y, X and x). rouge_score's own tokenizer lower-cases and drops
    all but a-z and 0-9, so its number for a LaTeX text is another.

    >>> rouge_tokens(r"So \frac{1}{2}x = 10.")
    ['So', '\\', 'frac', '{', '1', '}', '{', '2', '}', 'x', '=', '1', '0', '.']
    """
    return _TOKEN.findall(text)


def reasoning_trace(text: str) -> str:
    """The thought of a response: the text between <think> and </think>; of several thoughts, one a line.

    A first </think> without its <think> ends a thought that the prompt began; a last <think> without its </think> runs
    to the end. Without tags there is no thought.

    >>> reasoning_trace("<think>7+5</think>12"), reasoning_trace("7+5</think>12")
    ('7+5', '7+5')
    >>> reasoning_trace("So: <think>7+"), reasoning_trace("12")
    ('7+', '')
    """
    begun_by_prompt = THOUGHT_END in text.partition(THOUGHT_BEGIN)[0]
    return "\n".join(_THOUGHT.findall(THOUGHT_BEGIN + text if begun_by_prompt else text))
