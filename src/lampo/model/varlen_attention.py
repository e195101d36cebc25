"""Attention of packed rows on CUDA, by torch's flash kernels for rows of variable length (arXiv 2307.08691): two calls a layer.

In one call every segment attends to itself, causally. In the other the completions of each prompt attend to all of it. `Packing` lays
segments, prompts and completions so that the kernels need to know their ends alone: nothing is gathered, padded or masked, and heads of
keys are not repeated. The gradient of queries is summed in no fixed order, so its last bits differ from call to call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from .packing import Packing

KERNEL: Any = torch.ops.aten._flash_attention_forward
KERNEL_BACKWARD: Any = torch.ops.aten._flash_attention_backward
"""As those on the CPU, they return the normaliser, and take that of both parts. They know bfloat16, and heads of 8, 16, ... 256 numbers."""


@dataclass(frozen=True, slots=True)
class Spans:
    """Queries side by side, and beside each the keys that it sees: those of span b lie from end b - 1 to end b.

    Attributes:
        queries: the tokens in which all of their queries lie.
        keys: the same of their keys.
        query_ends: (B + 1,) int32, from 0 on.
        key_ends: (B + 1,) int32, from 0 on.
        most: tokens of the longest queries and of the longest keys.
        causal: whether a query sees its own key and those before it alone.
    """

    queries: slice
    keys: slice
    query_ends: Tensor
    key_ends: Tensor
    most: tuple[int, int]
    causal: bool

    @classmethod
    def of(
        cls, queries: Sequence[tuple[int, int]], keys: Sequence[tuple[int, int]], causal: bool, device: torch.device
    ) -> Spans:
        """From where each begins and ends. Each begins where the one before it ends."""
        query_ends, longest_query = _ends(queries)
        key_ends, longest_key = _ends(keys)
        return cls(
            slice(queries[0][0], queries[-1][1]),
            slice(keys[0][0], keys[-1][1]),
            query_ends.to(device),
            key_ends.to(device),
            # told of one query each, the kernel takes this for a step of decoding and no longer looks at the ends
            (max(2, longest_query), longest_key),
            causal,
        )

    @property
    def told(self) -> tuple[Any, ...]:
        """What both kernels are told: ends, longest, dropout, causal."""
        return self.query_ends, self.key_ends, *self.most, 0.0, self.causal


def _ends(spans: Sequence[tuple[int, int]]) -> tuple[Tensor, int]:
    first = spans[0][0]
    ends = torch.tensor([0, *(end - first for _, end in spans)], dtype=torch.int32)
    return ends, max(end - begin for begin, end in spans)


class VarlenAttention(torch.autograd.Function):
    """(M, H, D) from queries (M, H, D), keys and values (M, K, D), where H is a multiple of K."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float
    ) -> Tensor:
        """See `attend`."""
        out, *kept = attend(query, key, value, packing.spans, scale)
        ctx.save_for_backward(query, key, value, out, *kept)
        ctx.packing, ctx.scale = packing, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See `attend_back`."""
        return *attend_back(grad, ctx.saved_tensors, ctx.packing.spans, ctx.scale), None, None


def attend(query: Tensor, key: Tensor, value: Tensor, spans: list[Spans], scale: float) -> tuple[Tensor, ...]:
    """Own attention, and that to prompts put to it; and what the way back needs of it beside."""
    own, *cross = spans
    out, norm_HM, *dropout, _ = KERNEL(query, key, value, *own.told, False, scale=scale)
    for each in cross:
        tensors = query[each.queries], key[each.keys], value[each.keys]
        part, part_norm, *_ = KERNEL(*tensors, *each.told, False, scale=scale)
        _join(out[each.queries], norm_HM[:, each.queries], part, part_norm)
    return out, norm_HM, *dropout


def attend_back(grad: Tensor, kept: Sequence[Tensor], spans: list[Spans], scale: float) -> tuple[Tensor, ...]:
    """Gradients of queries, keys and values.

    With the output and normaliser of both parts together, the gradient of each part alone is what it adds.

    Args:
        grad: (M, H, D) that of the output.
        kept: queries, keys, values, and what `attend` returned.
        spans: of the packing.
        scale: of scores.
    """
    query, key, value, out, norm_HM, *dropout = kept
    own, *cross = spans
    grad = grad.contiguous()
    grads = KERNEL_BACKWARD(grad, query, key, value, out, norm_HM, *own.told, *dropout, scale=scale)
    for each in cross:
        tensors = grad[each.queries], query[each.queries], key[each.keys], value[each.keys], out[each.queries]
        norm = norm_HM[:, each.queries].contiguous()
        parts = KERNEL_BACKWARD(*tensors, norm, *each.told, *dropout, scale=scale)
        for whole, place, part in zip(grads, (each.queries, each.keys, each.keys), parts, strict=True):
            whole[place].add_(part)
    return grads


def _join(out: Tensor, norm_HM: Tensor, part: Tensor, part_norm_HM: Tensor) -> None:
    """Puts the softmax of another part to the first, in its place."""
    both = torch.logaddexp(norm_HM, part_norm_HM)
    share, part_share = ((each - both).exp().T[..., None] for each in (norm_HM, part_norm_HM))
    out.mul_(share).addcmul_(part, part_share)
    norm_HM.copy_(both)
