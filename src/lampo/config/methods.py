"""The methods by name: each is data, the settings that `method: NAME` puts under those of a recipe.

A method is a reward shaping, an advantage estimator, a surrogate with its aggregation, and a rule of sampling. docs/methods.md has
their equations, and what of each paper was left out.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..types import LampoError

Settings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Method:
    """A published method, or two in one.

    Attributes:
        paper: its title, in short.
        arxiv: number of the paper; None where there is none.
        settings: sections of a recipe. `advantage`, `loss` and `spread_filter` are whole: what is not named there has its default.
    """

    paper: str
    arxiv: str | None
    settings: Settings


LAMPO_ADVANTAGE: Settings = {"name": "pairwise", "scale": "group_std"}
GRPO_ADVANTAGE: Settings = {"name": "grpo", "std": True}
PPO_CLIP: Settings = {"clip_low": 0.2, "clip_high": 0.2}
DAPO: Settings = {
    "loss": {"clip_low": 0.2, "clip_high": 0.28, "aggregation": "token"},
    "sampling": {"resample": 3},
    "rewards": {"overlong_penalty": 0.5, "overlong_share": 0.2},  # the paper's 1, for rewards of 1 and 0, not 1 and -1
}

METHODS: dict[str, Method] = {
    "lampo": Method(
        "LamPO: A Lambda Style Policy Optimization for Reasoning Language Models",
        "2605.21235",
        {"advantage": LAMPO_ADVANTAGE, "loss": {**PPO_CLIP, "aggregation": "sequence"}},
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
            "rewards": {"rouge_l": 0.0},
        },
    ),
    "rlpr": Method(
        "RLPR: Extrapolating RLVR to General Domains without Verifiers",
        "2506.18254",
        {
            "advantage": GRPO_ADVANTAGE,
            "loss": {"clip_low": 0.2, "clip_high": 0.27, "aggregation": "token"},
            "rewards": {"source": "likelihood"},
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
    "cot": Method("The untrained model: chain of thought and nothing else", None, {"training": {"steps": 0}}),
}

OWN_SECTIONS = ("advantage", "loss", "spread_filter")
OWN_SETTINGS = (
    ("sampling", "resample"),
    ("sampling", "accuracy_range"),
    ("rewards", "source"),
    ("rewards", "likelihood_credit"),
    ("rewards", "overlong_penalty"),
    ("rewards", "overlong_share"),
)
"""What belongs to a method, and goes with it when another is put in its place."""


def method_settings(name: Any) -> Settings:
    """The settings of a method.

    Raises:
        LampoError: there is no method of that name.
    """
    if not isinstance(name, str) or name not in METHODS:
        raise LampoError(f"There is no method {name!r}; known are {', '.join(METHODS)}.")
    return copy.deepcopy(METHODS[name].settings)


def under(settings: Mapping[str, Any], values: Settings) -> Settings:
    """Settings of a method below those of a recipe: the recipe's own win, section by section.

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


def with_method(values: Settings, name: Any) -> Settings:
    """A recipe with another method: what belonged to its own method goes, and the new one's settings win over the rest."""
    former = {} if values.get("method") is None else method_settings(values["method"])
    kept = {key: value for key, value in values.items() if key not in OWN_SECTIONS}
    for section, settings in kept.items():
        if isinstance(settings, dict):
            set_by_former = former.get(section, {})
            kept[section] = {
                key: value
                for key, value in settings.items()
                if (section, key) not in OWN_SETTINGS and (key not in set_by_former or set_by_former[key] != value)
            }
    return under(kept, method_settings(name)) | {"method": name}
