"""verl's padded batch -> the groups that `lampo.algo` takes, and the advantages back into its shape. No verl in here."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...algo.estimate import Estimate, estimate_advantages
from ...algo.registry import EstimatorOptions, OwnEstimatorOptions
from ...types import Group, LampoError, LogprobSource, Problem, Reward, Rollout, Verdict
from ..estimators import check_scores_from, chosen_estimator, reads_logprobs
from .reward import plain
from .unknown import unknown_rows

logger = logging.getLogger("lampo")

NO_VERDICT = Verdict("unknown", detail="verl gives rewards, not verdicts")
LOGPROBS = {"trainer": "old_log_probs", "sampler": "rollout_log_probs"}
"""What verl calls the log-probs, by whose they are."""


def advantages_of(
    batch: MutableMapping[str, Tensor],
    token_rewards_NT: Tensor,
    mask_NT: Tensor,
    uids_N: Sequence[Any] | None,
    settings: Mapping[str, Any] | None = None,
) -> Tensor:
    """(N, T) advantages of verl's rows, 0 outside of the mask.

    The rows of a group share an id and may lie anywhere. A row without a token in its mask, such as padding, belongs to no group. A row
    whose reward is unknown belongs to none either, and its mask in the batch is emptied, as verl does it with rejected rows: the loss skips
    it. verl's denominators still count it.

    Args:
        batch: verl's, with the log-probs; `response_mask` is replaced where rows are unknown.
        token_rewards_NT: verl's rewards, of which the sum over a row counts.
        mask_NT: the tokens that the policy wrote.
        uids_N: the group of each row.
        settings: verl's section `algorithm.lampo`: name, scores_from, and the settings of the advantage.

    Raises:
        LampoError: the settings are wrong, or verl's batch lacks what they need.
    """
    options, scores_from = read_settings(settings)
    if uids_N is None:
        raise LampoError("verl gave no uid, so nobody knows which rows belong to one problem.")
    logprobs_NT = batch.get(LOGPROBS[scores_from])
    if logprobs_NT is None and reads_logprobs(options):
        raise LampoError(
            f"The advantage {options.title} needs log-probs, and verl's batch has no {LOGPROBS[scores_from]}. "
            + ("Set actor_rollout_ref.rollout.calculate_log_probs=True." if scores_from == "sampler" else "")
        )
    here = mask_NT.device
    mask = mask_NT.bool().cpu()
    unknown_N = unknown_rows(batch.get("token_level_scores", token_rewards_NT), token_rewards_NT).cpu()
    totals_N = token_rewards_NT.float().sum(1).cpu().masked_fill(unknown_N | ~mask.any(1), torch.nan)
    logprobs = torch.zeros(mask.shape) if logprobs_NT is None else logprobs_NT.detach().float().cpu()

    rows_of: dict[Any, list[int]] = {}
    for row, uid in enumerate(uids_N):
        if mask[row].any():
            rows_of.setdefault(uid, []).append(row)
    ids = {name: batch[name].cpu() for name in ("prompts", "responses") if name in batch}
    groups = [_group(str(uid), rows, totals_N, mask, logprobs, ids) for uid, rows in rows_of.items()]
    order = [row for rows in rows_of.values() for row in rows]
    advantages_NT = torch.zeros(mask.shape)
    if groups:
        _spread_out(estimate_advantages(groups, options), order, mask, advantages_NT)
    if unknown_N.any() and not (mask.any(1) & ~unknown_N).any():
        logger.warning(
            "No response of this batch could be judged, so it teaches nothing. The reward workers' logs say why."
        )
    if unknown_N.any():
        batch["response_mask"] = mask_NT * ~unknown_N[:, None].to(here)
    return advantages_NT.to(here)


def read_settings(settings: Mapping[str, Any] | None) -> tuple[EstimatorOptions, LogprobSource]:
    """The advantage that `algorithm.lampo` names, and whose log-probs it reads.

    Raises:
        LampoError: there is no such advantage or setting, or verl cannot give it what it needs.
    """
    values = {str(key): plain(value) for key, value in (settings or {}).items()}
    name, scores_from = values.pop("name", "pairwise"), values.pop("scores_from", "trainer")
    check_scores_from(scores_from, "algorithm.lampo.scores_from")
    options = chosen_estimator(
        name, values, name_key="algorithm.lampo.name", options_key="algorithm.lampo", trainer="verl"
    )
    if isinstance(options, OwnEstimatorOptions) and "rollouts_N" in inspect.signature(options.load()).parameters:
        raise LampoError(
            f"The advantage {options.function} asks for rollouts_N, but verl gives an estimator neither texts nor tokens. "
            "Leave it out, or use LamPO in TRL or `lampo train`."
        )
    return options, scores_from


def _group(
    uid: str, rows: Sequence[int], totals_N: Tensor, mask_NT: Tensor, logprobs_NT: Tensor, ids: Mapping[str, Tensor]
) -> Group:
    """Tokens are there where verl's batch has them. Where it has not, their ids are -1, for no estimator reads them."""
    nothing = torch.full((max(mask_NT.shape[1], 1),), -1)
    rollouts = []
    for row in rows:
        completion_ids = ids["responses"][row] if "responses" in ids else nothing
        prompt_ids = ids["prompts"][row] if "prompts" in ids else nothing[:1]
        rollouts.append(
            Rollout(prompt_ids, completion_ids[mask_NT[row]], logprobs_NT[row][mask_NT[row]], finished=True, text="")
        )
    rewards = tuple(Reward({}, float(totals_N[row])) for row in rows)
    return Group(Problem(uid, "(verl does not give it)", ""), tuple(rollouts), (NO_VERDICT,) * len(rollouts), rewards)


def _spread_out(estimate: Estimate, order: Sequence[int], mask_NT: Tensor, advantages_NT: Tensor) -> None:
    for place, row in enumerate(order):
        one = estimate.advantages_N[place] if estimate.by_token_N is None else estimate.by_token_N[place]
        advantages_NT[row, mask_NT[row]] = one.float()
