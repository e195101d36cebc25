"""A decode step's attention whose keys several programs read, for few long rows: a lever of `levers.py`, not in the program yet.

In `lampo.model.decode_kernels.attend` one program reads all keys of a row's head. Eight rows keep 64 of an H200's 132 multiprocessors
busy, and one row 8. Here each reads a part of them, and a second kernel puts the parts' softmaxes together by their normalisers.
"""

from __future__ import annotations

import torch
import triton  # pyright: ignore[reportMissingModuleSource]
import triton.language as tl  # pyright: ignore[reportMissingModuleSource]
from torch import Tensor


@triton.jit
def _parts(
    query,
    keys,
    values,
    sums_out,
    most_out,
    total_out,
    begins,
    lengths,
    scale,
    shared: tl.constexpr,
    group: tl.constexpr,
    width: tl.constexpr,
    GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLITS: tl.constexpr,
):
    row, head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    members, places, columns = tl.arange(0, GROUP), tl.arange(0, WIDTH), tl.arange(0, BLOCK)
    inside = (members[:, None] < group) & (places[None, :] < width)
    first = (row * shared + head) * group + members
    asked = tl.load(query + first[:, None] * width + places[None, :], mask=inside, other=0.0)
    begin, length = tl.load(begins + row).to(tl.int64), tl.load(lengths + row) + 1
    each = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK) * BLOCK
    most = tl.full((GROUP,), float("-inf"), tl.float32)
    total = tl.zeros((GROUP,), tl.float32)
    sums = tl.zeros((GROUP, WIDTH), tl.float32)
    for start in range(split * each, tl.minimum(length, (split + 1) * each), BLOCK):
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
    part = first * SPLITS + split
    tl.store(most_out + part, most, mask=members < group)
    tl.store(total_out + part, total, mask=members < group)
    tl.store(sums_out + part[:, None] * width + places[None, :], sums, mask=inside)


@triton.jit
def _join(sums_in, most_in, total_in, out, width: tl.constexpr, WIDTH: tl.constexpr, SPLITS: tl.constexpr):
    head = tl.program_id(0).to(tl.int64)
    splits, places = tl.arange(0, SPLITS), tl.arange(0, WIDTH)
    most = tl.load(most_in + head * SPLITS + splits)
    share = tl.exp(most - tl.max(most))  # 0 of a part without keys
    total = tl.sum(share * tl.load(total_in + head * SPLITS + splits))
    inside = places < width
    at = (head * SPLITS + splits[:, None]) * width + places[None, :]
    sums = tl.sum(share[:, None] * tl.load(sums_in + at, mask=inside[None, :], other=0.0), 0)
    tl.store(out + head * width + places, sums / total, mask=inside)


def attend(
    query: Tensor, keys: Tensor, values: Tensor, begins: Tensor, lengths: Tensor, scale: float, splits: int
) -> Tensor:
    """As `lampo.model.decode_kernels.attend`, the keys of each row read by so many programs, a power of 2."""
    N, heads, width = query.shape
    shared, wide = keys.shape[1], triton.next_power_of_2(width)
    group = heads // shared
    sums = query.new_empty(N, heads, splits, width, dtype=torch.float32)
    most, total = (query.new_empty(N, heads, splits, dtype=torch.float32) for _ in range(2))
    fewest = max(16, triton.next_power_of_2(group))
    _parts[(N, shared, splits)](
        query,
        keys,
        values,
        sums,
        most,
        total,
        begins,
        lengths,
        scale,
        shared,
        group,
        width,
        fewest,
        wide,
        64,
        splits,
        num_warps=4,
        num_stages=2,
    )
    out = torch.empty_like(query)
    _join[(N * heads,)](sums, most, total, out, width, wide, splits, num_warps=4)
    return out
