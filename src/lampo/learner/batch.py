"""Rollouts and advantages -> the micro-batches of one optimiser step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..algo.objective import loss_denominator
from ..model.policy import Layout, Policy
from ..types import Group, MicroBatch

LITTLE_PADDING = 256
"""Tokens of padding in a micro-batch that cost less than another micro-batch would, and ..."""
SHARE_OF_PADDING = 0.05
"""... the share of it that may be padding where it is large."""


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
        """What the summed loss of all micro-batches is divided by. Rows left out for their zero advantage count."""
        return loss_denominator(self.num_rows, self.num_tokens, max_new_tokens, aggregation)  # pyright: ignore[reportArgumentType]

    def split(
        self, tokens_per_microbatch: int, *, whole_groups: bool = False, layout: Layout = "rows"
    ) -> list[MicroBatch]:
        """Micro-batches for which the model computes at most so many tokens, in time linear in the rows.

        Rows of like length go together where they are padded, and those of a group where their prompt then counts once.

        Args:
            tokens_per_microbatch: the budget. A row longer than it goes alone; so does a group, where groups stay whole.
            whole_groups: never part the rows of a group.
            layout: what the model computes for a micro-batch, see `Policy.layout`.
        """
        by_length = sorted(self.rows, key=len, reverse=True)
        groups: dict[int, list[Row]] = {}
        for row in by_length:
            groups.setdefault(row.group, []).append(row)
        by_group = [[row] for rows in groups.values() for row in rows]
        orders = {"rows": [[[row] for row in by_length]], "packed": [by_group]}
        orders["shared"] = [*orders["rows"], by_group]
        chosen = [list(groups.values())] if whole_groups else orders[layout]
        packed = [_pack(units, tokens_per_microbatch, layout) for units in chosen]
        fewest = min(packed, key=lambda parts: sum(part.size.tokens(layout) for part in parts))
        return [pad(part.rows) for part in fewest]


class _Size(NamedTuple):
    """What it takes to tell how many tokens some rows are, padded or not; `prompts` are distinct ones."""

    num_rows: int
    num_prompts: int
    row_tokens: int
    prompt_tokens: int
    completion_tokens: int
    longest_row: int
    longest_prompt: int
    longest_completion: int

    @classmethod
    def of(cls, rows: Sequence[Row], known: Collection[int] = ()) -> _Size:
        """The size of rows, beside prompts that are there already."""
        whole, completions = [len(row) for row in rows], [len(row.completion_ids) for row in rows]
        prompts = {id(row.prompt_ids): len(row.prompt_ids) for row in rows}  # rollouts of a group hold the same tensor
        new = [length for key, length in prompts.items() if key not in known]
        return cls(
            len(rows), len(new), sum(whole), sum(new), sum(completions),
            max(whole), max(prompts.values()), max(completions),
        )  # fmt: skip

    def __add__(self, other: _Size) -> _Size:  # pyright: ignore[reportIncompatibleMethodOverride]
        pairs = list(zip(self, other, strict=True))
        return _Size(*map(sum, pairs[:5]), *map(max, pairs[5:]))

    def tokens(self, layout: Layout) -> int:
        """What the model computes, padding included."""
        whole = self.num_rows * self.longest_row
        shared = self.num_prompts * self.longest_prompt + self.num_rows * self.longest_completion
        return {"rows": whole, "shared": min(whole, shared), "packed": self.own(layout)}[layout]

    def own(self, layout: Layout) -> int:
        """The same without padding."""
        return self.row_tokens if layout == "rows" else self.prompt_tokens + self.completion_tokens


@dataclass(slots=True)
class _Part:
    """A micro-batch to be, and the prompts that it has."""

    rows: list[Row]
    size: _Size
    prompts: set[int]


def _pack(units: Sequence[list[Row]], budget: int, layout: Layout) -> list[_Part]:
    """In this order, each unit into the last part if that stays within the budget and makes little padding, else into a new one."""
    parts: list[_Part] = []
    for unit in units:
        if parts:
            part = parts[-1]
            size = part.size + _Size.of(unit, part.prompts)
            tokens = size.tokens(layout)
            if tokens <= budget and tokens - size.own(layout) <= max(LITTLE_PADDING, tokens * SHARE_OF_PADDING):
                part.rows += unit
                part.size = size
                part.prompts |= {id(row.prompt_ids) for row in unit}
                continue
        parts.append(_Part([*unit], _Size.of(unit), {id(row.prompt_ids) for row in unit}))
    return parts


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


def row_logprobs(
    policy: Policy, rows: Sequence[Row], tokens_per_microbatch: int, *, temperature: float = 1.0
) -> list[Tensor]:
    """(T,) log-probabilities of the completion of each row at a temperature, in the order of the rows. No gradient."""
    logprobs: dict[int, Tensor] = {}
    for microbatch in Batch.numbered(rows).split(tokens_per_microbatch, layout=policy.layout):
        logprobs |= microbatch.by_row(policy.frozen_logprobs(microbatch.to(policy.device), temperature=temperature))
    return [logprobs[number] for number in range(len(rows))]


def pad(rows: Sequence[Row]) -> MicroBatch:
    """Rows side by side, right-padded to their own longest."""
    N, L, T = len(rows), max(len(row) for row in rows), max(len(row.completion_ids) for row in rows)
    input_ids = torch.zeros(N, L, dtype=torch.int64)
    attention_mask = torch.zeros(N, L, dtype=torch.bool)
    target_ids = torch.zeros(N, T, dtype=torch.int64)
    mask_NT = torch.zeros(N, T, dtype=torch.bool)
    old_logprobs_NT, advantages_NT = torch.zeros(N, T), torch.zeros(N, T)
    first: dict[tuple[int, ...], int] = {}
    first_ids = [first.setdefault(tuple(row.prompt_ids.tolist()), n) for n, row in enumerate(rows)]
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
        first_ids_N=torch.tensor(first_ids),
    )
