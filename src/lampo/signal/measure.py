"""Groups of rollouts -> sketched gradients, and how each estimator would have weighed them. Nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..algo.advantages import rloo_advantages
from ..algo.estimate import estimate_advantages
from ..algo.registry import EstimatorOptions
from ..learner.batch import Batch, Row
from ..model.policy import Policy
from ..rewards import RewardOptions, score
from ..types import Group, Likelihood, NotFinite
from .sketch import GradientSketch
from .statistics import Array, Step

DAMPING = 0.05
"""Added to the root mean squares that Adam-like scaling divides by, in units of their mean."""
Key = tuple[str, int, str]
"""Verdicts, rollouts a group, estimator."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A group, and what its rewards are made of."""

    group: Group
    likelihoods_G: Sequence[Likelihood] | None = None

    def rewarded(self, rewards: Sequence[RewardOptions], max_new_tokens: int) -> Group:
        """The same rollouts and verdicts under other rewards."""
        group = self.group
        return score(group.problem, group.rollouts_G, group.verdicts_G, rewards, max_new_tokens, self.likelihoods_G)


@dataclass(slots=True)
class Sketches:
    """All that is kept of the groups measured.

    Attributes:
        true_nW: for each group the sketch of its estimate of the accuracy's gradient.
        plain_NW: sketched gradients, those of rollouts and, where an estimator weighs tokens, those of whole steps.
        scaled_NW: the same, each entry divided by the root mean square of a baseline step there, as Adam does.
        groups_N: the group of each.
        steps: by verdicts, rollouts a group and estimator: the weights of these gradients.
        accuracies_n: of each group.
    """

    true_nW: list[Tensor] = field(default_factory=list)
    plain_NW: list[Tensor] = field(default_factory=list)
    scaled_NW: list[Tensor] = field(default_factory=list)
    groups_N: list[int] = field(default_factory=list)
    weights: dict[Key, list[tuple[int, float, int]]] = field(default_factory=dict)
    num_subgroups: dict[Key, int] = field(default_factory=dict)
    accuracies_n: list[float] = field(default_factory=list)
    num_mixed: int = 0

    @property
    def num_groups(self) -> int:
        """Groups measured."""
        return len(self.true_nW)

    def step(self, key: Key) -> Step:
        """How an estimator weighs the sketched gradients."""
        weights_N, subgroups_N = np.zeros(len(self.groups_N)), np.zeros(len(self.groups_N), dtype=np.int64)
        count = self.num_subgroups[key]
        subgroups_N[:] = np.asarray(self.groups_N, dtype=np.int64) * count
        for row, weight, subgroup in self.weights[key]:
            weights_N[row], subgroups_N[row] = weight, self.groups_N[row] * count + subgroup
        return Step(weights_N, subgroups_N, count)

    def products(self) -> dict[str, tuple[Array, Array]]:
        """By scaling: inner products of the true gradients with all that was sketched, and of the latter with each other."""
        true_nW, plain_NW, scaled_NW = map(torch.stack, (self.true_nW, self.plain_NW, self.scaled_NW))
        return {
            name: ((true_nW @ rows_NW.T).double().numpy(), (rows_NW @ rows_NW.T).numpy())
            for name, rows_NW in (("adam", scaled_NW), ("plain", plain_NW))
        }


