"""Verdicts and texts -> rewards, one reward per file. No torch.

A recipe lists them: `rewards: [{name: verifier}, {name: rouge_l, weight: 0.2}]`. A new one is a file here and a line in REWARDS.
"""

from __future__ import annotations

from functools import partial, reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field

from ..options import own_function_options
from .format import FormatReward
from .likelihood import LikelihoodReward
from .overlong import OverlongReward, overlong
from .python import PythonReward
from .reward import Responses, RewardOptions
from .reward_function import RewardFunction, reward_function, reward_functions
from .rouge_l import RougeLReward, reasoning_trace, rouge_l, rouge_tokens
from .score import add_up, score
from .verifier import VerifierReward

REWARDS: dict[str, type[RewardOptions]] = {
    "verifier": VerifierReward,
    "rouge_l": RougeLReward,
    "format": FormatReward,
    "overlong": OverlongReward,
    "likelihood": LikelihoodReward,
    "python": PythonReward,
}
"""All rewards by name."""

if TYPE_CHECKING:
    AnyReward = RewardOptions
else:
    AnyReward = Annotated[
        reduce(or_, REWARDS.values()),
        Field(discriminator="name"),
        BeforeValidator(partial(own_function_options, known=("weight", "label", "batch"))),
    ]

__all__ = [
    "REWARDS",
    "AnyReward",
    "FormatReward",
    "LikelihoodReward",
    "OverlongReward",
    "PythonReward",
    "Responses",
    "RewardFunction",
    "RewardOptions",
    "RougeLReward",
    "VerifierReward",
    "add_up",
    "overlong",
    "reasoning_trace",
    "reward_function",
    "reward_functions",
    "rouge_l",
    "rouge_tokens",
    "score",
]
