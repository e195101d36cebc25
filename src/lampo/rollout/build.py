"""The sampler that a recipe asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from ..config.schema import TrainConfig
from ..model.policy import Policy
from ..model.prompts import most_tokens
from ..types import Problem
from .native import NativeSampler
from .sampler import Sampler

SamplerAt = Callable[[float], Sampler]
"""A sampler at a temperature."""


def open_samplers(
    policy: Policy, config: TrainConfig, problems: Sequence[Problem], stack: ExitStack, tell: Callable[[str], None]
) -> SamplerAt:
    """The recipe's samplers, by temperature.

    Args:
        policy: what they sample from, as it is when they are asked.
        config: the recipe.
        problems: all that they will be asked for.
        stack: closes what they hold open.
        tell: hears of what takes a while.

    Raises:
        LampoError: the engine of the recipe is not installed, or cannot run the model.
    """
    if config.sampling.engine == "native":
        return partial(native_sampler, policy, config, tell=tell)
    from .vllm import VllmEngine, refuse  # only where a recipe asks for it

    refuse(config)
    tell("starting vLLM")
    longest = most_tokens(problems, policy, config.prompt) + config.sampling.max_new_tokens
    engine = VllmEngine(policy, config.sampling, min(longest, policy.context.length))
    stack.callback(engine.close)
    return engine.sampler


def native_sampler(
    policy: Policy, config: TrainConfig, temperature: float | None = None, tell: Callable[[str], None] | None = None
) -> NativeSampler:
    """A native sampler with the recipe's settings, or one like it at another temperature."""
    options = config.sampling
    return NativeSampler(
        policy,
        temperature=options.temperature if temperature is None else temperature,
        max_new_tokens=options.max_new_tokens,
        rows_at_once=options.rows_at_once,
        tell=tell,
    )
