"""The sampler that a recipe asks for."""

from __future__ import annotations

from ..config.schema import TrainConfig
from ..model.policy import Policy
from .native import NativeSampler


def native_sampler(policy: Policy, config: TrainConfig, temperature: float | None = None) -> NativeSampler:
    """The recipe's sampler, or one like it at another temperature."""
    options = config.sampling
    return NativeSampler(
        policy,
        temperature=options.temperature if temperature is None else temperature,
        max_new_tokens=options.max_new_tokens,
        rows_at_once=options.rows_at_once,
    )
