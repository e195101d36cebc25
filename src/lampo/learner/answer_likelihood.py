"""RLPR's reward: how much likelier a response makes the reference answer, by the policy's own account (arXiv 2506.18254)."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence

import torch
from torch import Tensor

from ..model.policy import Policy
from ..model.pretrained import encode
from ..model.prompts import Reader
from ..types import LampoError, Likelihood, Problem, Rollout, Verdict
from .batch import Row, row_logprobs


def answer_likelihoods(
    policy: Policy,
    problems_P: Sequence[Problem],
    prompts_P: Sequence[Tensor],
    rollouts_PG: Sequence[Sequence[Rollout]],
    verdicts_PG: Sequence[Sequence[Verdict]],
    tokens_per_microbatch: int,
) -> list[list[Likelihood]]:
    r"""The debiased likelihood reward of every rollout.

        r_i  = mean_t pi(y*_t | q, z_i, y*_<t)          z_i: the response up to the answer that it gave, see `answer_begins`
        r'   = mean_t pi(y*_t | q, y*_<t)               once a problem
        R_i  = clip(r_i - r', 0, 1)

    RLPR, arXiv 2506.18254: y* is the reference answer, pi the policy that sampled. The probabilities are those of the
    model itself, at temperature 1 whatever the temperature of sampling, as in the paper. What a verifier thought right plays no part.

    Args:
        policy: the policy, as it was when it sampled.
        problems_P: the problems, with their reference answers.
        prompts_P: the tokens of their prompts.
        rollouts_PG: their responses.
        verdicts_PG: what the verifier says of them: only the answers it took them to give matter here.
        tokens_per_microbatch: most tokens in one forward pass.

    Returns:
        Rewards from 0 to 1, each with the number of tokens of z_i.
    """
    rows: list[Row] = []
    lengths: list[int] = []
    for problem, prompt_ids, rollouts_G, verdicts_G in zip(
        problems_P, prompts_P, rollouts_PG, verdicts_PG, strict=True
    ):
        rows.append(_row(policy, prompt_ids, [], policy.encode(problem.answer)))
        for rollout, verdict in zip(rollouts_G, verdicts_G, strict=True):
            begin = answer_begins(rollout.text, verdict.extracted, problem.answer)
            response_ids, answer_ids = with_answer(policy, rollout, begin, problem.answer)
            rows.append(_row(policy, prompt_ids, response_ids, answer_ids))
            lengths.append(len(response_ids))
    means = iter([float(logprobs_T.exp().mean()) for logprobs_T in row_logprobs(policy, rows, tokens_per_microbatch)])
    num_tokens = iter(lengths)
    likelihoods_PG: list[list[Likelihood]] = []
    for rollouts_G in rollouts_PG:
        without = next(means)
        likelihoods_PG.append(
            [Likelihood(min(1.0, max(0.0, next(means) - without)), next(num_tokens)) for _ in rollouts_G]
        )
    return likelihoods_PG


def answer_begins(text: str, extracted: str | None, answer: str) -> int:
    r"""Where the answer of a response begins: the last occurrence of the extracted answer, else of the right one, else its end.

    One that stands alone is preferred to one inside a longer word or number.

    >>> answer_begins(r"1032 = \boxed{10}", "10", "1032"), answer_begins("it is 1032.", None, "1032"), answer_begins("no", None, "1")
    (14, 6, 2)
    """

    def last(wanted: str) -> int | None:
        offsets = [match.start() for match in re.finditer(rf"(?<!\w){re.escape(wanted)}(?!\w)", text)]
        return offsets[-1] if offsets else None

    offset = None
    if extracted:
        offset = last(extracted)
        if offset is None and extracted in text:
            offset = text.rindex(extracted)
    if offset is None and answer:
        offset = last(answer)
    return len(text) if offset is None else offset


def with_answer(policy: Policy, rollout: Rollout, begin: int, answer: str) -> tuple[list[int], list[int]]:
    """Tokens of the response before character `begin`, and of the answer in the place of what follows.

    The first are those that were sampled. Where a sampled token reaches over `begin` (" Paris" is often one token with its space),
    what it holds before goes with the answer, so that the answer is tokenised as the policy would write it there.
    """
    sampled = rollout.completion_ids.tolist()
    while sampled and sampled[-1] in policy.end_ids:
        sampled.pop()
    count = bisect_right(range(len(sampled) + 1), begin, key=lambda n: len(policy.decode(sampled[:n]))) - 1
    while not rollout.text.startswith(policy.decode(sampled[:count])):  # half of a character
        count -= 1
    between = rollout.text[len(policy.decode(sampled[:count])) : begin]
    return sampled[:count], policy.encode(between + answer)


def refuse_unfit_answers(problems: Sequence[Problem], reader: Reader, max_new_tokens: int) -> None:
    """Check before the run starts that every reference answer has a likelihood.

    Raises:
        LampoError: an answer is empty, or longer than the longest response.
    """
    for problem in problems:
        if not problem.answer or (
            len(problem.answer.encode()) > max_new_tokens
            and len(encode(reader.tokenizer, problem.answer)) > max_new_tokens
        ):
            raise LampoError(
                f"The answer of problem {problem.id!r} is empty or longer than sampling.max_new_tokens={max_new_tokens}, so "
                "the reward likelihood has no meaning for it. Remove such problems, or take the verifier's reward."
            )


def _row(policy: Policy, prompt_ids: Tensor, response_ids: list[int], answer_ids: list[int]) -> Row:
    """A row whose loss tokens are the answer. A response too long for the context loses its end."""
    room = policy.context.length - len(prompt_ids) - len(answer_ids)
    before = torch.cat([prompt_ids, torch.tensor(response_ids[: max(0, room)], dtype=torch.int64)])
    return Row(before, torch.tensor(answer_ids), torch.zeros(len(answer_ids)), advantage=0.0)
