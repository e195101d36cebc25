"""The kernels of `lampo.model.decode_kernels` in torch, for a machine without Triton. What they have in common is tested where it is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, silu

from lampo.rollout import native


def add_norm(states: Tensor, added: Tensor | None, weight: Tensor, epsilon: float) -> Tensor:
    if added is not None:
        states.copy_(states.float() + added.float())
    return rms_norm(states.float(), weight.shape, weight.float(), epsilon).bfloat16()


def gate(both: Tensor) -> Tensor:
    half, other = both.float().chunk(2, -1)
    return (silu(half) * other).to(both.dtype)


def turn(
    qkv: Tensor,
    keys: Tensor,
    values: Tensor,
    begins: Tensor,
    lengths: Tensor,
    turns: tuple[Tensor, Tensor],
    norm: tuple[Tensor, float] | None,
) -> Tensor:
    shared = keys.shape[1]
    heads = qkv.shape[1] - 2 * shared
    qk, value = qkv[:, : heads + shared].float(), qkv[:, heads + shared :]
    if norm is not None:
        weights = norm[0].float().repeat_interleave(torch.tensor([heads, shared]), 0)
        qk = rms_norm(qk, qk.shape[-1:], eps=norm[1]) * weights
    cos, sin = (each[lengths.long()][:, None] for each in turns)
    turned, rest = qk.split([cos.shape[-1], qk.shape[-1] - cos.shape[-1]], -1)
    qk = torch.cat([turned * cos + turned.roll(cos.shape[-1] // 2, -1) * sin, rest], -1).to(qkv.dtype)
    target = (begins + lengths).long()
    keys[target], values[target] = qk[:, heads:], value
    return qk[:, :heads]


def attend(query: Tensor, keys: Tensor, values: Tensor, begins: Tensor, lengths: Tensor, scale: float) -> Tensor:
    out = torch.empty_like(query)
    for row, (begin, length) in enumerate(zip(begins.tolist(), lengths.tolist(), strict=True)):
        own = slice(begin, begin + length + 1)
        held = (each[own].float().repeat_interleave(query.shape[1] // keys.shape[1], 1) for each in (keys, values))
        key, value = held
        shares = (torch.einsum("hd,lhd->hl", query[row].float(), key) * scale).softmax(-1)
        out[row] = torch.einsum("hl,lhd->hd", shares, value)
    return out


def draw(logits_NV: Tensor, uniforms_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logprobs_NV = torch.log_softmax(logits_NV / temperature, -1)
    tokens = native.draw(logprobs_NV, uniforms_N)
    return tokens, logprobs_NV.gather(1, tokens[:, None])[:, 0]
