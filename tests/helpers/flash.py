"""torch's two flash kernels for rows of variable length, in plain arithmetic on the CPU.

They refuse what CUDA's refuse, and leave NaN where those leave memory as it was.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

NOTHING = torch.empty(0)


def forward(
    query: Tensor, key: Tensor, value: Tensor, query_ends: Tensor, key_ends: Tensor, max_q: int, max_k: int,
    dropout: float, causal: bool, return_mask: bool, *, scale: float,
    window_size_left: int | None = None, window_size_right: int | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The output, (M, H, D), and the logarithm of the softmax's normaliser, (H, M)."""
    check((query, key, value), (query_ends, key_ends), (max_q, max_k), dropout)
    assert not return_mask
    out = torch.full_like(query, torch.nan)
    exact = torch.promote_types(query.dtype, torch.float32)
    norm_HM = query.new_full((query.shape[1], len(query)), torch.nan, dtype=exact)
    for at, scores, _, values in spans(query, key, value, query_ends, key_ends, causal, scale, window_size_left):
        norm_HM[:, at] = scores.logsumexp(-1).to(exact)
        out[at] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), values).to(out.dtype)
    random = torch.zeros(2, dtype=torch.uint64), torch.zeros((), dtype=torch.uint64)
    return out, norm_HM, *random, NOTHING


def backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, norm_HM: Tensor, query_ends: Tensor,
    key_ends: Tensor, max_q: int, max_k: int, dropout: float, causal: bool, rng_state: Tensor, unused: Tensor, *,
    scale: float, window_size_left: int | None = None, window_size_right: int | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The gradients of queries, keys and values. The normaliser may be that of more keys than are given."""
    check((query, key, value), (query_ends, key_ends), (max_q, max_k), dropout)
    assert rng_state.dtype == unused.dtype == torch.uint64
    assert norm_HM.is_contiguous()
    assert norm_HM.shape == (query.shape[1], len(query))
    assert grad.shape == out.shape == query.shape
    assert grad.dtype == out.dtype == query.dtype
    of_query, of_key, of_value = (torch.full_like(each, torch.nan) for each in (query, key, value))
    grad, out, K = grad.double(), out.double(), key.shape[1]
    lies = iter(key_ends.tolist())
    begin = next(lies)
    for at, scores, keys, values in spans(query, key, value, query_ends, key_ends, causal, scale, window_size_left):
        end = next(lies)
        shares = (scores - norm_HM[:, at, None].double()).exp()
        of_shares = torch.einsum("qhd,khd->hqk", grad[at], values) - (grad[at] * out[at]).sum(-1).T[..., None]
        of_scores = shares * of_shares * scale
        of_query[at] = torch.einsum("hqk,khd->qhd", of_scores, keys).to(of_query.dtype)
        of_keys = torch.einsum("hqk,qhd->khd", of_scores, query[at].double())
        of_values = torch.einsum("hqk,qhd->khd", shares, grad[at])
        for whole, part in ((of_key, of_keys), (of_value, of_values)):
            whole[begin:end] = part.unflatten(1, (K, -1)).sum(2).to(whole.dtype)
        begin = end
    return of_query, of_key, of_value


def check(tensors: tuple[Tensor, ...], ends: tuple[Tensor, Tensor], most: tuple[int, int], dropout: float) -> None:
    """What flash_api.cpp checks, and that no row is longer than is told."""
    query, key, value = tensors
    heads, width = query.shape[1:]
    if width % 8 or width > 256:
        raise RuntimeError("head_size must be a multiple of 8, and at most 256")
    assert key.shape == value.shape == (len(key), key.shape[1], width)
    assert heads % key.shape[1] == 0
    assert all(each.stride(-1) == 1 for each in tensors)
    assert dropout == 0.0
    assert len(ends[0]) == len(ends[1]) > 1
    for each, tensor, longest in zip(ends, (query, key), most, strict=True):
        assert each.dtype == torch.int32
        assert each.is_contiguous()
        assert 0 <= each.diff().min() <= each.diff().max() <= longest
        assert 0 <= each[0] <= each[-1] <= len(tensor)
    if most[0] == 1 and heads > key.shape[1]:
        raise RuntimeError("one query of each row: taken for a step of decoding")


def spans(
    query: Tensor, key: Tensor, value: Tensor, query_ends: Tensor, key_ends: Tensor, causal: bool, scale: float,
    left: int | None,
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:  # fmt: skip
    """Of each row: its queries' places, its scores (H, q, k), keys and values of each head of queries (k, H, D)."""
    heads = query.shape[1] // key.shape[1]
    for (first, last), (begin, end) in zip(pairwise(query_ends.tolist()), pairwise(key_ends.tolist()), strict=True):
        keys, values = (each[begin:end].double().repeat_interleave(heads, 1) for each in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query[first:last].double(), keys) * scale
        # the last query stands at the last key
        distance = torch.arange(last - first)[:, None] + (end - begin) - (last - first) - torch.arange(end - begin)
        hidden = (distance < 0) & causal
        if left is not None:
            hidden |= distance > left
        yield slice(first, last), scores.masked_fill(hidden, -torch.inf), keys, values
