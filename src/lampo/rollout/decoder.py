"""The model, one token further for many rows at once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ..model.decode_step import DecodeStep, turns_held
from ..model.policy import Policy


class Prefill:
    """Prompts that have run through the model: what rollouts begin with.

    Attributes:
        hidden: (P, D) states after their last tokens.
        mask: (P, L) 1 on their tokens, 0 on the padding at their left.
        position_P1: the positions of their last tokens.
        cache: keys and values.
        lengths: tokens of each.
        longest: tokens of the longest row that will begin with one of them.
    """

    def __init__(self, policy: Policy, prompts_P: Sequence[Tensor], *, longest: int) -> None:
        """Run the prompts through the model.

        Args:
            policy: its model is asked, under the caller's `policy.precision()`, without gradient.
            prompts_P: token ids of the prompts, (L_prompt,) each.
            longest: no row that begins with one will have more tokens.
        """
        self.longest, self.lengths = longest, [len(prompt) for prompt in prompts_P]
        ids, self.mask = (tensor.to(policy.device) for tensor in left_pad(prompts_P, policy.tokenizer.pad_token_id))
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        self.cache = growing_cache(policy, longest)
        hidden = policy.hidden_states(ids, attention_mask=self.mask, position_ids=positions, cache=self.cache)
        self.hidden, self.position_P1 = hidden[:, -1], positions[:, -1:]


class Decoder:
    """Rows that each grow by a token a step, with the keys and values of all tokens before it.

    All rows end in the same column, whatever their length: what lies left of a row's first token is masked. So a row that has ended can
    give its place to another prompt, which then ends there too.

    On CUDA a step is a thousand and more kernels of a few microseconds each, and launching them one by one takes the processor longer
    than the GPU takes to run them (docs/log.md). So where a model's steps are `recordable` they are recorded as a CUDA graph and replayed:
    keys and values lie in storage of a fixed size, with room to spare, all of it is attended to under a mask, and the index of the next
    column is a tensor. The first step of a shape runs as it is, the second is recorded. The shape changes where room has run out, and
    where half of the rows have ended.

    Attributes:
        hidden: (N, D) states of the rows after their last token, valid until the next step.
        takes_in: whether a row that has ended gives its place to another. Not where a layer keeps something else than all keys, and not on
            CUDA: a dense mask has every row read as many keys as the longest has, which costs more than it saves.
    """

    hidden: Tensor

    def __init__(self, policy: Policy, prompts: Prefill, which_N: Tensor) -> None:
        """Begin a row for each of `which_N`, indices of prompts."""
        self._policy = policy
        self._longest = prompts.longest
        self._graph: torch.cuda.CUDAGraph | None = None
        self._new_shape = True
        self._quick_step: DecodeStep | None = None
        self._cache = rows_of(prompts.cache, which_N, prompts.longest)
        self._fixed = recordable(policy, self._cache, prompts.longest)
        self.takes_in = policy.device.type != "cuda" and all(
            type(layer) is _GrowingLayer for layer in self._cache.layers
        )
        self.hidden = prompts.hidden[which_N]
        self._position_N1 = prompts.position_P1[which_N]
        # (N, L), or (N, 1, 1, L) where it is used as it is; fixed (N, 1, 1, R) with R columns of storage
        self._mask = prompts.mask[which_N]
        self._num_columns = self._mask.shape[-1]
        if self._fixed:
            self._tokens_N1 = torch.zeros_like(self._position_N1)
            self._column = torch.tensor([self._num_columns - 1], device=policy.device)
            self._mask = self._mask.bool()[:, None, None]
            self._make_room()
        elif takes_ready_masks(policy, self._cache):
            self._mask = self._mask.bool()[:, None, None]
            self._quick_step = policy.decode_step(prompts.longest)
        self._masked = self._needs_mask()

    def should_drop(self, num_open: int) -> bool:
        """Whether it pays to drop the rows that have ended, so that this many are left."""
        rows = len(self._position_N1)
        return num_open <= rows // 2 if self._fixed else num_open < rows

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows, (n,) indices, in this order."""
        self._mask, self._position_N1 = self._mask[rows], self._position_N1[rows]
        if self._fixed:
            self._tokens_N1 = self._tokens_N1[rows]
            self._forget_graph()
        else:
            self._masked = self._needs_mask()
        places = (rows != torch.arange(len(rows), device=rows.device)).nonzero().squeeze(-1)
        moved = rows[places]
        for layer in self._cache.layers:
            if isinstance(layer, _GrowingLayer):
                layer.keep(rows, places, moved)
            else:
                layer.batch_select_indices(rows)

    def end(self, places: list[int]) -> None:
        """The rows in these places have ended. What they hold stays until their places are taken or dropped."""

    def room_for(self, length: int) -> int:
        """Rows of this length that could begin now: all whose place is free."""
        return len(self._position_N1)

    def grow(self) -> list[int]:
        """Rows that end for want of memory, which are none: there are as many rows as have room at their longest."""
        return []

    def take_in(self, places_n: Tensor, prompts: Prefill, which_n: Tensor) -> None:
        """Begin anew in these places, indices of rows, with these prompts."""
        self._position_N1[places_n] = prompts.position_P1[which_n]
        self.hidden[places_n] = prompts.hidden[which_n]
        length = prompts.mask.shape[-1]
        unused = self._num_columns - max(int(self._position_N1.max()) + 1, length)
        if unused < 0 or (not self._fixed and unused >= few_columns(self._num_columns)):
            self._drop_columns(unused)
        end = self._num_columns
        self._mask[places_n] = 0
        mask_nL = prompts.mask[which_n].to(self._mask.dtype)
        self._mask[places_n, ..., end - length : end] = mask_nL if self._mask.ndim == 2 else mask_nL[:, None, None]
        self._masked = self._needs_mask()
        for layer, source in zip(self._cache.layers, prompts.cache.layers, strict=True):
            assert isinstance(layer, _GrowingLayer)
            assert isinstance(source, _GrowingLayer)
            layer.take_in(places_n, source, which_n, end)

    def step(self, tokens_N: Tensor) -> None:
        """Take a token in for every row."""
        if not self._fixed:
            self._num_columns += 1
            self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
            self._position_N1 = self._position_N1 + 1
            self.hidden = self._forward(tokens_N[:, None])
            return
        if self._num_columns == self._mask.shape[-1]:
            self._make_room(self._num_columns - 1 - int(self._position_N1.max()))
        self._mask[..., self._num_columns] = True
        self._num_columns += 1
        self._column += 1
        self._position_N1 += 1
        self._tokens_N1.copy_(tokens_N[:, None])
        if self._graph is not None:
            self._graph.replay()
        elif self._new_shape or self._policy.device.type != "cuda":
            self.hidden = self._forward(self._tokens_N1)
            self._new_shape = False
        else:
            self._graph = torch.cuda.CUDAGraph()
            # other threads may ask for memory meanwhile
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self.hidden = self._forward(self._tokens_N1)
            self._graph.replay()

    def _forward(self, ids_N1: Tensor) -> Tensor:
        mask = self._mask if self._masked else None
        if self._quick_step is not None:
            return self._quick_step(ids_N1[:, 0], self._position_N1, mask, self._cache)
        with turns_held(self._policy.core) if self._fixed else nullcontext():
            return self._policy.hidden_states(
                ids_N1, attention_mask=mask, position_ids=self._position_N1, cache=self._cache
            )[:, -1]

    def _needs_mask(self) -> bool:
        """Not without padding, where transformers would leave the mask out too. Its 2-dimensional one is always given."""
        return self._fixed or self._mask.ndim == 2 or not bool(self._mask.all())

    def _drop_columns(self, count: int) -> None:
        """Of those at the left, which no row needs. With a negative count, put empty ones there."""
        if self._fixed:
            self._make_room(count)
            return
        self._mask = torch.nn.functional.pad(self._mask, (-count, 0))
        self._num_columns -= count
        for layer in self._cache.layers:
            assert isinstance(layer, _GrowingLayer)
            layer.drop_columns(count)

    def _make_room(self, dropped: int = 0) -> None:
        """Longer storage, without so many columns at the left. Keys and values go on to be written at the index of the next column."""
        held, self._num_columns = self._num_columns, self._num_columns - dropped
        room = room_for(self._num_columns + 1, self._longest)
        self._mask = torch.nn.functional.pad(self._mask[..., :held], (-dropped, room - self._num_columns))
        self._column -= dropped
        for layer in self._cache.layers:
            assert isinstance(layer, _GrowingLayer)
            layer.fix(held, dropped, room, self._column)
        self._forget_graph()

    def _forget_graph(self) -> None:
        self._graph, self._new_shape = None, True


