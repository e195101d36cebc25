"""A verifier or a reward as a reward function in TRL's form."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..types import LampoError, Problem
from ..verify import VERIFIERS, VerifierOptions, VerifierPool, verifier
from ..verify.answers import committed_answer
from .reward import Responses, RewardOptions
from .rouge_l import RougeLReward

logger = logging.getLogger("lampo")

RewardFunction = Callable[..., list[float | None]]
ANSWER_COLUMNS = ("answer", "solution")
"""The usual columns of the answers: ours, and TRL's."""
TEXT_REWARDS = ("format", "rouge_l")
"""Rewards that texts and columns are enough for."""


def reward_function(
    name: str, *, column: str | None = None, workers: int | None = None, **options: Any
) -> RewardFunction:
    """A reward function for TRL's trainers (`GRPOTrainer(reward_funcs=[reward_function("math")])`).

    Of a verifier: 1.0 for right, 0.0 for wrong, the score where an own verifier returns one, None for unknown: TRL leaves a None out
    of the sum of the rewards. Of a reward (`format`, `rouge_l`): its value, unweighted, for TRL has `reward_weights`.

    A batch in which no completion commits to an answer is told in the log, once: most often the verifier does not see the
    form that the model uses. Under `math` the option `last_number=True` takes the last number of a response where it commits to
    nothing else.

    Args:
        name: a verifier, format or rouge_l.
        column: the data set's column with the answers; answer or solution if not given. Of a worked solution the answer that it commits
            to counts. For rouge_l: of the references, and reference if not given.
        workers: as in `VerifierPool`.
        options: of the verifier or the reward.

    Raises:
        LampoError: there is no verifier of that name, it has no such option, or what it needs is missing.

    >>> reward = reward_function("numeric")
    >>> reward(prompts=["7+5=", "7+5="], completions=["12", [{"role": "assistant", "content": "13"}]], answer=["12", 12])
    [1.0, 0.0]
    >>> reward_function("format", pattern="[0-9]+")(completions=["12", "twelve"])
    [1.0, 0.0]
    """
    if name in TEXT_REWARDS:
        return _of_reward(name, column, options)
    if name not in VERIFIERS and not name.startswith("python:"):
        raise LampoError(
            f"There is no verifier or reward {name!r}. Known: {', '.join([*VERIFIERS, *TEXT_REWARDS])}, and python:module.function."
        )
    return _of_verifier(verifier(name, **options), name, column, workers)


def _of_verifier(chosen: VerifierOptions, name: str, column: str | None, workers: int | None) -> RewardFunction:
    chosen.prepare()
    pool = VerifierPool(workers)
    told = False

    def reward(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        nonlocal told
        texts = [_text(completion) for completion in completions]
        verdicts = pool.verify(chosen, texts, _answers(columns, column))
        if not told and all(verdict.extracted is None and verdict.status == "wrong" for verdict in verdicts) and texts:
            told = True
            hint = (
                " last_number=True takes the last number of a response that commits to nothing else."
                if "last_number" in type(chosen).model_fields
                else ""
            )
            logger.warning(
                "None of %d completions commits to an answer that the verifier %s can see. The first one ends with %r.%s",
                *(len(texts), name, texts[0][-80:], hint),
            )
        unclear = [verdict for verdict in verdicts if verdict.status == "unknown"]
        if len(unclear) == len(verdicts) and unclear:
            logger.warning("Every verdict of %d is unknown: %s", len(verdicts), unclear[0].detail)
        return [verdict.value for verdict in verdicts]

    reward.__name__ = f"lampo_{chosen.model_dump().get('name', name)}"
    return reward


def _of_reward(name: str, column: str | None, options: dict[str, Any]) -> RewardFunction:
    from . import AnyReward

    try:
        chosen: RewardOptions = TypeAdapter(AnyReward).validate_python({"name": name, **options})
    except ValidationError as error:
        first = error.errors()[0]
        raise LampoError(
            f"The reward {name!r} cannot be set up: {'.'.join(map(str, first['loc'][1:]))}: {first['msg']}."
        ) from None

    def reward(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        texts = [_text(completion) for completion in completions]
        references: Sequence[Any] = [None] * len(texts)
        if isinstance(chosen, RougeLReward):
            references = _column(columns, [column] if column else ["reference"])
        each = zip(texts, references, strict=True)
        return [
            chosen.values(Responses(Problem("0", "?", "", reference), [text], [], [], 1))[0] for text, reference in each
        ]

    reward.__name__ = f"lampo_{name}"
    return reward


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else completion[-1]["content"]


def _answers(columns: dict[str, Any], column: str | None) -> list[str]:
    answers = [str(answer) for answer in _column(columns, [column] if column else ANSWER_COLUMNS)]
    worked = column is None and "answer" not in columns
    return [(committed_answer(answer) if worked else None) or answer for answer in answers]


def _column(columns: dict[str, Any], usual: Sequence[str]) -> Sequence[Any]:
    for name in usual:
        if name in columns:
            return columns[name]
    raise KeyError(f"the data set has no column {' or '.join(map(repr, usual))}; its columns: {sorted(columns)}")
