"""The log-probs of the tokens that transformers' `generate` draws, taken while it draws them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList


class DrawnLogprobs(LogitsProcessor):
    """Looks at the logits of each step, and changes none.

    The token that was drawn from them is seen at the next step, and the last one in what `generate` returns.

    Attributes:
        logprobs_NT: (N, T) of the sampling distribution softmax(logits / temperature), float32; None where nothing was drawn by `generate`.
            What follows the end of a row is padding.
    """

    def __init__(self, temperature: float) -> None:
        self.logprobs_NT: Tensor | None = None
        self._temperature = temperature
        self._distribution_NV: Tensor | None = None
        self._columns: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """See `LogitsProcessor`. transformers calls those it is given before it divides by the temperature."""
        self._take(input_ids[:, -1])
        self._distribution_NV = torch.log_softmax(scores.float() / self._temperature, -1)
        return scores

    def finish(self, sequences: Tensor) -> None:
        """`generate` has returned these (N, L + T) tokens."""
        self._take(sequences[:, -1])
        self._distribution_NV = None
        self.logprobs_NT = torch.stack(self._columns, 1)

    def _take(self, tokens_N: Tensor) -> None:
        if self._distribution_NV is not None:
            self._columns.append(self._distribution_NV.gather(-1, tokens_N[:, None]).squeeze(-1))


@contextmanager
def drawn_logprobs(model: Any, temperature: float) -> Iterator[DrawnLogprobs]:
    """Inside, the model's `generate` tells the log-probs of what it draws."""
    drawn, generate = DrawnLogprobs(temperature), model.generate

    def told(*args: Any, **kwargs: Any) -> Tensor:
        sequences = generate(*args, logits_processor=LogitsProcessorList([drawn]), **kwargs)
        drawn.finish(sequences)
        return sequences

    model.generate = told
    try:
        yield drawn
    finally:
        del model.generate  # the class has its own
