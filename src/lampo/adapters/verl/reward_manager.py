"""verl's plain reward manager, which also tells how long a response is. verl loads it where its options name it."""

from __future__ import annotations

from typing import Any

import numpy as np
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager  # pyright: ignore[reportMissingImports]


class CountingRewardManager(NaiveRewardManager):
    """Gives `compute_score` the tokens of a response and the most that it could have had, in `extra_info`.

    So `lampo.adapters.verl.reward` takes a penalty for length off itself, and a response that nobody could judge stays unknown. verl's
    manager `dapo` takes it off what `compute_score` returns, and with it the mark of an unknown response.
    """

    async def run_single(self, data: Any) -> dict[str, Any]:
        """See `NaiveRewardManager`, which judges the last row."""
        data = data[-1:]
        row = data[0]
        mask = row.batch["attention_mask"][-row.batch["responses"].shape[-1] :]
        told = dict(row.non_tensor_batch.get("extra_info") or {})
        told |= {"num_tokens": int(mask.sum()), "max_new_tokens": int(self.config.data.max_response_length)}
        data.non_tensor_batch["extra_info"] = np.array([told], dtype=object)
        return await super().run_single(data)
