"""The groups of a step as plain data, for the shards of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..algo.estimate import Estimate
from ..model.token_spans import TokenSpans
from ..types import Group, Rollout


def group_records(
    step: int,
    groups_P: Sequence[Group],
    estimate: Estimate,
    pieces: TokenSpans | None = None,
    logprobs: Mapping[int, Tensor] | None = None,
    *,
    has_scores: bool = True,
) -> Iterator[dict[str, Any]]:
    """The groups of a step as plain data, each rollout with its reward parts, score and advantage.

    With `pieces`, each has the log-probability of every token too, and how many characters of the text each token is. With the
    `logprobs` of an update, by the number of the rollout, each that was in it has the ratio of every token at its last optimiser step.
    Without `has_scores` nobody computed log-probabilities, and the scores are None.
    """
    row = 0
    weights_N = None if estimate.peer_weights_N is None else estimate.peer_weights_N.tolist()
    scores_N, advantages_N = estimate.scores_N.tolist(), estimate.advantages_N.tolist()
    for group in groups_P:
        rollouts = []
        for rollout, verdict, reward in zip(group.rollouts_G, group.verdicts_G, group.rewards_G, strict=True):
            rollouts.append(
                {
                    "text": rollout.text,
                    "status": verdict.status,
                    "extracted": verdict.extracted,
                    "detail": verdict.detail,
                    "rewards": dict(reward.parts),
                    "total": reward.total if reward.valid else None,
                    "score": scores_N[row] if has_scores else None,
                    "advantage": advantages_N[row],
                    "length": len(rollout.completion_ids),
                    "finished": rollout.finished,
                }
                | ({} if weights_N is None else {"peer_weight": weights_N[row]})
                | ({} if pieces is None else _tokens(rollout, pieces, (logprobs or {}).get(row)))
            )
            row += 1
        problem = {key: getattr(group.problem, key) for key in ("id", "prompt", "answer", "reference")}
        record = {"step": step, "problem": problem, "rollouts": rollouts}
        yield record if estimate.slope is None else record | {"slope": estimate.slope}


def _tokens(rollout: Rollout, pieces: TokenSpans, logprobs: Tensor | None) -> dict[str, Any]:
    tokens = {
        "pieces": pieces.lengths(rollout.completion_ids.tolist(), rollout.text),
        "logprobs": (rollout.logprobs.double().round(decimals=3) + 0.0).tolist(),  # never -0.0
    }
    if logprobs is None:
        return tokens
    log_ratios = (logprobs.double() - rollout.logprobs).clamp(-20, 20)  # JSON knows no infinity
    return tokens | {"ratios": log_ratios.exp().round(decimals=3).tolist()}