class Instrument:
    """Gradients of a policy's log-probabilities, one rollout at a time, as sketches.

    Memory beside the policy and one gradient: five bytes for each weight that is trained, and two sketches for each rollout.
    """

    def __init__(
        self, policy: Policy, *, temperature: float, tokens_per_microbatch: int, aggregation: str, width: int, seed: int
    ) -> None:
        self._policy = policy
        self._temperature = temperature
        self._tokens_per_microbatch = tokens_per_microbatch
        self._by_sequence = aggregation == "sequence"
        self._parameters = [*policy.trainable_parameters().values()]
        self._sketch = GradientSketch(self._parameters, width=width, seed=seed)
        self.width = width
        self._squares: list[Tensor] | None = None
        self._num_squares = 0
        self._scale: Tensor | None = None

    def normalised(self, group: Group, member: int) -> float:
        """What the loss divides a rollout's summed log-probability by: its length under the aggregation `sequence`."""
        return 1.0 / max(1, len(group.rollouts_G[member].completion_ids)) if self._by_sequence else 1.0

    def gradient(self, group: Group, weights: Mapping[int, float | Tensor]) -> list[Tensor]:
        """The gradient of sum_i w_i log pi(o_i), or of sum_it w_it log pi(o_it), over members of a group. Do not keep it.

        Raises:
            NotFinite: it is not finite.
        """
        rows = [
            Row(rollout.prompt_ids, rollout.completion_ids, rollout.logprobs, weight)
            for member, weight in weights.items()
            if len((rollout := group.rollouts_G[member]).completion_ids)
        ]
        for parameter in self._parameters:
            parameter.grad = None
        for microbatch in Batch.numbered(rows).split(self._tokens_per_microbatch, layout=self._policy.layout):
            microbatch = microbatch.to(self._policy.device)
            logprobs_NT, _ = self._policy.token_logprobs(microbatch, temperature=self._temperature)
            (logprobs_NT * microbatch.advantages_NT).sum().backward()
        found = [
            torch.zeros_like(parameter, dtype=torch.float32) if parameter.grad is None else parameter.grad.float()
            for parameter in self._parameters
        ]
        if not torch.stack([gradient.isfinite().all() for gradient in found]).all():  # one wait for a GPU, not one each
            raise NotFinite(f"The gradient of a response to problem {group.problem.id!r} is not finite.")
        return found

    def learn_scale(self, group: Group, weights: Mapping[int, float | Tensor]) -> None:
        """One more step of the baseline for the root mean squares."""
        gradients = self.gradient(group, weights)
        if self._squares is None:
            self._squares = [torch.zeros_like(gradient) for gradient in gradients]
        for square, gradient in zip(self._squares, gradients, strict=True):
            square.addcmul_(gradient, gradient)
        self._num_squares += 1

    def fix_scale(self) -> None:
        """From now on sketches are scaled by what `learn_scale` has seen."""
        assert self._squares is not None
        roots = torch.cat([(square / self._num_squares).sqrt_().reshape(-1) for square in self._squares])
        self._squares = None
        self._scale = roots.add_(DAMPING * roots.mean()).reciprocal_()

    def sketches(self, group: Group, weights: Mapping[int, float | Tensor]) -> tuple[Tensor, Tensor]:
        """(W,) the sketch of a gradient, plain and scaled, on the CPU."""
        plain_W, scaled_W = self._sketch(self.gradient(group, weights), self._scale)
        return plain_W.cpu(), scaled_W.cpu()

    def close(self) -> None:
        """Drop the gradient."""
        for parameter in self._parameters:
            parameter.grad = None


def true_advantages(group: Group) -> list[float]:
    """RLOO's advantages of the verdicts themselves: with them a group estimates the gradient of the accuracy without bias."""
    values_G = [verdict.correctness for verdict in group.verdicts_G]
    valid_G = torch.tensor([value is not None for value in values_G])
    rewards_G = torch.tensor([math.nan if value is None else value for value in values_G])
    ids_G = torch.zeros(len(values_G), dtype=torch.int64)
    return rloo_advantages(rewards_G, ids_G, valid_N=valid_G).tolist()


def parts(group: Group, size: int) -> list[Group]:
    """A group as groups of `size` rollouts, in their order."""
    return [
        Group(
            group.problem,
            group.rollouts_G[start : start + size],
            group.verdicts_G[start : start + size],
            group.rewards_G[start : start + size],
        )
        for start in range(0, len(group.rollouts_G), size)
    ]


