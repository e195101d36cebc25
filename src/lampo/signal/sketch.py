"""Random projections of gradients: a few thousand numbers that keep inner products."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

CHUNK = 2**22
"""Entries of a gradient that are folded at once: what the sketch needs beside the gradient."""


class GradientSketch:
    r"""A CountSketch of gradients (Charikar, Chen and Farach-Colton, ICALP 2002).

        sketch(x)_k = sum over the entries j with h(j) = k of  sign(j) x_j

    The signs are fair coins. Entries lie in blocks of `width`, and each block is turned by a random number of places, so two entries of
    different blocks meet with probability 1 / width and two of one block never do. Hence for all gradients x and y

        E <sketch(x), sketch(y)> = <x, y>        Var <= (|x|^2 |y|^2 + <x, y>^2) / width

    Memory: a byte for each weight, and `CHUNK` entries. Nothing is scattered, so it is the same number each time on a GPU too.

    >>> weights = [torch.zeros(3, 4), torch.zeros(5)]
    >>> sketch = GradientSketch(weights, width=64, seed=0)
    >>> x = [torch.arange(12.0).view(3, 4), torch.ones(5)]
    >>> plain, twice = sketch(x, torch.full((17,), 2.0))
    >>> float(plain @ plain), float(plain @ twice)  # 0 + 1 + 4 + ... + 121 + 5, in one block: exact
    (511.0, 1022.0)
    """

    def __init__(self, parameters: Sequence[Tensor], *, width: int, seed: int) -> None:
        self.width = width
        self._device = parameters[0].device
        self._size = sum(parameter.numel() for parameter in parameters)
        self._chunk = max(1, CHUNK // width) * width
        self._kept: Tensor | None = None
        generator = torch.Generator().manual_seed(seed)
        num_blocks = -(-self._size // width)
        self._turns = torch.randint(width, (num_blocks,), generator=generator).to(self._device)
        self._signs = torch.empty(num_blocks * width, dtype=torch.int8, device=self._device)
        for part in self._signs.split(self._chunk):
            part.copy_(2 * torch.randint(2, part.shape, generator=generator, dtype=torch.int8) - 1)

    def __call__(self, gradients: Iterable[Tensor], scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(width,) the sketch of a gradient, and that of its entries times those of `scale`.

        Args:
            gradients: of each parameter, in their order.
            scale: (sum of their sizes,) factors; None: all are 1.
        """
        plain, scaled = torch.zeros(2, self.width, device=self._device)
        for start, entries in self._chunks(gradients):
            stop = start + len(entries)
            entries *= self._signs[start:stop]
            places = self._places(start // self.width, len(entries) // self.width)
            plain += self._fold(entries, places)
            if scale is not None:
                inside = max(0, min(stop, self._size) - start)
                entries[:inside] *= scale[start : start + inside]
                scaled += self._fold(entries, places)
        return plain, plain if scale is None else scaled

    def _fold(self, entries: Tensor, places: Tensor) -> Tensor:
        """The sum of all blocks, each turned."""
        return entries.view(-1, self.width).gather(1, places).sum(0)

    def _places(self, first: int, count: int) -> Tensor:
        """(count, width) from where in its block each place takes its entry. Kept where there is but one chunk."""
        if self._kept is not None:
            return self._kept
        wheel = torch.arange(self.width, device=self._device).repeat(2)
        places = wheel.unfold(0, self.width, 1)[self.width - self._turns[first : first + count]]
        if count == len(self._turns):
            self._kept = places
        return places

    def _chunks(self, gradients: Iterable[Tensor]) -> Iterator[tuple[int, Tensor]]:
        """The entries of all gradients one after the other, in chunks of whole blocks. The last one is filled up with zeros."""
        size = min(self._chunk, len(self._signs))
        buffer, start, at = torch.zeros(size, device=self._device), 0, 0
        for gradient in gradients:
            flat, taken = gradient.reshape(-1), 0
            while taken < len(flat):
                count = min(size - at, len(flat) - taken)
                buffer[at : at + count] = flat[taken : taken + count]
                at, taken = at + count, taken + count
                if at == size:
                    yield start, buffer
                    start, at = start + size, 0
                    size = min(self._chunk, len(self._signs) - start)
                    buffer = torch.zeros(size, device=self._device)
        if at:
            yield start, buffer
