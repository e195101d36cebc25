"""The model, one token further for many rows on CUDA, whose keys and values lie where each row has its own."""

from __future__ import annotations

import torch
from torch import Tensor

from ..model.flash_step import RowKeys
from ..model.policy import Policy
from .decoder import Prefill
from .slabs import Slab, Slabs

SPARE = 16
"""A row begins in a place that another has left only if this part of all places stays free, so that those that are there can grow."""


class FlashDecoder:
    """Rows that each grow by a token a step. As `Decoder`, but rows begin in places of their own and no mask is needed.

    A row reads its own keys alone, so a place that a row has left is taken by another at no cost to the others. Its storage grows with it:
    a row that fills its slab moves into one of twice the size. Where there is none, the shortest row gives its slab up and begins again
    later. The step of so many rows is recorded as a CUDA graph once, since storage never moves.

    Attributes:
        hidden: (N, D) states of the rows after their last token, valid until the next step.
        takes_in: a row that has ended gives its place to another.
    """

    hidden: Tensor
    takes_in = True

    def __init__(self, policy: Policy, num_rows: int, *, longest: int, num_places: int) -> None:
        """No row has begun yet.

        Args:
            policy: its model is asked, under the caller's `policy.precision()`, without gradient.
            num_rows: N.
            longest: no row will have more tokens.
            num_places: tokens whose keys and values are held at once, of all rows together.
        """
        self._policy, self._step = policy, policy.flash_step(longest)
        config, device = policy.core.config, policy.device
        self._slabs = Slabs(num_places, longest)
        nowhere = self._slabs.take(self._slabs.sizes[0])  # where rows that have ended write to
        assert nowhere is not None
        self._nowhere = nowhere.begin
        self._whole = self._slabs.count(self._slabs.sizes[-1]) >= num_rows  # all can have their longest slab at once
        shape = config.num_hidden_layers, self._slabs.num_places, *self._step.heads_of_keys
        keys, values = (torch.empty(shape, dtype=torch.bfloat16, device=device) for _ in range(2))
        begins, lengths, grows = (torch.zeros(num_rows, dtype=torch.int32, device=device) for _ in range(3))
        self._rows = RowKeys(keys, values, begins.fill_(self._nowhere), lengths, grows)
        self._tokens_N = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self.hidden = torch.zeros(num_rows, config.hidden_size, dtype=torch.bfloat16, device=device)
        self._slab_of: list[Slab | None] = [None] * num_rows
        self._born = [0] * num_rows  # the step at which a row had no token, by going back
        self._num_steps, self._next_full = 0, 0
        self._forget_graph()

    def should_drop(self, num_open: int) -> bool:
        """Whether it pays to drop the rows that have ended, so that this many are left."""
        return num_open <= len(self._slab_of) // 2

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows, (n,) indices, in this order. The others have ended."""
        kept = rows.tolist()
        self._slab_of, self._born = [self._slab_of[row] for row in kept], [self._born[row] for row in kept]
        each = self._rows
        self._rows = RowKeys(each.keys, each.values, each.begins[rows], each.lengths[rows], each.grows[rows])
        self._tokens_N = self._tokens_N[rows]
        self._forget_graph()

    def end(self, places: list[int]) -> None:
        """The rows in these places have ended, and give up their keys and values."""
        for place in places:
            if (slab := self._slab_of[place]) is not None:
                self._slabs.give(slab)
                self._slab_of[place] = None
        index = torch.tensor(places, device=self._policy.device)
        self._rows.begins[index] = self._nowhere
        self._rows.lengths[index] = 0
        self._rows.grows[index] = 0

    def room_for(self, length: int) -> int:
        """Rows of this length that could begin now."""
        size = self._first_size(length)
        spare = 0 if self._whole or not any(self._slab_of) else -(-self._slabs.num_places // (SPARE * size))
        return max(0, self._slabs.count(size) - spare)

    def take_in(self, places_n: Tensor, prompts: Prefill, which_n: Tensor) -> None:
        """Begin anew in these places, indices of rows, with these prompts. There must be `room_for` them."""
        which, places = which_n.tolist(), places_n.tolist()
        lengths, begins = [prompts.lengths[each] for each in which], list[int]()
        for place, length in zip(places, lengths, strict=True):
            slab = self._slabs.take(self._first_size(length))
            assert slab is not None, "no room for a row"
            self._slab_of[place], self._born[place] = slab, self._num_steps - length
            begins.append(slab.begin)
        for each, values in ((self._rows.begins, begins), (self._rows.lengths, lengths)):
            each[places_n] = torch.tensor(values, dtype=torch.int32, device=each.device)
        self._rows.grows[places_n] = 1
        self.hidden[places_n] = prompts.hidden[which_n].to(self.hidden.dtype)
        self._write(prompts, which, lengths, begins)
        torch.clear_autocast_cache()  # copies of weights that prompts ran with: a step has its own
        self._see_next_full()

    def _write(self, prompts: Prefill, which: list[int], lengths: list[int], begins: list[int]) -> None:
        """Keys and values of prompts, where rows begin. In a prompt's own storage padding lies before it."""
        lengths_n = torch.tensor(lengths)
        row = torch.arange(len(which)).repeat_interleave(lengths_n)
        place = torch.arange(len(row)) - (lengths_n.cumsum(0) - lengths_n)[row]
        column = prompts.mask.shape[-1] - lengths_n[row] + place
        indices = torch.tensor(begins)[row] + place, torch.tensor(which)[row], column
        target, source, column = (each.to(self._policy.device) for each in indices)
        for index, layer in enumerate(prompts.cache.layers):
            for pool, held in ((self._rows.keys, layer.keys), (self._rows.values, layer.values)):
                assert held is not None
                pool[index, target] = held[source, :, column].to(pool.dtype)

    def grow(self) -> list[int]:
        """Have a place for the next token of every row.

        Returns:
            rows that ended for it, the shortest: they have to begin again.
        """
        ended: list[int] = []
        if self._num_steps < self._next_full:
            return ended
        for place, born in enumerate(self._born):
            while (slab := self._slab_of[place]) is not None and slab.size == self._num_steps - born:
                if (wider := self._wider(slab)) is not None:
                    self._slab_of[place] = wider
                    self._rows.begins[place] = wider.begin
                    break
                open_rows = (row for row, held in enumerate(self._slab_of) if held is not None)
                shortest = max(open_rows, key=lambda row: self._born[row])
                self.end([shortest])
                ended.append(shortest)
        self._see_next_full()
        return ended

    def _wider(self, slab: Slab) -> Slab | None:
        """One of twice the size with what this one holds, or None where there is none."""
        if (wider := self._slabs.widen(slab)) is not None:
            return wider
        if (wider := self._slabs.take(2 * slab.size)) is None:
            return None
        for each in (self._rows.keys, self._rows.values):
            each[:, wider.begin : wider.begin + slab.size] = each[:, slab.begin : slab.begin + slab.size]
        self._slabs.give(slab)
        return wider

    def _see_next_full(self) -> None:
        """The first step that a slab is too small for."""
        held = zip(self._slab_of, self._born, strict=True)
        self._next_full = min((born + slab.size for slab, born in held if slab is not None), default=0)

    def step(self, tokens_N: Tensor) -> None:
        """Take a token in for every row. Those that have not ended must have a place for it, see `grow`."""
        self._num_steps += 1
        self._tokens_N.copy_(tokens_N)
        if self._graph is not None:
            self._graph.replay()
        elif self._new_shape or self._policy.device.type != "cuda":
            self.hidden = self._step(self._tokens_N, self._rows)
            self._new_shape = False
        else:
            self._graph = torch.cuda.CUDAGraph()
            # other threads may ask for memory meanwhile
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self.hidden = self._step(self._tokens_N, self._rows)
            self._graph.replay()

    def draw(self, logits_NV: Tensor, uniforms_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """The next token of every row (N,), and its log-probability."""
        from ..model.decode_kernels import draw  # triton is there only where CUDA is

        return draw(logits_NV, uniforms_N, temperature)

    def _first_size(self, length: int) -> int:
        """Places that a row of this length begins with, one for its next token included."""
        return self._slabs.sizes[-1] if self._whole else self._slabs.size_for(length + 1)

    def _forget_graph(self) -> None:
        self._graph: torch.cuda.CUDAGraph | None = None
        self._new_shape = True