Weights = dict[Key, list[list[float | Tensor]]]
"""By estimator, for each group of a step: the weight of each rollout, or of each of its tokens."""


def weigh(
    sampled: Sequence[Sampled],
    conditions: Mapping[str, Sequence[RewardOptions]],
    sizes: Sequence[int],
    estimators: Mapping[str, EstimatorOptions],
    max_new_tokens: int,
) -> Weights:
    """Advantages of every rollout of one step under each condition, group size and estimator.

    Smaller groups are measured under the first condition alone, and not for estimators that weigh tokens: each of their steps takes a
    pass of its own.
    """
    found: Weights = {}
    for condition, rewards in conditions.items():
        groups = [each.rewarded(rewards, max_new_tokens) for each in sampled]
        for size in sizes if condition == next(iter(conditions)) else sizes[:1]:
            split = [part for group in groups for part in parts(group, size)]
            for name, options in estimators.items():
                estimate = estimate_advantages(split, options)
                if estimate.by_token_N and size != sizes[0]:
                    continue
                rows = estimate.token_advantages if estimate.by_token_N else estimate.advantages_N.tolist()
                starts = range(0, len(rows), sizes[0])
                found[condition, size, name] = [[*rows[start : start + sizes[0]]] for start in starts]
    return found


def measure_group(
    sketches: Sketches,
    group: Group,
    weights: Mapping[Key, Sequence[float | Tensor]],
    instrument: Instrument,
    group_size: int,
) -> None:
    """Sketch what some estimator would push of one group, and keep how each would. A group is kept whole or not at all."""
    number, first = sketches.num_groups, len(sketches.groups_N)
    true_G = true_advantages(group)
    by_rollout = {key: rows for key, rows in weights.items() if not isinstance(rows[0], Tensor)}
    pushed = [
        member
        for member in range(group_size)
        if true_G[member] != 0 or any(rows[member] != 0 for rows in by_rollout.values())
    ]
    new = [instrument.sketches(group, {member: 1.0}) for member in pushed]
    row_of = {member: first + position for position, member in enumerate(pushed)}
    true_W = torch.zeros(instrument.width)
    for member, (plain_W, _) in zip(pushed, new, strict=True):
        true_W += true_G[member] / group_size * plain_W
    entries: dict[Key, list[tuple[int, float, int]]] = {}
    for key, rows in weights.items():
        size, kept = key[1], []
        if key in by_rollout:
            for member in pushed:
                if rows[member] != 0:
                    weight = float(rows[member]) * instrument.normalised(group, member) / size
                    kept.append((row_of[member], weight, member // size))
        else:
            for subgroup in range(group_size // size):
                members = range(subgroup * size, (subgroup + 1) * size)
                tokens = {
                    member: rows[member] * instrument.normalised(group, member) / size  # pyright: ignore[reportOperatorIssue]
                    for member in members
                    if torch.as_tensor(rows[member]).count_nonzero()
                }
                if tokens:
                    kept.append((first + len(new), 1.0, subgroup))
                    new.append(instrument.sketches(group, tokens))
        entries[key] = kept
    sketches.true_nW.append(true_W)
    sketches.plain_NW += [plain_W for plain_W, _ in new]
    sketches.scaled_NW += [scaled_W for _, scaled_W in new]
    sketches.groups_N += [number] * len(new)
    sketches.accuracies_n.append(math.nan if group.accuracy is None else group.accuracy)
    sketches.num_mixed += group.is_mixed
    for key, kept in entries.items():
        sketches.weights.setdefault(key, []).extend(kept)
        sketches.num_subgroups[key] = group_size // key[1]


def baseline_weights(group: Group, rows: Sequence[float | Tensor], instrument: Instrument) -> dict[int, float]:
    """The step of a group under the baseline, as weights of the summed log-probabilities."""
    return {
        member: float(row) * instrument.normalised(group, member) for member, row in enumerate(rows) if float(row) != 0
    }
