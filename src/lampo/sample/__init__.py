"""Policy, prompts -> rollouts: one Protocol, one file per backend."""

from .base import Sampler
from .native import NativeSampler

__all__ = ["NativeSampler", "Sampler"]
