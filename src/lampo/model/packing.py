"""Rows end to end: a forward pass without padding, in which each prompt is computed once for all of its completions.

Every layer but attention treats a token alone, so the tokens of a micro-batch can lie in one long row:

    rows whose prompt no other row has | prompts | completions, those of a prompt side by side

Attention has two parts. Every segment (a row, a prompt, a completion) attends to itself, causally. Completions also attend to all of
their prompt. Their softmax is put together from both normalisers, as in flash and ring attention (arXiv 2205.14135, 2310.01889), so that
no keys are copied and no mask is made. No cache is involved: it works under gradient checkpointing too. What is here computes it on the
CPU. `varlen_attention` does on CUDA.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..types import MicroBatch
from .varlen_attention import Spans, VarlenAttention

NAME = "lampo_packed"
SHORTEST_OF_BUCKET = 0.6
"""Segments are padded to one length, for attention alone, if each is at least this share of the longest, or ..."""
FEW_TOKENS = 8
"""... shorter by no more than this: one call for many segments costs less than many calls."""
KERNEL: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
KERNEL_BACKWARD: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
"""They return the normaliser that two parts of an attention are put together by, and take that of both."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Segments of like length, side by side for attention to themselves.

    Attributes:
        gather: (B * T,) tokens, each segment filled up with its last one.
        tokens: (M,) the tokens of the segments, once each.
        places: (M,) where they lie among the B * T.
        shape: B and T.
    """

    gather: Tensor
    tokens: Tensor
    places: Tensor
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Cross:
    """Tokens that attend to tokens of a prompt; `allowed` is None where each sees all."""

    queries: slice
    keys: slice
    allowed: Tensor | None = None


@dataclass(frozen=True)
class Packing:
    """How the tokens of a micro-batch lie in one row.

    Attributes:
        ids: (M,) tokens.
        positions: (M,) their positions in their own rows.
        before_NT: (N, T) which of the M predicts completion token t of a row; anything on padding.
        segments: where each segment begins and ends.
        families: of each prompt with several completions: where it begins and ends, and its completions' beginnings and ends.
        longest: tokens of the longest row.
    """

    ids: Tensor
    positions: Tensor
    before_NT: Tensor
    segments: list[tuple[int, int]]
    families: list[tuple[tuple[int, int], list[tuple[int, int]]]]
    longest: int
    _crosses: dict[int | None, list[Cross]] = field(default_factory=dict)

    @classmethod
    def of(cls, batch: MicroBatch) -> Packing:
        """The tokens of a micro-batch, but the last of each completion, after which nothing is predicted."""
        prompts_N, completions_N = batch.prompt_lengths.tolist(), batch.mask_NT.sum(1).tolist()
        rows_by_prompt: dict[int, list[int]] = {}
        for row, first in enumerate(batch.first_ids_N.tolist()):
            rows_by_prompt.setdefault(first, []).append(row)
        laid: list[tuple[int, int, int]] = []
        size = 0

        def lay(row: int, begin: int, end: int) -> tuple[int, int]:
            """Tokens `begin` to `end` of a row as the next segment."""
            nonlocal size
            if end > begin:
                laid.append((row, begin, end))
            size += end - begin
            return size - (end - begin), size

        ends = [prompt + completion - 1 for prompt, completion in zip(prompts_N, completions_N, strict=True)]
        last_of_prompt, start = [0] * len(ends), [0] * len(ends)
        alone = [rows[0] for rows in rows_by_prompt.values() if len(rows) == 1]
        for row in alone:
            begin, _ = lay(row, 0, ends[row])
            last_of_prompt[row], start[row] = begin + prompts_N[row] - 1, begin + prompts_N[row]
        shared = {rows[0]: rows for rows in rows_by_prompt.values() if len(rows) > 1}
        prompts = {first: lay(first, 0, prompts_N[first]) for first in shared}
        families = []
        for first, rows in shared.items():
            completions = [lay(row, prompts_N[row], ends[row]) for row in rows]
            families.append((prompts[first], completions))
            for row, (begin, _) in zip(rows, completions, strict=True):
                last_of_prompt[row], start[row] = prompts[first][1] - 1, begin
        device = batch.input_ids.device
        # made here and moved in one piece: a GPU takes as long to copy a segment as to copy all tokens
        row_S, begin_S, end_S = torch.tensor(laid).T
        lengths_S = end_S - begin_S
        stops_S = lengths_S.cumsum(0)
        row_M = row_S.repeat_interleave(lengths_S)
        position_M = torch.arange(size) - (stops_S - end_S).repeat_interleave(lengths_S)
        row_M, position_M = torch.stack([row_M, position_M]).to(device)
        steps_T = torch.arange(-1, batch.mask_NT.shape[1] - 1, device=device)
        start_N, last_N = torch.tensor([start, last_of_prompt]).to(device)
        before_NT = (start_N[:, None] + steps_T).clamp(max=size - 1)
        before_NT[:, 0] = last_N
        segments = list(pairwise([0, *stops_S.tolist()]))
        return cls(batch.input_ids[row_M, position_M], position_M, before_NT, segments, families, max(ends, default=0))

    @classmethod
    def example(cls, device: torch.device, first: int = 0) -> tuple[Packing, list[Tensor]]:
        """Two rows with one prompt, to try a model with, and which tokens each has. They are of three words from `first` on."""
        ids, positions = torch.tensor([[0, 1, 2, 2, 1, 0], [0, 1, 2, 3, 4, 3]], device=device)
        ids = ids + first
        family = ((0, 3), [(3, 5), (5, 6)])
        nowhere = ids.new_empty(0, 0)
        rows = [torch.tensor([0, 1, 2, 3, 4], device=device), torch.tensor([0, 1, 2, 5], device=device)]
        return cls(ids, positions, nowhere, [(0, 3), (3, 5), (5, 6)], [family], longest=5), rows

    @cached_property
    def buckets(self) -> list[Bucket]:
        """All segments, those of like length together."""
        buckets, lengths = [], list[int]()
        by_length = sorted(self.segments, key=lambda segment: segment[0] - segment[1])
        cuts = [0]
        for place, (begin, end) in enumerate(by_length):
            lengths.append(end - begin)
            longest = lengths[cuts[-1]]
            if lengths[-1] < min(SHORTEST_OF_BUCKET * longest, longest - FEW_TOKENS):
                cuts.append(place)
        for first, last in pairwise([*cuts, len(by_length)]):
            begins_B, ends_B = torch.tensor(by_length[first:last], device=self.ids.device).T
            T = lengths[first]
            gather_BT = begins_B[:, None] + torch.arange(T, device=self.ids.device)
            places = (gather_BT < ends_B[:, None]).flatten().nonzero().squeeze(1)
            gather = torch.minimum(gather_BT, ends_B[:, None] - 1).flatten()
            buckets.append(Bucket(gather, gather[places], places, (last - first, T)))
        return buckets

    @cached_property
    def spans(self) -> list[Spans]:
        """Every segment beside itself; and where there are families, the completions of each beside its prompt."""
        device = self.ids.device
        completions = [(rows[0][0], rows[-1][1]) for _, rows in self.families]
        spans = [Spans.of(self.segments, self.segments, True, device)]
        if any(begin < end for begin, end in completions):
            spans.append(Spans.of(completions, [prompt for prompt, _ in self.families], False, device))
        return spans

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """(M, H, D) from queries (M, H, D), keys and values (M, K, D), where H is a multiple of K.

        Raises:
            NotImplementedError: on CUDA, where a row passes the window.
        """
        window = None if window is None or window >= self.longest else window
        if query.device.type == "cuda":
            if window is not None:
                raise NotImplementedError("a sliding window that a packed row passes on CUDA")
            return VarlenAttention.apply(query, key, value, self, scale)  # pyright: ignore[reportReturnType]
        return _Attention.apply(query, key, value, self, scale, window)  # pyright: ignore[reportReturnType]

    def crosses(self, window: int | None) -> list[Cross]:
        """What completions see of their prompts, where a token sees no further back than the window."""
        if window not in self._crosses:
            self._crosses[window] = list(self._cross(window))
        return self._crosses[window]

    def _cross(self, window: int | None) -> Iterator[Cross]:
        for (begin, end), completions in self.families:
            if window is None:
                if completions[0][0] < completions[-1][1]:
                    yield Cross(slice(completions[0][0], completions[-1][1]), slice(begin, end))
                continue
            for first, last in completions:
                last = min(last, first + window - 1)  # later tokens see nothing of the prompt
                if first < last:
                    distances = torch.arange(last - first)[:, None] + torch.arange(end - begin, 0, -1)
                    yield Cross(slice(first, last), slice(begin, end), distances < window)


@contextmanager
def packed_attention(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model's attention is that of the `packing` that its forward pass is called with."""
    configs = {id(config): config for config in (model.config, model.config.get_text_config())}.values()
    before = [config._attn_implementation for config in configs]
    for config in configs:
        config._attn_implementation = NAME
    try:
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation


