"""Log-probabilities of tokens from hidden states, without ever holding the logits of all tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGITS_PER_CHUNK = 2**25
"""Elements of the largest logits tensor: 128 MiB in float32, 670 tokens of a 50,000-word vocabulary."""
FEWEST_ON_CUDA = 1024
"""Tokens of a chunk there, whatever the vocabulary: products of fewer leave a GPU idle. 600 MiB for 150,000 words."""


def linear_logprobs(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Log-probabilities of the targets under softmax((states @ weight^T + bias) / temperature), and its entropy.

        log p(y) = z_y / tau - log sum_v exp(z_v / tau)        H = -sum_v p(v) log p(v)

    Logits are computed for at most `LOGITS_PER_CHUNK` elements at a time and once more in the backward pass, so memory is bounded
    by the chunk, not by tokens x vocabulary. torch 2.13's `linear_cross_entropy` bounds memory in the same way, and tighter. This
    one takes half its time on a CPU (benchmarks/logprobs.py), gives the entropy and the temperature too, and runs on torch 2.11.

    Args:
        states: (M, D) hidden states.
        weight: (V, D) weight of the language-model head.
        bias: (V,) its bias, or None.
        targets: (M,) int64 token ids.
        temperature: of the sampling distribution.
        dtype: of the matrix products; None means that of `states`. Everything after them is float32 at least.

    Returns:
        (M,) log-probabilities with gradient to states, weight and bias; (M,) entropies without. Float64 for float64 states, else float32.

    >>> states, weight = torch.zeros(1, 4), torch.zeros(8, 4)
    >>> logprobs, entropy = linear_logprobs(states, weight, None, torch.tensor([3]))
    >>> bool(torch.isclose(logprobs[0], -torch.log(torch.tensor(8.0)))), bool(torch.isclose(entropy[0], torch.log(torch.tensor(8.0))))
    (True, True)
    """
    return _LinearLogprobs.apply(states, weight, bias, targets, temperature, dtype or states.dtype)  # pyright: ignore[reportReturnType]


class _LinearLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        ctx.temperature, ctx.dtype = temperature, dtype
        ctx.chunk = max(FEWEST_ON_CUDA if states.device.type == "cuda" else 1, LOGITS_PER_CHUNK // weight.shape[0])
        logprobs, entropies, normalizers = [], [], []
        with torch.autocast(states.device.type, enabled=False):
            head = weight.to(dtype)
            for part, part_targets in zip(states.split(ctx.chunk), targets.split(ctx.chunk), strict=True):
                logits = _logits(part, head, bias, temperature)
                normalizer = logits.logsumexp(-1)
                logprobs.append(logits.gather(-1, part_targets[:, None]).squeeze(-1) - normalizer)
                probabilities = (logits - normalizer[:, None]).exp_()
                entropies.append(normalizer - (probabilities.mul_(logits)).sum(-1))
                normalizers.append(normalizer)
        ctx.save_for_backward(states, weight, bias, targets, torch.cat(normalizers))
        entropy = torch.cat(entropies)
        ctx.mark_non_differentiable(entropy)
        return torch.cat(logprobs), entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        states, weight, bias, targets, normalizers = ctx.saved_tensors
        grad_states = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        # in bfloat16 what a chunk adds would be rounded away: 1.5e-2 of error where 0.5e-2 comes from the factors (docs/log.md, 2026-11-27)
        exact = torch.promote_types(weight.dtype, torch.float32)
        grad_weight = torch.zeros_like(weight, dtype=exact) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        with torch.autocast(states.device.type, enabled=False):
            head = weight.to(ctx.dtype)
            for start in range(0, len(states), ctx.chunk):
                rows = slice(start, start + ctx.chunk)
                part_grad = grad[rows, None] / ctx.temperature
                grad_logits = (
                    _logits(states[rows], head, bias, ctx.temperature)
                    .sub_(normalizers[rows, None])
                    .exp_()
                    .mul_(-part_grad)
                )
                grad_logits.scatter_add_(-1, targets[rows, None], part_grad)
                if grad_bias is not None:
                    grad_bias += grad_logits.sum(0)
                grad_logits = grad_logits.to(ctx.dtype)
                if grad_states is not None:
                    grad_states[rows] = grad_logits @ head
                if grad_weight is not None:
                    part = states[rows].to(ctx.dtype)
                    if grad_weight.dtype == ctx.dtype:
                        grad_weight.addmm_(grad_logits.T, part)
                    else:
                        grad_weight += grad_logits.T @ part
        return grad_states, None if grad_weight is None else grad_weight.to(weight.dtype), grad_bias, None, None, None


def _logits(states: Tensor, head: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = states.to(head.dtype) @ head.T
    if bias is not None:
        logits = logits + bias.to(head.dtype)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).div_(temperature)
