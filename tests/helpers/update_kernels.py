"""The kernels of `lampo.model.update_kernels` in torch, for a machine without Triton. Each way back is autograd's."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, silu


@torch.enable_grad()
def norm_back(grad: Tensor, states: Tensor, weight: Tensor, epsilon: float, beside: Tensor) -> tuple[Tensor, Tensor]:
    own, factors = (each.detach().float().requires_grad_() for each in (states, weight))
    out = rms_norm(own, factors.shape, factors, epsilon)
    of_states, of_weight = torch.autograd.grad(out, (own, factors), grad.float())
    return (of_states + beside.float()).to(states.dtype), of_weight


def turn_rows(
    qkv: Tensor, shared: int, turns: tuple[Tensor, Tensor], norms: tuple[Tensor, ...], epsilon: float
) -> Tensor:
    qk = qkv[:, :-shared].float()
    if norms:
        parts = qk.split([qk.shape[1] - shared, shared], 1)
        normed = [rms_norm(part, each.shape, each.float(), epsilon) for part, each in zip(parts, norms, strict=True)]
        qk = torch.cat(normed, 1)
    cos, sin = (each[:, None].float() for each in turns)
    turned, rest = qk.split([cos.shape[-1], qk.shape[-1] - cos.shape[-1]], -1)
    first, second = turned.chunk(2, -1)
    return torch.cat([turned * cos + torch.cat([-second, first], -1) * sin, rest], -1).to(qkv.dtype)


@torch.enable_grad()
def turn_back(
    grads: tuple[Tensor, Tensor, Tensor],
    qkv: Tensor,
    shared: int,
    turns: tuple[Tensor, Tensor],
    norms: tuple[Tensor, ...],
    epsilon: float,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    own = qkv.detach().float().requires_grad_()
    weights = tuple(each.detach().float().requires_grad_() for each in norms)
    heads = turn_rows(own, shared, turns, weights, epsilon)
    of_heads = torch.cat(grads[:2], 1).float()
    of_qkv, *of_norms = torch.autograd.grad(heads, (own, *weights), of_heads)
    return torch.cat([of_qkv[:, :-shared], grads[2].float()], 1).to(qkv.dtype), tuple(of_norms)


@torch.enable_grad()
def gate_back(grad: Tensor, both: Tensor) -> tuple[Tensor, Tensor]:
    own = both.detach().float().requires_grad_()
    half, other = own.chunk(2, -1)
    product = silu(half) * other
    (of_both,) = torch.autograd.grad(product, own, grad.float())
    return of_both.to(both.dtype), product.detach().to(both.dtype)


def score(logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    scaled = logits.float() / temperature
    logprobs = scaled.log_softmax(-1)
    entropies = -(logprobs.exp() * logprobs).sum(-1)
    return logprobs.gather(-1, targets[:, None])[:, 0], entropies, scaled.logsumexp(-1)


@torch.enable_grad()
def score_back(logits: Tensor, targets: Tensor, normalizers: Tensor, grad: Tensor, temperature: float) -> Tensor:
    own = logits.detach().float().requires_grad_()
    logprobs = (own / temperature).gather(-1, targets[:, None])[:, 0] - (own / temperature).logsumexp(-1)
    (of_logits,) = torch.autograd.grad(logprobs, own, grad.float())
    return logits.copy_(of_logits)