def checkpoint_contexts(model: PreTrainedModel) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Those of a layer's forward pass and of its second one in the backward pass, where attention is to be the same."""
    packed = model.config._attn_implementation == NAME
    return nullcontext(), packed_attention(model) if packed else nullcontext()


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: (1, H, M, D) queries, keys and values of fewer heads. Returns (1, M, H, D)."""
    if softcap is not None or s_aux is not None:
        raise NotImplementedError("attention with a soft cap or with sinks")
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    query, key, value = (each[0].transpose(0, 1) for each in (query, key, value))
    return packing.attend(query, key, value, scale, sliding_window)[None], None


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)


class _Attention(torch.autograd.Function):
    """(M, H, D) from queries (M, H, D), keys and values (M, K, D), where H is a multiple of K."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float, window: int | None
    ) -> Tensor:
        M, H, _ = query.shape
        out = query.new_empty(query.shape)
        normalizers = query.new_empty(M, H, dtype=torch.promote_types(query.dtype, torch.float32))
        for bucket in packing.buckets:
            tensors = tuple(_side_by_side(each, bucket) for each in (query, key, value))
            mask = _band(bucket.shape[1], window, query)
            part, norm = _flash(tensors, mask is None, mask, scale)
            out.index_copy_(0, bucket.tokens, part.transpose(1, 2).flatten(0, 1).index_select(0, bucket.places))
            norm = norm.transpose(1, 2).flatten(0, 1)
            normalizers.index_copy_(0, bucket.tokens, norm.index_select(0, bucket.places))
        for cross in packing.crosses(window):
            tensors = _heads(query[cross.queries]), _heads(key[cross.keys]), _heads(value[cross.keys])
            part, norm = _flash(tensors, False, _additive(cross.allowed, query), scale)
            own, norm = normalizers[cross.queries], norm[0].T
            both = torch.logaddexp(own, norm)
            shares = ((each - both).exp()[..., None] for each in (own, norm))
            out[cross.queries] = out[cross.queries] * next(shares) + part[0].transpose(0, 1) * next(shares)
            normalizers[cross.queries] = both
        ctx.save_for_backward(query, key, value, out, normalizers)
        ctx.packing, ctx.scale, ctx.window = packing, scale, window
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """With the output and normaliser of both parts together, the gradient of each part alone is what it adds."""
        query, key, value, out, normalizers = ctx.saved_tensors
        grads = [each.new_empty(each.shape) for each in (query, key, value)]
        for bucket in ctx.packing.buckets:
            B, T = bucket.shape
            padded = grad.new_zeros(B * T, *grad.shape[1:])  # what fills a segment up has no gradient
            padded.index_copy_(0, bucket.places, grad.index_select(0, bucket.tokens))
            tensors = tuple(_side_by_side(each, bucket) for each in (query, key, value))
            given = _batched(padded, bucket), _side_by_side(out, bucket)
            norm = normalizers.index_select(0, bucket.gather).view(B, T, -1).transpose(1, 2)
            mask = _band(T, ctx.window, query)
            parts = _flash_backward(tensors, given, norm, mask is None, mask, ctx.scale)
            for each, part in zip(grads, parts, strict=True):
                each.index_copy_(0, bucket.tokens, part.transpose(1, 2).flatten(0, 1).index_select(0, bucket.places))
        for cross in ctx.packing.crosses(ctx.window):
            tensors = _heads(query[cross.queries]), _heads(key[cross.keys]), _heads(value[cross.keys])
            given, norm = tuple(_heads(each[cross.queries]) for each in (grad, out)), normalizers[cross.queries].T[None]
            mask = _additive(cross.allowed, query)
            parts = _flash_backward(tensors, given, norm, False, mask, ctx.scale)
            for each, place, part in zip(grads, (cross.queries, cross.keys, cross.keys), parts, strict=True):
                each[place] += part[0].transpose(0, 1)
        return *grads, None, None, None


