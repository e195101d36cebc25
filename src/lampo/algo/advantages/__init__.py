"""Rewards, scores and groups in, advantages out: pure functions of tensors, one estimator per file.

Every estimator keeps the same contract. Groups are told by ids, may differ in size and lie in any order. A row that is
not valid gets 0 and influences nobody. A group whose valid rewards are all equal, and a rollout without a peer, get
exactly 0, but from REINFORCE++ without a group baseline, which compares over the whole batch. No gradient flows. A valid
row that is not finite is refused.
"""

from ...types import Normalizer, Reduce, Scale, Weight
from .groups import GROUP_STD_EPSILON, concordance, group_statistics
from .grpo import grpo_advantages
from .pairwise import pair_statistics, pairwise_advantages, pairwise_terms, score_norms, sequence_scores
from .prime import prime_advantages
from .reinforce_pp import reinforce_pp_advantages
from .rloo import rloo_advantages

__all__ = [
    "GROUP_STD_EPSILON",
    "Normalizer",
    "Reduce",
    "Scale",
    "Weight",
    "concordance",
    "group_statistics",
    "grpo_advantages",
    "pair_statistics",
    "pairwise_advantages",
    "pairwise_terms",
    "prime_advantages",
    "reinforce_pp_advantages",
    "rloo_advantages",
    "score_norms",
    "sequence_scores",
]
