"""RLPR's reward: how much likelier a response makes the reference answer (arXiv 2506.18254). `learner` computes it."""

from __future__ import annotations

from typing import Literal

from .reward import Responses, RewardOptions


class LikelihoodReward(RewardOptions):
    """How much likelier the response makes the reference answer, by the policy itself (RLPR, arXiv 2506.18254)."""

    name: Literal["likelihood"] = "likelihood"
    """Selects this reward."""
    credit: Literal["response", "reasoning"] = "response"
    """Whose tokens the update credits. response: all of them (RLPR). reasoning: those before the answer, on which alone the likelihood
    depends. The gradient is the same in expectation, with far less noise."""

    def values(self, responses: Responses) -> list[float | None]:
        """See `RewardOptions.values`."""
        assert responses.likelihoods_G is not None, "the likelihoods of a recipe with this reward are computed"
        return [likelihood.value for likelihood in responses.likelihoods_G]
