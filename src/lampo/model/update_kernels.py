"""Kernels of an update on CUDA: the way back through what stands between two products of a layer, and the head's log-probabilities.

They are written in Triton, as those of `decode_kernels`, two of which an update takes too. All arithmetic is in float32, whatever is read
and written. Where rows are summed up, so many programs take turns, and torch adds up what each of them has: the same sum in each call.
"""

from __future__ import annotations

import torch
import triton  # pyright: ignore[reportMissingModuleSource]
import triton.language as tl  # pyright: ignore[reportMissingModuleSource]
from torch import Tensor

PROGRAMS = 512
"""That share rows whose sum is wanted: four for each multiprocessor of an H100."""
PLACES = 1024
"""Numbers of a row that one program takes where none needs another."""


@triton.jit(do_not_specialize=["rows", "programs"])
def _norm_back(
    grad,
    states,
    weight,
    beside,
    of_states,
    of_weight,
    rows,
    programs,
    width: tl.constexpr,
    epsilon: tl.constexpr,
    BLOCK: tl.constexpr,
):
    zero, places = tl.zeros((), tl.int64), tl.arange(0, BLOCK)
    inside = places < width
    factors = tl.load(weight + places, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for row in range(tl.program_id(0), rows, programs):
        at = (zero + row) * width + places
        own = tl.load(states + at, mask=inside, other=0.0).to(tl.float32)
        reaches = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
        scale = tl.rsqrt(tl.sum(own * own) / width + epsilon)
        own *= scale
        total += reaches * own
        reaches *= factors
        reaches = scale * (reaches - own * (tl.sum(reaches * own) / width))
        reaches += tl.load(beside + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(of_states + at, reaches, mask=inside)
    tl.store(of_weight + tl.program_id(0) * width + places, total, mask=inside)


def norm_back(grad: Tensor, states: Tensor, weight: Tensor, epsilon: float, beside: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the states (M, D) of a norm and of its weight (D,), given that of its output and what reaches the states beside it.

    y = s x w,  s = (mean x^2 + epsilon)^(-1/2);   of x: s (g w - s x mean(g w s x));   of w: the sum of g s x over rows
    """
    M, width = states.shape
    of_states, programs = torch.empty_like(states), min(M, PROGRAMS)
    of_weight = states.new_empty(programs, width, dtype=torch.float32)
    block = triton.next_power_of_2(width)
    _norm_back[(programs,)](
        grad,
        states,
        weight,
        beside.contiguous(),
        of_states,
        of_weight,
        M,
        programs,
        width,
        epsilon,
        block,
        num_warps=8 if block > 1024 else 4,
    )
    return of_states, of_weight.sum(0)


@triton.jit
def _turn_rows(
    qkv,
    cosines,
    sines,
    query_weight,
    key_weight,
    out,
    heads: tl.constexpr,
    shared: tl.constexpr,
    width: tl.constexpr,
    turned: tl.constexpr,
    epsilon: tl.constexpr,
    NORMS: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head, places = tl.arange(0, HEADS)[:, None], tl.arange(0, BLOCK)[None, :]
    half: tl.constexpr = turned // 2
    inside, turns = (head < heads + shared) & (places < width), places < turned
    # each number is turned together with the one half of the turned width further
    partners = tl.where(places < half, places + half, tl.where(turns, places - half, places))
    source = qkv + (row * (heads + 2 * shared) + head) * width
    own = tl.load(source + places, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(source + partners, mask=inside, other=0.0).to(tl.float32)
    if NORMS:
        scale = tl.rsqrt(tl.sum(own * own, 1) / width + epsilon)[:, None]
        known = places < width
        of_query = tl.load(query_weight + places, mask=known, other=0.0).to(tl.float32)
        of_key = tl.load(key_weight + places, mask=known, other=0.0).to(tl.float32)
        own *= scale * tl.where(head < heads, of_query, of_key)
        of_query = tl.load(query_weight + partners, mask=known, other=0.0).to(tl.float32)
        of_key = tl.load(key_weight + partners, mask=known, other=0.0).to(tl.float32)
        other *= scale * tl.where(head < heads, of_query, of_key)
    cosine = tl.load(cosines + row * turned + places, mask=turns, other=1.0).to(tl.float32)
    sine = tl.load(sines + row * turned + places, mask=turns, other=0.0).to(tl.float32)
    own = own * cosine + tl.where(places < half, -other, other) * sine
    tl.store(out + (row * (heads + shared) + head) * width + places, own, mask=inside)


def turn_rows(
    qkv: Tensor, shared: int, turns: tuple[Tensor, Tensor], norms: tuple[Tensor, ...], epsilon: float
) -> Tensor:
    """Queries and keys, (M, H + K, D), normed and turned.

    Args:
        qkv: (M, H + 2 K, D) queries, keys and values side by side.
        shared: K, the heads of keys.
        turns: cosines and sines of each token's position, (M, R). The first R of D numbers are turned.
        norms: the weights (D,) of queries and keys, where a model has them, or none.
        epsilon: of those norms.
    """
    M, all_heads, width = qkv.shape
    out = qkv.new_empty(M, all_heads - shared, width)
    _turn_rows[(M,)](
        qkv,
        *turns,
        *(norms or (qkv, qkv)),
        out,
        all_heads - 2 * shared,
        shared,
        width,
        turns[0].shape[1],
        epsilon,
        bool(norms),
        triton.next_power_of_2(all_heads - shared),
        triton.next_power_of_2(width),
        num_warps=8,
    )
    return out


@triton.jit(do_not_specialize=["rows", "programs"])
def _turn_back(
    of_query,
    of_key,
    of_value,
    qkv,
    cosines,
    sines,
    query_weight,
    key_weight,
    of_qkv,
    of_weights,
    rows,
    programs,
    heads: tl.constexpr,
    shared: tl.constexpr,
    width: tl.constexpr,
    turned: tl.constexpr,
    epsilon: tl.constexpr,
    NORMS: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    zero, head, places = tl.zeros((), tl.int64), tl.arange(0, HEADS)[:, None], tl.arange(0, BLOCK)[None, :]
    half: tl.constexpr = turned // 2
    known, turns = places < width, places < turned
    asks, answers = (head < heads) & known, (head >= heads) & (head < heads + shared) & known
    holds = (head >= heads + shared) & (head < heads + 2 * shared) & known
    partners = tl.where(places < half, places + half, tl.where(turns, places - half, places))
    weight = tl.full((HEADS, BLOCK), 1.0, tl.float32)
    if NORMS:
        of_queries = tl.load(query_weight + places, mask=known, other=0.0).to(tl.float32)
        of_keys = tl.load(key_weight + places, mask=known, other=0.0).to(tl.float32)
        weight = tl.where(head < heads, of_queries, of_keys)
    total = tl.zeros((HEADS, BLOCK), tl.float32)
    for row in range(tl.program_id(0), rows, programs):
        wide = zero + row
        query, key = of_query + (wide * heads + head) * width, of_key + (wide * shared + head - heads) * width
        value = of_value + (wide * shared + head - heads - shared) * width
        own = tl.load(query + places, mask=asks, other=0.0).to(tl.float32)
        own += tl.load(key + places, mask=answers, other=0.0).to(tl.float32)
        other = tl.load(query + partners, mask=asks, other=0.0).to(tl.float32)
        other += tl.load(key + partners, mask=answers, other=0.0).to(tl.float32)
        cosine = tl.load(cosines + wide * turned + places, mask=turns, other=1.0).to(tl.float32)
        sine = tl.load(sines + wide * turned + partners, mask=turns, other=0.0).to(tl.float32)
        own = own * cosine + tl.where(places < half, other, -other) * sine
        target = (wide * (heads + 2 * shared) + head) * width + places
        if NORMS:
            raw = tl.load(qkv + target, mask=asks | answers, other=0.0).to(tl.float32)
            scale = tl.rsqrt(tl.sum(raw * raw, 1) / width + epsilon)[:, None]
            raw *= scale
            total += own * raw
            own *= weight
            own = scale * (own - raw * (tl.sum(own * raw, 1) / width)[:, None])
        own += tl.load(value + places, mask=holds, other=0.0).to(tl.float32)
        tl.store(of_qkv + target, own, mask=asks | answers | holds)
    if NORMS:
        at = (tl.program_id(0) * (heads + shared) + head) * width + places
        tl.store(of_weights + at, total, mask=asks | answers)


def turn_back(
    grads: tuple[Tensor, Tensor, Tensor],
    qkv: Tensor,
    shared: int,
    turns: tuple[Tensor, Tensor],
    norms: tuple[Tensor, ...],
    epsilon: float,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Gradients of queries, keys and values before `turn_rows`, (M, H + 2 K, D), and of the norms' weights, given those behind it.

    Args:
        grads: of queries (M, H, D), keys and values (M, K, D).
        qkv: see `turn_rows`, and the others too.
        shared: see there.
        turns: see there.
        norms: see there.
        epsilon: see there.
    """
    M, all_heads, width = qkv.shape
    heads, programs = all_heads - 2 * shared, min(M, PROGRAMS) if norms else M
    of_qkv = torch.empty_like(qkv)
    of_weights = qkv.new_empty(programs if norms else 0, heads + shared, width, dtype=torch.float32)
    _turn_back[(programs,)](
        *(each.contiguous() for each in grads),
        qkv,
        *turns,
        *(norms or (qkv, qkv)),
        of_qkv,
        of_weights,
        M,
        programs,
        heads,
        shared,
        width,
        turns[0].shape[1],
        epsilon,
        bool(norms),
        triton.next_power_of_2(all_heads),
        triton.next_power_of_2(width),
        num_warps=16,  # with eight a multiprocessor holds fewer rows, for want of registers
    )
    if not norms:
        return of_qkv, ()
    of_heads = of_weights.sum(0)
    return of_qkv, (of_heads[:heads].sum(0), of_heads[heads:].sum(0))


@triton.jit
def _gate_back(grad, both, of_both, product, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    places = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = places < width
    gate_at, up_at, at = 2 * row * width + places, (2 * row + 1) * width + places, row * width + places
    gate = tl.load(both + gate_at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both + up_at, mask=inside, other=0.0).to(tl.float32)
    reaches = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
    open = tl.sigmoid(gate)
    active = gate * open
    tl.store(product + at, active * up, mask=inside)
    tl.store(of_both + gate_at, reaches * up * (open + active * (1 - open)), mask=inside)
    tl.store(of_both + up_at, reaches * active, mask=inside)


def gate_back(grad: Tensor, both: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of gate and up side by side (M, 2 F), given that of silu(gate) * up; and that product once more, (M, F)."""
    of_both, product = torch.empty_like(both), torch.empty_like(grad)
    M, width = grad.shape
    _gate_back[(M, triton.cdiv(width, PLACES))](grad, both, of_both, product, width, PLACES)
    return of_both, product


@triton.jit
def _score(logits, targets, logprobs, entropies, normalizers, width: tl.constexpr, factor, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    places, own = tl.arange(0, BLOCK), logits + row * width
    most = tl.full((BLOCK,), float("-inf"), tl.float32)
    for start in range(0, width, BLOCK):
        inside = start + places < width
        most = tl.maximum(most, tl.load(own + start + places, mask=inside, other=float("-inf")).to(tl.float32))
    highest = tl.max(most) * factor
    total, weighed = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for start in range(0, width, BLOCK):
        inside = start + places < width
        above = tl.load(own + start + places, mask=inside, other=0.0).to(tl.float32) * factor - highest
        share = tl.where(inside, tl.exp(above), 0.0)
        total += share
        weighed += share * above
    sum_all = tl.sum(total)
    above_all = tl.log(sum_all)
    target = tl.load(own + tl.load(targets + row)).to(tl.float32) * factor - highest
    tl.store(logprobs + row, target - above_all)
    tl.store(entropies + row, above_all - tl.sum(weighed) / sum_all)
    tl.store(normalizers + row, highest + above_all)


def score(logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """The targets' log-probabilities under softmax(logits / temperature), its entropies and normalisers, (M,) each, of logits (M, V)."""
    M, width = logits.shape
    out = tuple(logits.new_empty(M, dtype=torch.float32) for _ in range(3))
    block = min(4 * PLACES, triton.next_power_of_2(width))
    _score[(M,)](logits, targets, *out, width, 1 / temperature, block, num_warps=8)
    return out  # pyright: ignore[reportReturnType]


@triton.jit
def _score_back(logits, targets, normalizers, grad, width, factor, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    places = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, own = places < width, logits + row * width + places
    reaches = tl.load(grad + row).to(tl.float32) * factor
    logit = tl.load(own, mask=inside, other=0.0).to(tl.float32) * factor
    share = tl.exp(logit - tl.load(normalizers + row))
    hit = tl.where(places == tl.load(targets + row), 1.0, 0.0)
    tl.store(own, reaches * (hit - share), mask=inside)


def score_back(logits: Tensor, targets: Tensor, normalizers: Tensor, grad: Tensor, temperature: float) -> Tensor:
    """The gradient of the logits in their own place, given that of the targets' log-probabilities, (M,)."""
    M, width = logits.shape
    _score_back[(M, triton.cdiv(width, PLACES))](
        logits, targets, normalizers, grad.contiguous(), width, 1 / temperature, PLACES
    )
    return logits
