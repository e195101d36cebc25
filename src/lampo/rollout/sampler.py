"""What draws rollouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from ..types import Rollout

OnRollout = Callable[[int, int, Rollout], None]


class Sampler(Protocol):
    """Draws responses from the policy and reports the log-probabilities they were drawn with."""

    def sample(
        self,
        prompts_P: Sequence[Tensor],
        group_size: int,
        *,
        seed: int | Sequence[int],
        on_progress: Callable[[int], None] | None = None,
        on_rollout: OnRollout | None = None,
    ) -> list[list[Rollout]]:
        """Rollouts of every prompt.

        Args:
            prompts_P: token ids of the prompts, (L_prompt,) each.
            group_size: responses per prompt.
            seed: the same seed and weights give the same rollouts. One for each prompt makes the rollouts of a prompt
                independent of the others asked with it.
            on_progress: called with the number of tokens drawn so far.
            on_rollout: called with (index of the prompt, index in the group, rollout) as each one ends, in any order.

        Returns:
            rollouts_PG, in the order of the prompts.
        """
        ...
