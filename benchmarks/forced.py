"""Rollouts of lengths that were drawn beforehand, in our sampler and in transformers' `generate`: both then do the same work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria

from lampo.rollout import native


def draw_lengths(work: str, rows: int, limit: int, generator: torch.Generator) -> Tensor:
    """(rows,) lengths. uniform: from 3/4 of the limit to all of it. tails: log-normal, median 1/8 of the limit, cut at the limit."""
    uniform = work == "uniform"
    shares = torch.rand(rows, generator=generator) if uniform else torch.randn(rows, generator=generator)
    shares = 0.75 + 0.25 * shares if uniform else shares.exp() / 8
    return (shares * limit).round().long().clamp(2, limit)


def force(tokens: Tensor, ends: Tensor, end_id: int, other_id: int) -> None:
    """Make the drawn tokens end where they should, and nowhere else. In place."""
    tokens.masked_fill_(tokens == end_id, other_id)
    tokens.masked_fill_(ends, end_id)


@contextmanager
def forced_sampler(lengths_N: Tensor, end_id: int, other_id: int) -> Iterator[None]:
    """Within, our sampler's rollouts get these lengths, in the order of its rows.

    The random number of a row's last token is 2 larger than it would be, which says so where the token is drawn.
    """
    uniforms, draw = native.NativeSampler._uniforms, native.draw

    def forced_uniforms(sampler: Any, num_rows: int, *arguments: Any) -> Tensor:
        drawn_NT = uniforms(sampler, num_rows, *arguments)
        drawn_NT[torch.arange(num_rows), lengths_N[:num_rows] - 1] += 2
        return drawn_NT

    def forced_draw(logprobs_NV: Tensor, uniforms_N: Tensor) -> Tensor:
        ends = uniforms_N >= 2
        tokens = draw(logprobs_NV, uniforms_N - 2 * ends)
        force(tokens, ends, end_id, other_id)
        return tokens

    with patch.object(native.NativeSampler, "_uniforms", forced_uniforms), patch.object(native, "draw", forced_draw):
        yield


class ForcedLengths(StoppingCriteria):
    """The same for `generate`. Its attribute `eos_token_id` has transformers pad what has ended."""

    def __init__(self, lengths_N: Tensor, prompt: int, end_id: int, other_id: int) -> None:
        self.lengths_N, self.prompt, self.eos_token_id, self.other_id = lengths_N, prompt, end_id, other_id

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        length = input_ids.shape[1] - self.prompt
        force(input_ids[:, -1], self.lengths_N == length, self.eos_token_id, self.other_id)
        return self.lengths_N <= length


def forced_generate(
    model: Any, lengths_N: Tensor, end_id: int, other_id: int, *, generation_config: GenerationConfig, **inputs: Any
) -> Tensor:
    """`model.generate` with these lengths. Its own end token has to go from the settings: rows would end by themselves."""
    settings = GenerationConfig.from_dict({**generation_config.to_dict(), "eos_token_id": None})
    settings.disable_compile = generation_config.disable_compile
    criteria = ForcedLengths(lengths_N, inputs["input_ids"].shape[1], end_id, other_id)
    with patch.object(model.generation_config, "eos_token_id", None):
        return type(model).generate(model, **inputs, generation_config=settings, stopping_criteria=[criteria])