def recordable(policy: Policy, cache: DynamicCache, longest: int) -> bool:
    """Whether a step of this model can be recorded: all of it on CUDA, by kernels and shapes that do not depend on the position."""
    return (
        policy.device.type == "cuda"
        and takes_ready_masks(policy, cache)
        and policy.core._can_compile_fullgraph  # transformers' word for its static cache, whose steps are such
        and longest <= policy.context.length  # beyond it the frequencies of rotary positions may change
    )


def takes_ready_masks(policy: Policy, cache: DynamicCache) -> bool:
    """Whether all layers of this model attend under one mask (N, 1, 1, L). Otherwise transformers makes theirs anew in each step."""
    full = all(type(layer) is _GrowingLayer for layer in cache.layers)
    return full and policy.core.config._attn_implementation == "sdpa"


def left_pad(prompts_P: Sequence[Tensor], pad_id: int) -> tuple[Tensor, Tensor]:
    """(P, L) token ids padded on the left, and their mask, 1 on real tokens."""
    longest = max(len(prompt) for prompt in prompts_P)
    input_ids = torch.full((len(prompts_P), longest), pad_id, dtype=torch.int64)
    mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts_P):
        input_ids[row, longest - len(prompt) :] = prompt
        mask[row, longest - len(prompt) :] = 1
    return input_ids, mask


