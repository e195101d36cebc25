"""Groups -> advantages: the recipe's choice of estimator, and what is logged about it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..options import call_own, call_with
from ..types import Group, LampoError, PeerWeight, Rollout
from .advantages.groups import concordance, group_statistics
from .advantages.pairwise import calibrated_slope, score_norms, sequence_scores
from .registry import EstimatorOptions, OwnEstimatorOptions, ProcessRewardOptions


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """Advantages of a step, with the scores they rest on and what to log. Rows are in the order of the groups.

    Attributes:
        advantages_N: one a rollout; the mean over its tokens where these differ.
        scores_N: mean or sum of the rollouts' log-probabilities.
        statistics: what to log.
        by_token_N: N tensors (T,), where the tokens of a rollout differ.
        left_out: indices of groups that the update leaves out.
        peer_weights_N: how much each counts as a peer, where peers do not count alike.
        slope: of a calibrated temperature, see `calibrated_slope`.
    """

    advantages_N: Tensor
    scores_N: Tensor
    statistics: dict[str, float]
    by_token_N: tuple[Tensor, ...] | None = None
    left_out: frozenset[int] = frozenset()
    peer_weights_N: Tensor | None = None
    slope: float | None = None

    @property
    def token_advantages(self) -> Tensor | tuple[Tensor, ...]:
        """What the tokens of the update get: one a token where there is one, else (N,) one a rollout."""
        return self.advantages_N if self.by_token_N is None else self.by_token_N


def estimate_advantages(
    groups_P: Sequence[Group],
    options: EstimatorOptions,
    *,
    left_out: Collection[int] = (),
    token_rewards: Sequence[Tensor] | None = None,
) -> Estimate:
    """The method: one pure call on rewards, scores and group ids. Rows without a reward are not valid and get 0.

    An estimator is called with what it names of rewards_N, group_ids_N, scores_N, valid_N, rollouts_N, and of token_rewards_NT and
    mask_NT where a process reward model learns. It returns (N,) advantages, or (N, T) where the tokens of a rollout differ.

    Args:
        groups_P: the groups.
        options: which estimator, and its settings.
        left_out: indices of groups that are treated as if no row of theirs were valid.
        token_rewards: N tensors (T,), for an estimator that learns token rewards.

    Raises:
        LampoError: an estimator of `algo` refuses what it is given, or one of the user's own cannot be imported, raises, or returns
            something else than advantages.
    """
    rollouts_N = [rollout for group in groups_P for rollout in group.rollouts_G]
    rewards = [reward for group in groups_P for reward in group.rewards_G]
    group_ids = [index for index, group in enumerate(groups_P) for _ in group.rollouts_G]
    rewards_N, group_ids_N = torch.tensor([reward.total for reward in rewards]), torch.tensor(group_ids)
    valid_N = torch.tensor(
        [reward.valid and index not in left_out for index, reward in zip(group_ids, rewards, strict=True)]
    )
    settings = options.settings()
    scores_N = torch.cat(
        [
            sequence_scores(
                rollout.logprobs[None],
                torch.ones(1, len(rollout.logprobs), dtype=torch.bool),
                reduce=settings.get("reduce", "mean"),
            )
            for rollout in rollouts_N
        ]
    )
    if settings.get("peer_weight", "equal") != "equal":
        settings["peer_weights_N"] = _peer_weights(settings["peer_weight"], rollouts_N)
    if settings.get("temperature") == "calibrated":
        slope = calibrated_slope(rewards_N, scores_N, group_ids_N, valid_N=valid_N)
        settings |= {"temperature": "auto", "slope": slope}
    given = {"rewards_N": rewards_N, "group_ids_N": group_ids_N}
    offered = {"scores_N": scores_N, "valid_N": valid_N, "rollouts_N": rollouts_N, **settings}
    if isinstance(options, ProcessRewardOptions):
        offered |= _padded(token_rewards)
    advantages = _call(options, given, offered, rollouts_N, valid_N)
    by_token_N = None
    if advantages.dim() == 2:
        by_token_N = tuple(
            row_T[: len(rollout.completion_ids)] for row_T, rollout in zip(advantages, rollouts_N, strict=True)
        )
        lengths_N = torch.tensor([len(rollout.completion_ids) for rollout in rollouts_N])
        advantages = advantages.sum(1) / lengths_N.clamp(min=1)
    elif any(reward.num_credited is not None for reward in rewards):
        by_token_N = tuple(
            advantage * (torch.arange(T := len(rollout.completion_ids)) < (T if credited is None else credited))
            for advantage, rollout, credited in zip(
                advantages, rollouts_N, [reward.num_credited for reward in rewards], strict=True
            )
        )
    statistics = _statistics(options, settings, rewards_N, scores_N, group_ids_N, valid_N)
    statistics |= {
        "advantage/sum": float(advantages.sum()),
        "advantage/mean_absolute": float(advantages.abs().mean()),
    }
    slope = settings.get("slope")
    if slope is not None:
        statistics["advantage/slope"] = slope
    return Estimate(
        advantages,
        scores_N,
        statistics,
        by_token_N,
        frozenset(left_out),
        settings.get("peer_weights_N"),
        slope,
    )


def _call(
    options: EstimatorOptions,
    given: dict[str, Tensor],
    offered: dict[str, object],
    rollouts_N: Sequence[Rollout],
    valid_N: Tensor,
) -> Tensor:
    """The estimator's advantages, (N,) or (N, T). Those of a function of the user's own are checked."""
    if not isinstance(options, OwnEstimatorOptions):
        try:
            return call_with(options.load(), given, offered)
        except ValueError as error:
            raise LampoError(f"The advantage {options.title} refuses what it is given: {error}") from error
    what = f"The advantage {options.function}"
    ours = {**given, **offered}  # a function may write into what it is given, and what is logged is of these tensors
    copies = {name: value.clone() if isinstance(value, Tensor) else value for name, value in ours.items()}
    said = call_own(options.load(), what, {name: copies.pop(name) for name in given}, copies)
    N, T = len(rollouts_N), max((len(rollout.completion_ids) for rollout in rollouts_N), default=0)
    if not isinstance(said, Tensor) or tuple(said.shape) not in ((N,), (N, T)):
        returned = f"a tensor {tuple(said.shape)}" if isinstance(said, Tensor) else f"a {type(said).__name__}"
        raise LampoError(
            f"{what} returned {returned}. It must return a tensor ({N},), one a rollout, or ({N}, {T}), one a token."
        )
    rows_N1 = valid_N if said.dim() == 1 else valid_N[:, None]
    said = torch.where(
        rows_N1, said.detach().float(), 0.0
    )  # a row without a reward gets 0, whatever the function says of it
    if not said.isfinite().all():
        row = int((~said.isfinite()).nonzero()[0, 0])
        told = f"{what} returned {float(said[row].flatten()[0])} for rollout {row}. Advantages must be finite."
        if given["rewards_N"].isnan().any():
            told += " Where valid_N is False rewards_N is nan: leave those rollouts out."
        raise LampoError(told)
    return said


def _peer_weights(name: PeerWeight, rollouts_N: Sequence[Rollout]) -> Tensor:
    """How much each rollout counts in the baseline of its peers."""
    lengths = [len(rollout.completion_ids) for rollout in rollouts_N]
    if name == "length":
        return torch.tensor(lengths, dtype=torch.float32)
    every = [torch.ones(1, length, dtype=torch.bool) for length in lengths]
    return torch.cat(
        [score_norms(rollout.logprobs[None], mask) for rollout, mask in zip(rollouts_N, every, strict=True)]
    )


def _padded(token_rewards: Sequence[Tensor] | None) -> dict[str, Tensor]:
    """Token rewards side by side, and the mask of the tokens."""
    if token_rewards is None:
        raise ValueError("this estimator needs token_rewards")
    lengths_N = torch.tensor([len(token_rewards_T) for token_rewards_T in token_rewards])
    return {
        "token_rewards_NT": pad_sequence(list(token_rewards), batch_first=True),
        "mask_NT": torch.arange(int(lengths_N.max())) < lengths_N[:, None],
    }


def _statistics(
    options: EstimatorOptions,
    settings: Mapping[str, Any],
    rewards_N: Tensor,
    scores_N: Tensor,
    group_ids_N: Tensor,
    valid_N: Tensor,
) -> dict[str, float]:
    """What is logged whatever the estimator, and what it adds of its own."""
    groups = group_statistics(rewards_N, group_ids_N, valid_N=valid_N)
    statistics = {
        "advantage/groups_without_spread": groups["share_without_spread"],
        "advantage/groups_without_peer": groups["groups_without_peer"],
    }
    agreement = concordance(rewards_N, scores_N, group_ids_N, valid_N=valid_N)
    if agreement is not None:
        statistics["advantage/concordance"] = agreement
    if options.statistics is not None:
        module, _, name = options.statistics.rpartition(".")
        function = getattr(import_module(f".advantages.{module}", __package__), name)
        own = function(scores_N, group_ids_N, valid_N=valid_N, **settings)
        statistics |= {f"advantage/{key}": value for key, value in own.items()}
    return statistics
