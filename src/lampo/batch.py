"""Rollouts and advantages -> the micro-batches of one optimiser step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .objective import loss_denominator
from .policy import Policy
from .types import Group, MicroBatch


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One sequence of the loss: a prompt, the completion to be weighed, its weight (or that of each token), its group, its own number."""

    prompt_ids: Tensor
    completion_ids: Tensor
    old_logprobs: Tensor
    advantage: float | Tensor
    group: int = 0
    number: int = 0

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The rows of one optimiser step and what their loss is divided by.

    Attributes:
        rows: rows that have a gradient.
        num_rows: valid rows of the step, those without a gradient included.
        num_tokens: their completion tokens.
    """

    rows: tuple[Row, ...]
    num_rows: int
    num_tokens: int

    @classmethod
    def numbered(cls, rows: Sequence[Row]) -> Batch:
        """All of these rows, numbered in their order, so that `row_ids_N` of a micro-batch says which of them it holds."""
        numbered = tuple(replace(row, number=number) for number, row in enumerate(rows))
        return cls(numbered, len(numbered), sum(len(row.completion_ids) for row in numbered))

    def denominator(self, aggregation: str, max_new_tokens: int) -> float:
        """What the summed loss of all micro-batches is divided by; rows left out for their zero advantage count."""
        return loss_denominator(self.num_rows, self.num_tokens, max_new_tokens, aggregation)  # pyright: ignore[reportArgumentType]

    def split(self, tokens_per_microbatch: int, *, whole_groups: bool = False) -> list[MicroBatch]:
        """Micro-batches of at most so many tokens, padding included; rows of like length go together, the longest first.

        A row longer than the budget goes alone; so does a group, where groups stay whole.
        """
        units = [[row] for row in self.rows]
        if whole_groups:
            units = [
                [row for row in self.rows if row.group == group] for group in {row.group: None for row in self.rows}
            ]
        parts: list[list[Row]] = []
        for unit in sorted(units, key=lambda rows: max(map(len, rows)), reverse=True):
            longest = max(len(row) for row in (parts[-1] if parts else unit))
            if not parts or (len(parts[-1]) + len(unit)) * longest > tokens_per_microbatch:
                parts.append([])
            parts[-1] += unit
        return [pad(part) for part in parts]


def collate(
    groups_P: Sequence[Group],
    advantages: Tensor | Sequence[Tensor],
    *,
    keep_all: bool,
    left_out: Collection[int] = (),
) -> Batch:
    """The batch of one step, its rows numbered as the rollouts are. Invalid rows (without a reward) are left out and not counted.

    Args:
        groups_P: the groups.
        advantages: one a rollout, in the order of the groups: (N,), or N tensors (T,) with one a token.
        keep_all: keep rows whose advantage is exactly 0: they have a gradient only where a KL term is on.
        left_out: indices of groups whose rows are treated as invalid ones.
    """
    members = [
        (index, rollout, reward.valid and index not in left_out)
        for index, group in enumerate(groups_P)
        for rollout, reward in zip(group.rollouts_G, group.rewards_G, strict=True)
    ]
    weights: Sequence[float | Tensor] = advantages.tolist() if isinstance(advantages, Tensor) else advantages
    rollouts = [rollout for _, rollout, valid in members if valid]
    rows = tuple(
        Row(rollout.prompt_ids, rollout.completion_ids, rollout.logprobs, weight, group, number)
        for number, ((group, rollout, valid), weight) in enumerate(zip(members, weights, strict=True))
        if valid and len(rollout.completion_ids) and (keep_all or torch.as_tensor(weight).count_nonzero())
    )
    return Batch(rows, num_rows=len(rollouts), num_tokens=sum(len(rollout.completion_ids) for rollout in rollouts))


def row_logprobs(policy: Policy, rows: Sequence[Row], tokens_per_microbatch: int) -> list[Tensor]:
    """(T,) log-probabilities at temperature 1 of the completion of each row, in the order of the rows; no gradient."""
    logprobs: dict[int, Tensor] = {}
    for microbatch in Batch.numbered(rows).split(tokens_per_microbatch):
        logprobs |= microbatch.by_row(policy.frozen_logprobs(microbatch.to(policy.device), temperature=1.0))
    return [logprobs[number] for number in range(len(rows))]


def pad(rows: Sequence[Row]) -> MicroBatch:
    """Rows side by side, right-padded to their own longest."""
    N, L, T = len(rows), max(len(row) for row in rows), max(len(row.completion_ids) for row in rows)
    input_ids = torch.zeros(N, L, dtype=torch.int64)
    attention_mask = torch.zeros(N, L, dtype=torch.bool)
    target_ids = torch.zeros(N, T, dtype=torch.int64)
    mask_NT = torch.zeros(N, T, dtype=torch.bool)
    old_logprobs_NT, advantages_NT = torch.zeros(N, T), torch.zeros(N, T)
    for n, row in enumerate(rows):
        length = len(row.completion_ids)
        input_ids[n, : len(row)] = torch.cat([row.prompt_ids, row.completion_ids])
        attention_mask[n, : len(row)] = True
        target_ids[n, :length] = row.completion_ids
        mask_NT[n, :length] = True
        old_logprobs_NT[n, :length] = row.old_logprobs
        advantages_NT[n, :length] = row.advantage
    return MicroBatch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        mask_NT=mask_NT,
        target_ids=target_ids,
        prompt_lengths=torch.tensor([len(row.prompt_ids) for row in rows]),
        old_logprobs_NT=old_logprobs_NT,
        advantages_NT=advantages_NT,
        group_ids_N=torch.tensor([row.group for row in rows]),
        row_ids_N=torch.tensor([row.number for row in rows]),
    )
