"""TRL's padded tensors -> the groups that `lampo.algo` takes, and token advantages back into their shape. No TRL in here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...types import Group, Problem, Reward, Rollout, Verdict

NO_VERDICT = Verdict("unknown", detail="TRL gives rewards, not verdicts")


@dataclass(frozen=True, slots=True, eq=False)
class GatheredRows:
    """All rows of a generation batch, of all processes, on the CPU. The rows of a group follow each other, as TRL samples them.

    Attributes:
        rewards_NF: what each reward function gave, NaN where it could not tell.
        totals_N: their weighted sums; NaN where the row has no reward.
        prompt_ids: (N, L) with prompt_mask True on real tokens, padded on any side.
        completion_ids: (N, T).
        mask_NT: True on the tokens that the policy wrote and the loss counts.
        logprobs_NT: of these tokens; None where the estimator asks for none.
    """

    rewards_NF: Tensor
    totals_N: Tensor
    prompt_ids: Tensor
    prompt_mask: Tensor
    completion_ids: Tensor
    mask_NT: Tensor
    logprobs_NT: Tensor | None

    @property
    def valid_N(self) -> Tensor:
        """Rows that take part: those with a reward and at least one token."""
        return ~self.totals_N.isnan() & self.mask_NT.any(1)

    def groups(
        self, group_size: int, reward_names: Sequence[str], decode: Callable[[Tensor], str] | None = None
    ) -> list[Group]:
        """The same rows as groups. A row whose tokens were all masked has no reward: an empty response would score as the likeliest.

        Args:
            group_size: responses to each prompt.
            reward_names: of the columns of `rewards_NF`.
            decode: token ids -> text; None: nobody reads the texts, and they stay empty.
        """
        totals_N = torch.where(self.valid_N, self.totals_N, torch.nan).tolist()
        rollouts = [self._rollout(row, decode) for row in range(len(totals_N))]
        rewards = [
            Reward(
                {name: None if value != value else value for name, value in zip(reward_names, values, strict=True)},
                total,
            )
            for values, total in zip(self.rewards_NF.tolist(), totals_N, strict=True)
        ]
        return [
            Group(
                Problem(
                    str(start // group_size), decode(rollouts[start].prompt_ids) if decode else "(not decoded)", ""
                ),
                tuple(rollouts[start : start + group_size]),
                (NO_VERDICT,) * len(rollouts[start : start + group_size]),
                tuple(rewards[start : start + group_size]),
            )
            for start in range(0, len(rollouts), group_size)
        ]

    def _rollout(self, row: int, decode: Callable[[Tensor], str] | None) -> Rollout:
        mask_T = self.mask_NT[row]
        ids = self.completion_ids[row][mask_T]
        logprobs = torch.zeros(len(ids)) if self.logprobs_NT is None else self.logprobs_NT[row][mask_T].float()
        prompt_ids = self.prompt_ids[row][self.prompt_mask[row]]
        return Rollout(prompt_ids, ids, logprobs, finished=True, text=decode(ids) if decode else "")

    def spread_out(self, by_token_N: Sequence[Tensor]) -> Tensor:
        """(N, T) advantages from one tensor a row that holds those of its masked tokens, in their order; 0 elsewhere."""
        advantages_NT = torch.zeros(self.mask_NT.shape)
        for row, advantages in enumerate(by_token_N):
            advantages_NT[row, self.mask_NT[row]] = advantages.float()
        return advantages_NT
