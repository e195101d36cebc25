"""Why a group was pushed as it was: every comparison of LamPO, and what GRPO and RLOO make of the same rewards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import logsigmoid

from ...algo.advantages import grpo_advantages, pairwise_terms, rloo_advantages
from ...algo.advantages.pairwise import pair_margins_and_gaps, quarter_temperature, relative_weights, reward_scale
from ...algo.registry import PairwiseOptions
from ...store.rollouts import Record

Numbers = list[float | None]


@dataclass(frozen=True, slots=True)
class Pairs:
    """The comparisons of one group; None on the diagonal and for rollouts that are not valid.

    Without scores there are no weights, and what rests on them is None.

    Attributes:
        options: of the pairwise estimator.
        note: why these options, where they are not the run's own; else empty.
        temperature: tau of this group, over the slope where it is calibrated; None where that is 0.
        gaps_GG: R_i - R_j.
        weights_GG: w_ij; where peers have weights of their own, times v_j over the group's mean of them.
        contributions_GG: that times (R_i - R_j) over the divisor of row i; the rows sum to the advantages.
        divisors_G: |V| - 1 or sum_j w_ij, times std(R) + 1e-4 under scale = group_std, mean(R) under group_mean,
            and over `negative` where the row's advantage is below 0.
        pairwise_G: LamPO's advantages, the sums of the rows of contributions.
        grpo_G: what GRPO, with mean and standard deviation, gives.
        rloo_G: what RLOO gives.
    """

    options: dict[str, Any]
    note: str
    temperature: float | None
    gaps_GG: list[Numbers]
    weights_GG: list[Numbers] | None
    contributions_GG: list[Numbers] | None
    divisors_G: Numbers | None
    pairwise_G: list[float] | None
    grpo_G: list[float]
    rloo_G: list[float]


def pairs(group: Record, advantage: Mapping[str, Any]) -> Pairs | None:
    """Take the advantages of a group apart.

    Args:
        group: with a `total` (None: not valid) and a `score` for every rollout.
        advantage: the settings of the run's estimator, whichever it was.

    Returns:
        None where fewer than two rollouts are valid, or a run of our own has no scores: there is nothing to compare.
    """
    rollouts = group["rollouts"]
    options, note = _options(advantage, group)
    totals = [math.nan if rollout.get("total") is None else rollout["total"] for rollout in rollouts]
    rewards_G, group_ids_G = torch.tensor(totals), torch.zeros(len(rollouts), dtype=torch.int64)
    if any(rollout.get("score") is None for rollout in rollouts):
        valid_G = rewards_G.isfinite()
        return _of_rewards(rewards_G, valid_G, options) if "trainer" in advantage and int(valid_G.sum()) > 1 else None
    scores_G = torch.tensor([float(rollout["score"]) for rollout in rollouts])
    valid_G = rewards_G.isfinite() & scores_G.isfinite()
    if int(valid_G.sum()) < 2:
        return None
    temperature = "auto" if options.temperature == "calibrated" else options.temperature
    slope = group["slope"] if options.temperature == "calibrated" else 1.0
    settings = options.model_dump(include={"weight", "normalizer", "scale"}) | {
        "temperature": temperature,
        "slope": slope,
    }
    rows = valid_G.nonzero().squeeze(1)
    rewards_V, scores_V = rewards_G[rows], scores_G[rows]

    margins_VV, gaps_VV = (
        table[0]
        for table in pair_margins_and_gaps(
            rewards_V[None], scores_V[None], slice(None), options.weight, temperature, slope
        )
    )
    peers_V = torch.ones_like(rewards_V)
    if options.peer_weight != "equal":
        peers_V = relative_weights(torch.tensor([[rollouts[row]["peer_weight"] for row in rows.tolist()]]))[0]
    weights_VV = margins_VV.sigmoid() * peers_V
    scale = float(reward_scale(rewards_V[None], options.scale))
    if options.normalizer == "peers":
        divisors_V = torch.full_like(rewards_V, len(rows) - 1)
        contributions_VV = pairwise_terms(rewards_V, scores_V, **settings) * peers_V / (len(rows) - 1)
    else:  # as in `pairwise_advantages`: the weights of a row may all be all but 0
        divisors_V = weights_VV.sum(1) - weights_VV.diagonal()
        log_peers_V = peers_V.clamp(min=torch.finfo(peers_V.dtype).tiny).log()
        log_weights_VV = (logsigmoid(margins_VV) + log_peers_V).fill_diagonal_(-math.inf)
        contributions_VV = log_weights_VV.softmax(1) * gaps_VV / scale
    factors_V = torch.where(contributions_VV.sum(1) < 0, options.negative, 1.0)
    contributions_VV = contributions_VV * factors_V[:, None]

    pairwise_G = torch.zeros(len(rollouts)).index_put((rows,), contributions_VV.sum(1))
    divisors_G: Numbers = [None] * len(rollouts)
    for row, divisor, factor in zip(rows.tolist(), (divisors_V * scale).tolist(), factors_V.tolist(), strict=True):
        divisors_G[row] = divisor / factor if factor else None
    return Pairs(
        options=options.model_dump(),
        note=note,
        temperature=4 * float(quarter_temperature(scores_V[None], temperature)) / slope if slope else None,
        gaps_GG=_table(gaps_VV, rows, len(rollouts)),
        weights_GG=_table(weights_VV, rows, len(rollouts)),
        contributions_GG=_table(contributions_VV, rows, len(rollouts)),
        divisors_G=divisors_G,
        pairwise_G=pairwise_G.tolist(),
        grpo_G=grpo_advantages(rewards_G, group_ids_G, valid_N=valid_G).tolist(),
        rloo_G=rloo_advantages(rewards_G, group_ids_G, valid_N=valid_G).tolist(),
    )


def _of_rewards(rewards_G: Tensor, valid_G: Tensor, options: PairwiseOptions) -> Pairs:
    """What can be told of rewards alone."""
    rows, group_ids_G = valid_G.nonzero().squeeze(1), torch.zeros_like(rewards_G, dtype=torch.int64)
    rewards_V = rewards_G[rows]
    return Pairs(
        options=options.model_dump(),
        note="",
        temperature=None,
        gaps_GG=_table(rewards_V[:, None] - rewards_V, rows, len(rewards_G)),
        weights_GG=None,
        contributions_GG=None,
        divisors_G=None,
        pairwise_G=None,
        grpo_G=grpo_advantages(rewards_G, group_ids_G, valid_N=valid_G).tolist(),
        rloo_G=rloo_advantages(rewards_G, group_ids_G, valid_N=valid_G).tolist(),
    )


def _options(advantage: Mapping[str, Any], group: Record) -> tuple[PairwiseOptions, str]:
    name = advantage.get("name")
    if name == "pairwise":
        try:
            options = PairwiseOptions.model_validate(dict(advantage))
            unweighed = any(rollout.get("peer_weight") is None for rollout in group["rollouts"])
            if options.centred:
                reason = "This run centred its advantages, which is not taken apart here"
            elif options.peer_weight != "equal" and unweighed:
                reason = "This run weighed its peers, and did not record the weights"
            elif options.temperature == "calibrated" and not _is_slope(group.get("slope")):
                reason = "This run calibrated its temperature, and did not record the slope"
            else:
                return options, ""
        except ValidationError as error:
            reason = f"The options of the run's estimator are not understood ({error.error_count()} of them)"
    elif trainer := advantage.get("trainer"):
        reason = f"These are rollouts of {trainer}"
    else:
        reason = f"This run was trained with {name}" if name else "The settings of this run could not be read"
    return PairwiseOptions(), f"{reason}: the comparisons are those of LamPO with its default options."


def _is_slope(value: Any) -> bool:
    """Whether a shard holds a slope here, and not whatever a damaged one holds."""
    return isinstance(value, float) and 0 <= value < math.inf


def _table(table_VV: Tensor, rows: Tensor, size: int) -> list[Numbers]:
    """(V, V) into (G, G), None on the diagonal and where a rollout is not valid."""
    table: list[Numbers] = [[None] * size for _ in range(size)]
    values, indices = table_VV.tolist(), rows.tolist()
    for i, row in enumerate(indices):
        for j, column in enumerate(indices):
            if i != j:
                table[row][column] = values[i][j]
    return table
