"""Places for rows of unknown length in one storage."""

from __future__ import annotations

import math
from dataclasses import dataclass

SHORTEST = 32
"""A slab has no fewer places, unless the longest row has."""
ROWS_AT_FULL_LENGTH = 4
"""So many times the rows begin that memory holds at their longest: most end long before."""


@dataclass(frozen=True, slots=True, order=True)
class Slab:
    """Places for a row, one after the other.

    Attributes:
        begin: the first of them.
        size: how many.
    """

    begin: int
    size: int


class Slabs:
    """Slabs of a storage: the longest holds the longest row, and the others are its half, its quarter and so on (buddy allocation).

    So a row holds at most about twice the places that it needs, and what is given back becomes a longer slab again with its other half.
    """

    def __init__(self, num_places: int, longest: int) -> None:
        """Cut at least so many places into slabs.

        Args:
            num_places: of the storage.
            longest: places that the longest row needs.
        """
        self.sizes = slab_sizes(longest)
        self._free: dict[int, set[int]] = {size: set() for size in self.sizes}
        self.num_places = math.ceil(num_places / self.sizes[0]) * self.sizes[0]
        begin = 0
        for size in reversed(self.sizes):
            while begin + size <= self.num_places:
                self._free[size].add(begin)
                begin += size

    def size_for(self, length: int) -> int:
        """Of the smallest slab that holds so many."""
        return next(size for size in self.sizes if size >= length)

    def count(self, size: int) -> int:
        """Slabs of this size that could be taken now."""
        return sum(len(begins) * (each // size) for each, begins in self._free.items() if each >= size)

    def take(self, size: int) -> Slab | None:
        """A slab of this size, the first of the smallest that are free; None where there is none."""
        held = next((each for each in self.sizes if each >= size and self._free[each]), None)
        if held is None:
            return None
        begin = min(self._free[held])
        self._free[held].remove(begin)
        while held > size:  # its second half is free
            held //= 2
            self._free[held].add(begin + held)
        return Slab(begin, size)

    def give(self, slab: Slab) -> None:
        """A slab is free again."""
        begin, size = slab.begin, slab.size
        while size < self.sizes[-1] and (other := self._other_half(begin, size)) in self._free[size]:
            self._free[size].remove(other)
            begin, size = min(begin, other), 2 * size
        self._free[size].add(begin)

    def widen(self, slab: Slab) -> Slab | None:
        """The slab with its other half, where that lies behind it and is free."""
        other = self._other_half(slab.begin, slab.size)
        if slab.size == self.sizes[-1] or other < slab.begin or other not in self._free[slab.size]:
            return None
        self._free[slab.size].remove(other)
        return Slab(slab.begin, 2 * slab.size)

    def _other_half(self, begin: int, size: int) -> int:
        return begin - size if begin // size % 2 else begin + size


def places_to_begin(longest_prompt: int, longest: int) -> int:
    """Places that there must be for each row that begins: what it begins with has room in any case."""
    return max(2 * (longest_prompt + 1), longest // ROWS_AT_FULL_LENGTH)


def rows_at_once(fitting: int, longest_prompt: int, longest: int) -> int:
    """Rows that may begin where memory holds so many places. One more is nobody's."""
    return max(1, fitting // places_to_begin(longest_prompt, longest) - 1)


def places_for(num_rows: int, fitting: int, longest: int) -> int:
    """Places of a storage for so many rows: what they need at their longest, or all that memory holds."""
    sizes = slab_sizes(longest)
    return max(2 * sizes[-1], min(fitting, num_rows * sizes[-1])) + sizes[0]


def slab_sizes(longest: int) -> list[int]:
    """Of the slabs of rows that need at most so many places, the smallest first."""
    levels = max(0, int(math.log2(max(1, longest / SHORTEST))))
    return [math.ceil(longest / 2**levels) * 2**level for level in range(levels + 1)]
