"""Rewards, scores and groups in, advantages out: pure functions of tensors, one estimator per file.

Every estimator keeps the same contract. Groups are told by ids, may differ in size and lie in any order. A row that is
not valid gets 0 and influences nobody. A rollout without a peer gets exactly 0, and so does a group whose valid rewards are
all equal. Three of them differ in the latter: REINFORCE++ without a group baseline and shrinkage baselines, which compare
over the whole batch, and OTB, where a rollout outlasts all others. No gradient flows. A valid row that is not finite is refused.
"""

from ...types import Normalizer, Reduce, Scale, Weight
from .groups import GROUP_STD_EPSILON, concordance, group_statistics
from .grpo import grpo_advantages
from .maxrl import maxrl_advantages
from .otb import otb_advantages
from .pairwise import (
    calibrated_slope,
    pair_statistics,
    pairwise_advantages,
    pairwise_terms,
    score_norms,
    sequence_scores,
)
from .prime import prime_advantages
from .reinforce_pp import reinforce_pp_advantages
from .rloo import rloo_advantages
from .shrinkage import shrinkage_advantages

__all__ = [
    "GROUP_STD_EPSILON",
    "Normalizer",
    "Reduce",
    "Scale",
    "Weight",
    "calibrated_slope",
    "concordance",
    "group_statistics",
    "grpo_advantages",
    "maxrl_advantages",
    "otb_advantages",
    "pair_statistics",
    "pairwise_advantages",
    "pairwise_terms",
    "prime_advantages",
    "reinforce_pp_advantages",
    "rloo_advantages",
    "score_norms",
    "sequence_scores",
    "shrinkage_advantages",
]
