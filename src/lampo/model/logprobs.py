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
FEWEST_BY_KERNELS = 4096
"""... where logits stay in bfloat16. Each chunk adds to the gradient of the whole head, so few are better. 1.2 GiB for 150,000 words."""


def tokens_of_chunk(vocabulary: int, *, cuda: bool, by_kernels: bool = False) -> int:
    """Tokens whose logits exist together."""
    fewest = (FEWEST_BY_KERNELS if by_kernels else FEWEST_ON_CUDA) if cuda else 1
    return max(fewest, LOGITS_PER_CHUNK // vocabulary)


def linear_logprobs(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    dtype: torch.dtype | None = None,
    kernels: Any = None,
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
        kernels: the module whose `score` and `score_back` are taken (`update_kernels` on CUDA); None means those here.

    Returns:
        (M,) log-probabilities with gradient to states, weight and bias; (M,) entropies without. Float64 for float64 states, else float32.

    >>> states, weight = torch.zeros(1, 4), torch.zeros(8, 4)
    >>> logprobs, entropy = linear_logprobs(states, weight, None, torch.tensor([3]))
    >>> bool(torch.isclose(logprobs[0], -torch.log(torch.tensor(8.0)))), bool(torch.isclose(entropy[0], torch.log(torch.tensor(8.0))))
    (True, True)
    """
    arguments = temperature, dtype or states.dtype, kernels
    return _LinearLogprobs.apply(states, weight, bias, targets, *arguments)  # pyright: ignore[reportReturnType]


def score(logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """The targets' log-probabilities under softmax(logits / temperature), its entropies and normalisers, (M,) each, of logits (M, V)."""
    logits = _scaled(logits, temperature)
    normalizers = logits.logsumexp(-1)
    logprobs = logits.gather(-1, targets[:, None]).squeeze(-1) - normalizers
    probabilities = (logits - normalizers[:, None]).exp_()
    return logprobs, normalizers - (probabilities.mul_(logits)).sum(-1), normalizers


def score_back(logits: Tensor, targets: Tensor, normalizers: Tensor, grad: Tensor, temperature: float) -> Tensor:
    """The gradient of the logits, given that of the targets' log-probabilities, (M,). The logits are no more afterwards."""
    grad = grad[:, None] / temperature
    grad_logits = _scaled(logits, temperature).sub_(normalizers[:, None]).exp_().mul_(-grad)
    return grad_logits.scatter_add_(-1, targets[:, None], grad)


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
        kernels: Any,
    ) -> tuple[Tensor, Tensor]:
        ctx.temperature, ctx.dtype, ctx.kernels = temperature, dtype, kernels
        ctx.chunk = tokens_of_chunk(len(weight), cuda=states.device.type == "cuda", by_kernels=kernels is not None)
        scores = kernels.score if kernels is not None else score
        parts = []
        with torch.autocast(states.device.type, enabled=False):
            head = weight.to(dtype)
            for part, part_targets in zip(states.split(ctx.chunk), targets.split(ctx.chunk), strict=True):
                parts.append(scores(_logits(part, head, bias), part_targets, temperature))
        logprobs, entropies, normalizers = (torch.cat(each) for each in zip(*parts, strict=True))
        ctx.save_for_backward(states, weight, bias, targets, normalizers)
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        states, weight, bias, targets, normalizers = ctx.saved_tensors
        grad_states = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        # in bfloat16 what a chunk adds would be rounded away: 1.5e-2 of error where 0.5e-2 comes from the factors (docs/log.md, 2026-11-27)
        exact = torch.promote_types(weight.dtype, torch.float32)
        grad_weight = torch.zeros_like(weight, dtype=exact) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        back = ctx.kernels.score_back if ctx.kernels is not None else score_back
        with torch.autocast(states.device.type, enabled=False):
            head = weight.to(ctx.dtype)
            for start in range(0, len(states), ctx.chunk):
                rows = slice(start, start + ctx.chunk)
                logits = _logits(states[rows], head, bias)
                grad_logits = back(logits, targets[rows], normalizers[rows], grad[rows], ctx.temperature)
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
        of_weight = None if grad_weight is None else grad_weight.to(weight.dtype)
        return grad_states, of_weight, grad_bias, None, None, None, None


def _logits(states: Tensor, head: Tensor, bias: Tensor | None) -> Tensor:
    logits = states.to(head.dtype) @ head.T
    return logits if bias is None else logits + bias.to(head.dtype)


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    """In float32 at least, divided by the temperature; in their own place where they are so already."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).div_(temperature)
