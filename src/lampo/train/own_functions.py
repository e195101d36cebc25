"""The user's own functions, tried once before the first step: what they raise is told now, and not after the warm start."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..algo.estimate import estimate_advantages
from ..algo.registry import OwnEstimatorOptions, surrogate_function
from ..config.schema import TrainConfig
from ..rewards import PythonReward, Responses
from ..types import Group, LampoError, Problem, Reward, Rollout, Verdict
from ..verify import PythonOptions, VerifierPool, verifier_for


def try_own_functions(config: TrainConfig, problems: Sequence[Problem], pool: VerifierPool) -> None:
    """Call each function that the recipe names on one response: the first problem's worked solution, or its answer.

    A reward is called on an empty response too, for some model will give one. A surrogate is only imported: it needs a model.

    Raises:
        LampoError: a function raises, or returns what it must not; with its own error and line.
    """
    problem = problems[0]
    text = problem.demonstration or problem.reference or problem.answer
    verdict = Verdict("wrong")
    verifier = verifier_for(problem, config.verifier)
    if isinstance(verifier, PythonOptions):
        (verdict,) = pool.verify(verifier, [text], [problem.answer])
        if verdict.status == "unknown":
            raise LampoError(
                f"The verifier could not tell of a first response, the solution of problem {problem.id!r}: {verdict.detail}"
            )
    for reward in config.rewards:
        if isinstance(reward, PythonReward) and reward.weight != 0:
            reward.values(Responses(problem, [text], [verdict], [len(text)], config.sampling.max_new_tokens))
            empty = Responses(problem, [""], [Verdict("wrong")], [0], config.sampling.max_new_tokens)
            try:
                reward.values(empty)
            except LampoError as error:
                raise LampoError(f"{error} It was tried on an empty response, which a model may give.") from None
    if isinstance(config.advantage, OwnEstimatorOptions):
        estimate_advantages([_group(problem, text)], config.advantage)
    surrogate_function(config.loss.surrogate)


def _group(problem: Problem, text: str) -> Group:
    """Four made-up rollouts, two of them right."""
    verdicts_G = (Verdict("right"), Verdict("wrong"), Verdict("right"), Verdict("wrong"))
    rollouts_G = tuple(
        Rollout(torch.zeros(1, dtype=torch.int64), torch.arange(3), torch.full((3,), -1.0 - member), True, text)
        for member in range(len(verdicts_G))
    )
    rewards_G = tuple(Reward({}, verdict.value or 0.0) for verdict in verdicts_G)
    return Group(problem, rollouts_G, verdicts_G, rewards_G)
