"""A verifier as a reward function in TRL's form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..types import Verdict
from .pool.pool import VerifierPool

RewardFunction = Callable[..., list[float | None]]


def reward_function(name: str, *, column: str = "answer", workers: int | None = None, **options: Any) -> RewardFunction:
    """A reward function for TRL's trainers (`GRPOTrainer(reward_funcs=[reward_function("numeric")])`).

    1.0 for right, 0.0 for wrong, None for unknown: TRL leaves a None out of the sum of the rewards. A verdict with a
    score (the share of a program's tests) still gives 1.0 or 0.0.

    Args:
        name: the verifier.
        column: the data set's column with the answers.
        workers: as in `VerifierPool`.
        options: of the verifier.

    Raises:
        LampoError: there is no verifier of that name, it has no such option, or what it needs is missing.

    >>> reward = reward_function("numeric")
    >>> reward(prompts=["7+5=", "7+5="], completions=["12", [{"role": "assistant", "content": "13"}]], answer=["12", 12])
    [1.0, 0.0]
    """
    from . import verifier

    chosen = verifier(name, **options)
    chosen.prepare()
    pool = VerifierPool(workers)

    def reward(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        if column not in columns:
            raise KeyError(f"the data set has no column {column!r} with the answers; its columns: {sorted(columns)}")
        texts = [completion if isinstance(completion, str) else completion[-1]["content"] for completion in completions]
        return [_reward(verdict) for verdict in pool.verify(chosen, texts, list(map(str, columns[column])))]

    reward.__name__ = f"lampo_{chosen.model_dump().get('name', name)}"
    return reward


def _reward(verdict: Verdict) -> float | None:
    return {"right": 1.0, "wrong": 0.0}.get(verdict.status)
