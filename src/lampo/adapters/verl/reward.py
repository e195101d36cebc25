"""`compute_score` for verl: our verifiers and rewards, in workers that can be stopped. No verl and no torch in here.

reward.custom_reward_function.path=pkg://lampo.adapters.verl.reward
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ...rewards import AnyReward, LikelihoodReward, OverlongReward, PythonReward, Responses, RewardOptions, add_up
from ...types import LampoError, Problem
from ...verify import VerifierOptions, VerifierPool
from ...verify import verifier as verifier_named
from .unknown import UNKNOWN

FUNCTION = "pkg://lampo.adapters.verl.reward"
"""Where verl finds `compute_score`."""
MANAGER = (
    "reward.reward_manager.source=importlib",
    "reward.reward_manager.name=CountingRewardManager",
    "reward.reward_manager.module.path=pkg://lampo.adapters.verl.reward_manager",
)
"""verl's options that select the reward manager which counts tokens."""
WORKERS = 4
"""Verifications that run at once in one of verl's reward workers, of which there are `reward.num_workers`."""


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    verifier: Any = None,
    rewards: Any = None,
    workers: int = WORKERS,
    **others: Any,
) -> dict[str, Any]:
    """The reward of a response, as verl asks for it.

    Args:
        data_source: verl's name of the data set.
        solution_str: the response.
        ground_truth: the answer.
        extra_info: the row's other columns. Of them `verifier`, `rewards` and `fields` are JSON, as `python -m lampo.adapters.verl`
            writes them; `reference` is a worked solution. `num_tokens` and `max_new_tokens`, of the response and the most that it could
            have had, come from `reward_manager.CountingRewardManager`.
        verifier: its name, or a section as in a recipe. It wins over the row's own.
        rewards: a list as in a recipe. It wins over the row's own. Where there is none, it is the verifier alone.
        workers: verifications at once, in this process.
        others: what verl passes for reward models.

    Returns:
        score: the weighted sum, or UNKNOWN, which the estimator `lampo` leaves out and everyone else takes for 0.
        acc: 1 for right, else 0. unknown: 1 where nobody can tell. pred: the answer that was read, for verl's majority vote.
        verdict: right, wrong or unknown. detail: why, where that is not obvious. row: the number of the problem in its file.
        reward/NAME: each reward, unweighted; 0 where it does not apply, and then `absent` names it.
        length: num_tokens, where it is there.

    Raises:
        LampoError: the verifier or a reward cannot be set up. verl then drops the group, and ends if that is all of them.
    """
    info = extra_info or {}
    chosen = _verifier(_json(info.get("verifier") if verifier is None else verifier))
    listed = read_rewards(_json((info.get("rewards") if rewards is None else rewards) or [{"name": "verifier"}]))
    num_tokens = info.get("num_tokens")
    if num_tokens is None:
        refuse_lengths(listed)
    verdict = await asyncio.wrap_future(_pool(workers).submit(chosen, solution_str, str(ground_truth)))
    fields = json.loads(info.get("fields") or "{}")
    problem = Problem(
        str(info.get("id", info.get("index", ""))),
        str(info.get("question") or "?"),
        str(ground_truth),
        reference=info.get("reference") or None,
        fields=fields,
    )
    responses = Responses(problem, [solution_str], [verdict], [num_tokens or 0], info.get("max_new_tokens", 0))
    (parts,), (total,) = add_up(listed, responses)
    return {
        "score": UNKNOWN if math.isnan(total) else total,
        "acc": verdict.correctness or 0.0,
        "unknown": float(math.isnan(total)),
        "pred": verdict.extracted or "",
        "verdict": verdict.status,
        "detail": verdict.detail,
        "row": str(info.get("index", "")),  # a text: verl averages numbers
        "absent": " ".join(title for title, value in parts.items() if value is None),
        **{f"reward/{title}": value or 0.0 for title, value in parts.items()},
        **({} if num_tokens is None else {"length": num_tokens}),
    }


def _json(value: Any) -> str:
    """Settings as JSON, which they are in a row; verl's own configuration gives them as mappings and lists."""
    if isinstance(value, str) and not value.lstrip().startswith(("{", "[")):
        return json.dumps({"name": value})
    return value if isinstance(value, str) else json.dumps(plain(value))


def plain(value: Any) -> Any:
    """A value of OmegaConf as Python has it."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


@cache
def _verifier(section: str) -> VerifierOptions:
    settings = json.loads(section)
    if not settings:
        raise LampoError(
            "Which verifier judges the responses? The rows name none. Set "
            "+reward.custom_reward_function.reward_kwargs.verifier=math, or another name."
        )
    chosen = verifier_named(settings.pop("name"), **settings)
    chosen.prepare()
    return chosen


@cache
def read_rewards(section: str) -> tuple[RewardOptions, ...]:
    """A recipe's list of rewards, from JSON.

    Raises:
        LampoError: an entry cannot be set up, or verl has not what it needs.
    """
    try:
        listed: list[RewardOptions] = TypeAdapter(list[AnyReward]).validate_python(json.loads(section))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise LampoError(f"The list of rewards cannot be set up: {where}: {first['msg']}.") from None
    for reward in listed:
        if isinstance(reward, LikelihoodReward):
            raise LampoError(
                "The reward likelihood is computed by the policy itself, which verl does not do. Use `lampo train` for it."
            )
        if isinstance(reward, PythonReward) and reward.batch:
            raise LampoError(f"The reward {reward.title} has batch: true, but verl asks for one response at a time.")
    return tuple(listed)


def refuse_lengths(listed: Sequence[RewardOptions]) -> None:
    """Refuse rewards that need the length of a response.

    Raises:
        LampoError: there is one.
    """
    if any(isinstance(reward, OverlongReward) for reward in listed):
        raise LampoError(
            f"The reward overlong counts tokens, which verl's own reward managers do not give. Set {' '.join(MANAGER)}."
        )


@cache
def _pool(workers: int) -> VerifierPool:
    return VerifierPool(workers)
