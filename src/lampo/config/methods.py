"""The methods by name: each is data, the settings that `method: NAME` puts under those of a recipe.

A method is a reward shaping, an advantage estimator, a surrogate with its aggregation, and a rule of sampling. docs/methods.md has
their equations, and what of each paper was left out.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..messages import did_you_mean
from ..options import OWN
from ..types import LampoError

Settings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Method:
    """A published method, or two in one.

    Attributes:
        paper: its title, in short.
        arxiv: number of the paper. None where there is none.
        settings: sections of a recipe, with `rewards` by their titles. What a person writes wins over them.
        trains: it has training steps at all. If not, `training.steps` is 0 whatever is written.
    """

    paper: str
    arxiv: str | None
    settings: Settings
    trains: bool = True


LAMPO_ADVANTAGE: Settings = {"name": "pairwise", "scale": "group_std"}
GRPO_ADVANTAGE: Settings = {"name": "grpo", "std": True}
PPO_CLIP: Settings = {"clip_low": 0.2, "clip_high": 0.2}
DAPO: Settings = {
    "loss": {"clip_low": 0.2, "clip_high": 0.28, "aggregation": "token"},
    "sampling": {"resample": 3},
    "rewards": {"overlong": {"weight": 0.5, "share": 0.2}},  # the paper's 1, for rewards of 1 and 0, not 1 and -1
}

METHODS: dict[str, Method] = {
    "lampo": Method(
        "LamPO: A Lambda Style Policy Optimization for Reasoning Language Models",
        "2605.21235",
        {"advantage": LAMPO_ADVANTAGE, "loss": {**PPO_CLIP, "aggregation": "sequence"}},
    ),
    "lampo_ob": Method(
        "LamPO among the peers of the optimal baseline: who was unsure counts more (of this project)",
        None,
        {
            "advantage": {**LAMPO_ADVANTAGE, "peer_weight": "score_norm"},
            "loss": {**PPO_CLIP, "aggregation": "sequence"},
        },
    ),
    "lampo_cal": Method(
        "LamPO with a confidence calibrated on each step's verdicts, and less against the worse (of this project)",
        None,
        {
            "advantage": {
                "name": "pairwise",
                "temperature": "calibrated",
                "scale": "group_mean",
                "peer_weight": "score_norm",
                "negative": 0.36,
            },
            "loss": {**PPO_CLIP, "aggregation": "constant"},
        },
    ),
    "grpo": Method(
        "DeepSeekMath: Pushing the Limits of Mathematical Reasoning",
        "2402.03300",
        {"advantage": GRPO_ADVANTAGE, "loss": {**PPO_CLIP, "aggregation": "sequence"}},
    ),
    "dr_grpo": Method(
        "Understanding R1-Zero-Like Training: A Critical Perspective",
        "2503.20783",
        {"advantage": {"name": "grpo", "std": False}, "loss": {**PPO_CLIP, "aggregation": "constant"}},
    ),
    "rloo": Method(
        "Back to Basics: Revisiting REINFORCE Style Optimization",
        "2402.14740",
        {"advantage": {"name": "rloo"}, "loss": {**PPO_CLIP, "aggregation": "constant"}},
    ),
    "reinforce_pp": Method(
        "REINFORCE++: Stabilizing Critic-Free Policy Optimization with Global Advantage Normalization",
        "2501.03262",
        {"advantage": {"name": "reinforce_pp", "baseline": "none"}, "loss": {**PPO_CLIP, "aggregation": "token"}},
    ),
    "reinforce_pp_baseline": Method(
        "REINFORCE++ with the group's mean as baseline",
        "2501.03262",
        {"advantage": {"name": "reinforce_pp", "baseline": "group"}, "loss": {**PPO_CLIP, "aggregation": "token"}},
    ),
    "shrinkage": Method(
        "Shrinking the Variance: Shrinkage Baselines for Reinforcement Learning with Verifiable Rewards",
        "2511.03710",
        {"advantage": {"name": "shrinkage"}, "loss": {**PPO_CLIP, "aggregation": "token"}},
    ),
    "maxrl": Method(
        "Maximum Likelihood Reinforcement Learning",
        "2602.02710",
        {"advantage": {"name": "maxrl"}, "loss": {**PPO_CLIP, "aggregation": "token"}},
    ),
    "otb": Method(
        "The optimal token baseline: for each token the baseline of least variance",
        "2602.07078",
        {"advantage": {"name": "otb"}, "loss": {**PPO_CLIP, "aggregation": "token"}},
    ),
    "dapo": Method(
        "DAPO: An Open-Source LLM Reinforcement Learning System at Scale",
        "2503.14476",
        {"advantage": GRPO_ADVANTAGE, **DAPO},
    ),
    "lampo_dapo": Method(
        "LamPO's advantage in DAPO, in the place of GRPO's (of this project)",
        None,
        {"advantage": LAMPO_ADVANTAGE, **DAPO},
    ),
    "gspo": Method(
        "Group Sequence Policy Optimization",
        "2507.18071",
        {
            "advantage": GRPO_ADVANTAGE,
            "loss": {"surrogate": "sequence", "clip_low": 3e-4, "clip_high": 4e-4, "aggregation": "sequence"},
        },
    ),
    "cispo": Method(
        "MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning Attention",
        "2506.13585",
        {
            "advantage": GRPO_ADVANTAGE,
            "loss": {"surrogate": "cispo", "clip_low": 1.0, "clip_high": 4.0, "aggregation": "token"},
        },
    ),
    "gmpo": Method(
        "Geometric-Mean Policy Optimization",
        "2507.20673",
        {
            "advantage": GRPO_ADVANTAGE,
            "loss": {"surrogate": "geometric", "clip_low": 0.4, "clip_high": 0.4, "aggregation": "sequence"},
        },
    ),
    "gvpo": Method(
        "GVPO: Group Variance Policy Optimization for Large Language Model Post-Training",
        "2504.19599",
        {
            "advantage": {"name": "grpo", "std": False},
            "loss": {"surrogate": "gvpo", "beta": 0.1, "aggregation": "sequence"},
        },
    ),
    "simplerl_zoo": Method(
        "SimpleRL-Zoo: Investigating and Taming Zero Reinforcement Learning for Open Base Models",
        "2503.18892",
        {
            "advantage": GRPO_ADVANTAGE,
            "loss": {**PPO_CLIP, "aggregation": "token", "kl_coefficient": 1e-4},
        },
    ),
    "rlpr": Method(
        "RLPR: Extrapolating RLVR to General Domains without Verifiers",
        "2506.18254",
        {
            "advantage": GRPO_ADVANTAGE,
            "loss": {"clip_low": 0.2, "clip_high": 0.27, "aggregation": "token"},
            "rewards": {"verifier": {"weight": 0.0}, "likelihood": {"weight": 1.0}},
            "spread_filter": {"share": 0.5, "decay": 0.99, "average_from": 6, "filter_from": 11},
        },
    ),
    "prime": Method(  # memory: the policy, the process reward model and their reference
        "Process Reinforcement through Implicit Rewards",
        "2502.01456",
        {
            "advantage": {"name": "prime"},
            "loss": {**PPO_CLIP, "aggregation": "token"},
            "sampling": {"resample": 3, "accuracy_range": [0.2, 0.8]},
        },
    ),
    "cot": Method("The untrained model: chain of thought and nothing else", None, {}, trains=False),
}


def method_settings(name: Any) -> Settings:
    """The settings of a method.

    Raises:
        LampoError: there is no method of that name.
    """
    if not isinstance(name, str) or name not in METHODS:
        own = isinstance(name, str) and name.startswith(OWN)
        guess = (
            f" For an advantage of your own: method: null, advantage.name: {name}."
            if own
            else did_you_mean(str(name), METHODS)
        )
        raise LampoError(f"There is no method {name!r}.{guess} Known are {', '.join(METHODS)}.")
    return copy.deepcopy(METHODS[name].settings)


def under(settings: Mapping[str, Any], values: Settings) -> Settings:
    """Settings of a method below those of a recipe: what is written wins, key by key.

    A recipe's section with another `name` stands alone: the method's options would make no sense in it.
    """
    merged = dict(values)
    for key, preset in settings.items():
        value = values.get(key)
        if isinstance(preset, dict) and isinstance(value, dict):
            other = value.get("name", preset.get("name")) != preset.get("name")
            merged[key] = value if other else under(preset, value)
        elif key not in values:
            merged[key] = copy.deepcopy(preset)
    return merged


def overridden(config: Mapping[str, Any], method: str) -> list[str]:
    """Where a configuration, as plain values, differs from what its method brings, as `key: value (the method's own)`."""
    values = dict(config) | {"rewards": {reward["label"] or reward["name"]: reward for reward in config["rewards"]}}
    own = flat(method_settings(method))
    ours = flat(values)
    return [
        f"{key} is {ours[key]!r} (its own: {value!r})" for key, value in own.items() if ours.get(key, value) != value
    ]


def flat(values: Mapping[str, Any], prefix: str = "") -> Settings:
    """Nested settings with keys such as loss.clip_low."""
    found: Settings = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