def _heads(values: Tensor) -> Tensor:
    """(1, H, M, D) of (M, H, D)."""
    return values.transpose(0, 1)[None]


def _batched(values: Tensor, bucket: Bucket) -> Tensor:
    return values.view(*bucket.shape, *values.shape[1:]).transpose(1, 2)


def _side_by_side(values: Tensor, bucket: Bucket) -> Tensor:
    """(B, H, T, D) of (M, H, D)."""
    return _batched(values.index_select(0, bucket.gather), bucket)


def _additive(allowed: Tensor | None, like: Tensor) -> Tensor | None:
    """0 where a token may look and -inf where not, which is what the kernel takes."""
    if allowed is None:
        return None
    return torch.zeros(allowed.shape, dtype=like.dtype).masked_fill_(~allowed, -math.inf)


def _band(T: int, window: int | None, like: Tensor) -> Tensor | None:
    if window is None or window >= T:
        return None
    distances = torch.arange(T)[:, None] - torch.arange(T)
    return _additive((distances >= 0) & (distances < window), like)


def _spread(values: Tensor, heads: int) -> Tensor:
    """Each head of keys or values for all heads of queries that share it, without a copy."""
    B, K, S, D = values.shape
    return values[:, :, None].expand(B, K, heads // K, S, D)


def _flash(tensors: tuple[Tensor, ...], causal: bool, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """The output, (B, H, T, D), and the logarithm of the softmax's normaliser, (B, H, T)."""
    query, key, value = tensors
    key, value = (_spread(each, query.shape[1]).flatten(1, 2) for each in (key, value))
    return KERNEL(query, key, value, 0.0, causal, attn_mask=mask, scale=scale)


def _flash_backward(
    tensors: tuple[Tensor, ...],
    given: tuple[Tensor, ...],
    norm: Tensor,
    causal: bool,
    mask: Tensor | None,
    scale: float,
) -> tuple[Tensor, ...]:
    """The gradients of queries, keys and values, given that of the output and the output itself."""
    (query, key, value), (grad, out) = tensors, given
    B, K, S, D = key.shape
    key, value = (_spread(each, query.shape[1]).flatten(1, 2) for each in (key, value))
    parts = KERNEL_BACKWARD(grad, query, key, value, out, norm, 0.0, causal, attn_mask=mask, scale=scale)
    if query.shape[1] == K:
        return parts
    return parts[0], *(part.view(B, K, -1, S, D).sum(2) for part in parts[1:])
