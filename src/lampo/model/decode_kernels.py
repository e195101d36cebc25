"""Kernels of a decode step on CUDA: what torch does in twenty launches a layer is four here, see `FlashStep`.

They are written in Triton, which comes with torch's builds for CUDA. All arithmetic is in float32, whatever is read and written.
"""

from __future__ import annotations

import torch
import triton  # pyright: ignore[reportMissingModuleSource]
import triton.language as tl  # pyright: ignore[reportMissingModuleSource]
from torch import Tensor

KEYS_AT_ONCE = 128
"""Keys of a row that are read together."""
READ_AHEAD = 2
"""Such reads that are under way at once."""


@triton.jit
def _add_norm(
    states,
    added,
    weight,
    out,
    width: tl.constexpr,
    epsilon: tl.constexpr,
    ADDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    places = tl.arange(0, BLOCK)
    inside = places < width
    own = tl.load(states + row * width + places, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        own += tl.load(added + row * width + places, mask=inside, other=0.0).to(tl.float32)
        own = own.to(states.dtype.element_ty).to(tl.float32)  # what the next layer reads
        tl.store(states + row * width + places, own, mask=inside)
    scale = tl.rsqrt(tl.sum(own * own) / width + epsilon)
    factors = tl.load(weight + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + places, own * scale * factors, mask=inside)


def add_norm(states: Tensor, added: Tensor | None, weight: Tensor, epsilon: float) -> Tensor:
    """Add to the states in place, and return their norm times its weight, both (N, D); the norm in bfloat16."""
    N, width = states.shape
    out = torch.empty_like(states, dtype=torch.bfloat16)
    block = triton.next_power_of_2(width)
    _add_norm[(N,)](
        states,
        states if added is None else added,
        weight,
        out,
        width,
        epsilon,
        added is not None,
        block,
        num_warps=8 if block > 1024 else 4,
    )
    return out


@triton.jit
def _gate(both, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    places = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = places < width
    gate = tl.load(both + 2 * row * width + places, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both + (2 * row + 1) * width + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + places, gate * tl.sigmoid(gate) * up, mask=inside)


def gate(both: Tensor) -> Tensor:
    """(N, F): silu of the first half of (N, 2 F), times the second."""
    N, width = len(both), both.shape[1] // 2
    out = both.new_empty(N, width)
    _gate[(N, triton.cdiv(width, 1024))](both, out, width, 1024)
    return out


@triton.jit
def _turn(
    qkv,
    query,
    keys,
    values,
    begins,
    lengths,
    cosines,
    sines,
    weight,
    heads: tl.constexpr,
    shared: tl.constexpr,
    width: tl.constexpr,
    turned: tl.constexpr,
    epsilon: tl.constexpr,
    NORMS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    places = tl.arange(0, BLOCK)
    inside = places < width
    source = qkv + (row * (heads + 2 * shared) + head) * width
    own = tl.load(source + places, mask=inside, other=0.0).to(tl.float32)
    position = tl.load(lengths + row).to(tl.int64)
    target = tl.load(begins + row).to(tl.int64) + position
    if head >= heads + shared:
        tl.store(values + (target * shared + head - heads - shared) * width + places, own, mask=inside)
    else:
        half: tl.constexpr = turned // 2
        # each number is turned together with the one half of the turned width further
        partners = tl.where(places < half, places + half, tl.where(places < turned, places - half, places))
        other = tl.load(source + partners, mask=inside, other=0.0).to(tl.float32)
        if NORMS:
            scale = tl.rsqrt(tl.sum(own * own) / width + epsilon)
            factors = weight + tl.where(head < heads, 0, 1) * width
            own *= scale * tl.load(factors + places, mask=inside, other=0.0).to(tl.float32)
            other *= scale * tl.load(factors + partners, mask=inside, other=0.0).to(tl.float32)
        turns = places < turned
        cosine = tl.load(cosines + position * turned + places, mask=turns, other=1.0)
        sine = tl.load(sines + position * turned + places, mask=turns, other=0.0)  # negative in the first half
        own = own * cosine + other * sine
        if head < heads:
            tl.store(query + (row * heads + head) * width + places, own, mask=inside)
        else:
            tl.store(keys + (target * shared + head - heads) * width + places, own, mask=inside)


def turn(
    qkv: Tensor,
    keys: Tensor,
    values: Tensor,
    begins: Tensor,
    lengths: Tensor,
    turns: tuple[Tensor, Tensor],
    norm: tuple[Tensor, float] | None,
) -> Tensor:
    """The queries of the rows' new tokens, normed and turned. Their keys and values go to where each row's next ones lie.

    Args:
        qkv: (N, H + 2 K, D) queries, keys and values side by side.
        keys: (P, K, D) those of all rows, and `values` likewise.
        values: see `keys`.
        begins: (N,) where the keys of each row begin.
        lengths: (N,) how many it has, which is the position of the new one.
        turns: cosines and sines of all positions, (L, R) in float32, sines negative in their first half. The first R of D numbers are
            turned.
        norm: weights (2, D) of queries and keys, and its epsilon, where a model has one.

    Returns:
        (N, H, D).
    """
    N, all_heads, width = qkv.shape
    shared = keys.shape[1]
    heads = all_heads - 2 * shared
    query = qkv.new_empty(N, heads, width)
    weight, epsilon = norm or (qkv, 0.0)
    _turn[(N, all_heads)](
        qkv,
        query,
        keys,
        values,
        begins,
        lengths,
        *turns,
        weight,
        heads,
        shared,
        width,
        turns[0].shape[1],
        epsilon,
        norm is not None,
        triton.next_power_of_2(width),
        num_warps=1,
    )
    return query


@triton.jit
def _attend(
    query,
    keys,
    values,
    out,
    begins,
    lengths,
    scale,
    shared: tl.constexpr,
    group: tl.constexpr,
    width: tl.constexpr,
    GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    members, places, columns = tl.arange(0, GROUP), tl.arange(0, WIDTH), tl.arange(0, BLOCK)
    inside = (members[:, None] < group) & (places[None, :] < width)
    mine = (row * shared + head) * group * width + members[:, None] * width + places[None, :]
    asked = tl.load(query + mine, mask=inside, other=0.0)
    begin = tl.load(begins + row).to(tl.int64)
    length = tl.load(lengths + row) + 1  # with the new one
    most = tl.full((GROUP,), float("-inf"), tl.float32)
    total = tl.zeros((GROUP,), tl.float32)
    sums = tl.zeros((GROUP, WIDTH), tl.float32)
    for start in range(0, length, BLOCK):
        there = start + columns < length
        at = ((begin + start + columns[:, None]) * shared + head) * width + places[None, :]
        read = there[:, None] & (places[None, :] < width)
        scores = tl.dot(asked, tl.trans(tl.load(keys + at, mask=read, other=0.0))) * scale
        scores = tl.where(there[None, :], scores, float("-inf"))
        new = tl.maximum(most, tl.max(scores, 1))
        shares, kept = tl.exp(scores - new[:, None]), tl.exp(most - new)
        total = total * kept + tl.sum(shares, 1)
        held = tl.load(values + at, mask=read, other=0.0)
        sums = sums * kept[:, None] + tl.dot(shares.to(held.dtype), held)
        most = new
    tl.store(out + mine, sums / total[:, None], mask=inside)


def attend(query: Tensor, keys: Tensor, values: Tensor, begins: Tensor, lengths: Tensor, scale: float) -> Tensor:
    """(N, H, D): attention of each row's query to its keys, `lengths` and the new one. One program reads the keys of a row's head."""
    N, heads, width = query.shape
    shared = keys.shape[1]
    group = heads // shared
    out = torch.empty_like(query)
    _attend[(N, shared)](
        query,
        keys,
        values,
        out,
        begins,
        lengths,
        scale,
        shared,
        group,
        width,
        max(16, triton.next_power_of_2(group)),
        triton.next_power_of_2(width),
        KEYS_AT_ONCE,
        num_warps=4,
        num_stages=READ_AHEAD,
    )
    return out


@triton.jit
def _draw(logits, uniforms, tokens, logprobs, width: tl.constexpr, scale, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    own = logits + row * width
    most = tl.full((BLOCK,), float("-inf"), tl.float32)
    for start in range(0, width, BLOCK):
        most = tl.maximum(most, tl.load(own + start + columns, mask=start + columns < width, other=float("-inf")))
    highest = tl.max(most) * scale
    total = tl.zeros((), tl.float64)
    for start in range(0, width, BLOCK):
        block = tl.load(own + start + columns, mask=start + columns < width, other=float("-inf"))
        total += tl.sum(tl.exp(block * scale - highest)).to(tl.float64)
    threshold = tl.load(uniforms + row) * total
    before = tl.zeros((), tl.float64)
    token = tl.zeros((), tl.int32) + (width - 1)
    for start in range(0, width, BLOCK):
        block = tl.load(own + start + columns, mask=start + columns < width, other=float("-inf"))
        shares = tl.exp(block * scale - highest)
        held = tl.sum(shares).to(tl.float64)
        if (before <= threshold) & (threshold < before + held):
            # the last share before which no more than the threshold lies; one of no probability has the same sum as the next
            sums = tl.cumsum(shares.to(tl.float64), 0)
            fits = (before + sums - shares.to(tl.float64) <= threshold) & (shares > 0)
            token = tl.max(tl.where(fits, start + columns, 0))
        before += held
    tl.store(tokens + row, token.to(tl.int64))
    drawn = tl.load(own + token).to(tl.float32) * scale - highest
    tl.store(logprobs + row, drawn - tl.log(total).to(tl.float32))


def draw(logits_NV: Tensor, uniforms_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(N,) tokens as `lampo.rollout.native.draw` draws them from softmax(logits / temperature), and (N,) their log-probabilities.

    Sums of blocks are added up in float64.
    """
    N, width = logits_NV.shape
    tokens, logprobs = uniforms_N.new_empty(N, dtype=torch.int64), logits_NV.new_empty(N)
    block = min(4096, triton.next_power_of_2(width))
    _draw[(N,)](logits_NV, uniforms_N, tokens, logprobs, width, 1 / temperature, block, num_warps=8)
    return tokens, logprobs