def growing_cache(policy: Policy, longest: int) -> DynamicCache:
    """transformers' cache for this model and rows of so many tokens, with full-attention layers that append in place."""
    cache = policy.empty_cache(longest)
    cache.layers = [_GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def rows_of(cache: DynamicCache, which_N: Tensor, longest: int) -> DynamicCache:
    """Copies of these rows of a cache, which stays as it is. They will have no more tokens than `longest`."""
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    copied.batch_select_indices(which_N)
    for layer in copied.layers:
        if isinstance(layer, _GrowingLayer):
            layer.longest = longest
    return copied


class _GrowingLayer(DynamicLayer):
    """Keys and values in storage with room to spare; transformers' own layer copies all of them for every new token.

    Attributes:
        longest: tokens of the longest row that there will be. 0 for prompts, which do not grow.
    """

    longest = 0
    _storage: tuple[Tensor, Tensor] | None = None
    _column: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self._column is not None:
            for held, states in zip(self._held, (key_states, value_states), strict=True):
                held.index_copy_(-2, self._column, states.to(held.dtype))
            return self._held
        old = self.get_seq_length()
        new = old + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self._storage is None or self._storage[0].shape[-2] < new:
            self._storage = (
                _roomy(self.keys, key_states, room_for(new, self.longest)),
                _roomy(self.values, value_states, room_for(new, self.longest)),
            )
        keys, values = self._storage
        keys[..., old:new, :] = key_states
        values[..., old:new, :] = value_states
        self.keys, self.values = keys[..., :new, :], values[..., :new, :]
        return self._held

    @property
    def _held(self) -> tuple[Tensor, Tensor]:
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def fix(self, held: int, dropped: int, room: int, column: Tensor) -> None:
        """From here on there is room for so many tokens, all of it is returned, and the next token goes where `column` (1,) says.

        Of the `held` tokens so many are dropped at the left, or room is made there where the number is negative.
        """
        self.keys, self.values = (
            _roomy(states, states, room) for states in (_without(each[..., :held, :], dropped) for each in self._held)
        )
        self._storage, self._column = None, column

    def drop_columns(self, count: int) -> None:
        """See `Decoder._drop_columns`. Storage is made anew with the next token."""
        self.keys, self.values = (_without(held, count) for held in self._held)
        self._storage = None

    def take_in(self, places_n: Tensor, source: _GrowingLayer, which_n: Tensor, end: int) -> None:
        """Keys and values of these rows of another layer, so that they end before the column `end`."""
        for held, new in zip(self._held, source._held, strict=True):
            held[places_n, :, end - new.shape[-2] : end] = new[which_n].to(held.dtype)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Copies of these rows, in no common storage."""
        super().batch_select_indices(indices)
        self._storage = None

    def keep(self, rows_n: Tensor, places: Tensor, rows: Tensor) -> None:
        """Only `rows_n`, of which these come to these places and the others stay where they are.

        So in storage few rows move: moving all behind those that ended took 9 % of the time of sampling, new storage more.
        """
        if self._storage is None:
            self.batch_select_indices(rows_n)
            return
        length = self.get_seq_length()
        keys, values = (held[: len(rows_n)] for held in self._storage)
        for new, old in zip((keys, values), self._storage, strict=True):
            new[places, ..., :length, :] = old[rows, ..., :length, :]
        self._storage = keys, values
        self.keys, self.values = keys[..., :length, :], values[..., :length, :]


def room_for(length: int, longest: int) -> int:
    """Positions of the storage that is made when so many are needed: half as many again, and no more than rows this long ever need."""
    room = max(64, length + length // 2)
    most = longest + few_columns(longest)
    return min(room, most) if length <= most else room


def few_columns(width: int) -> int:
    """Of so many columns, those that no row needs any more may be so many before it pays to move the others to their place."""
    return max(16, width // 8)


def _without(held: Tensor, count: int) -> Tensor:
    """A copy without so many columns at the left, or with as many zeros there where the number is negative."""
    return torch.nn.functional.pad(held, (0, 0, -count, 0))


def _roomy(held: Tensor | None, states: Tensor, room: int) -> Tensor:
    """Storage like the states with this many positions, what is held so far at its beginning, then zeros.

    Zeros because all of it may be attended to: what lay in memory could be NaN, and NaN times a weight of 0 is NaN. Under autocast it has
    the precision in which attention reads it anyway.
    """
    kind = states.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
    storage = states.new_zeros(*states.shape[:-2], room, states.shape[-1], dtype=dtype)
    if held is not None and held.numel():
        storage[..., : held.shape[-2], :] = held
    return storage
