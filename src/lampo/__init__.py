"""LamPO: reinforcement learning with verifiable rewards and pairwise advantages (arXiv 2605.21235).

The method is a handful of pure functions, for use in any trainer:

    from lampo import sequence_scores, pairwise_advantages, policy_loss

Names are imported when they are first used, so that `import lampo` alone is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .algo.advantages import (
        grpo_advantages,
        pair_statistics,
        pairwise_advantages,
        pairwise_terms,
        reinforce_pp_advantages,
        rloo_advantages,
        sequence_scores,
    )
    from .algo.objective import Loss, loss_denominator, merge_statistics, policy_loss
    from .rewards.reward_function import reward_function
    from .rewards.rouge_l import rouge_l
    from .types import LampoError, Verdict

__all__ = [
    "LampoError",
    "Loss",
    "Verdict",
    "grpo_advantages",
    "loss_denominator",
    "merge_statistics",
    "pair_statistics",
    "pairwise_advantages",
    "pairwise_terms",
    "policy_loss",
    "reinforce_pp_advantages",
    "reward_function",
    "rloo_advantages",
    "rouge_l",
    "sequence_scores",
]

__version__ = "0.1.0"

_MODULES = {
    ".algo.advantages": (
        "grpo_advantages",
        "pair_statistics",
        "pairwise_advantages",
        "pairwise_terms",
        "reinforce_pp_advantages",
        "rloo_advantages",
        "sequence_scores",
    ),
    ".algo.objective": ("Loss", "policy_loss", "loss_denominator", "merge_statistics"),
    ".rewards.reward_function": ("reward_function",),
    ".rewards.rouge_l": ("rouge_l",),
    ".types": ("LampoError", "Verdict"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module, __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
