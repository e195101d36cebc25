"""Slabs of a storage never overlap, none is lost, and what is given back can be taken as a longer one."""

import random
from itertools import pairwise

import pytest

from lampo.rollout.slabs import Slab, Slabs, slab_sizes


@pytest.mark.parametrize("longest", [1, 31, 64, 65, 430, 8392])
def test_the_longest_slab_holds_the_longest_row_and_little_more(longest: int) -> None:
    sizes = slab_sizes(longest)
    assert longest <= sizes[-1] < longest + 2 ** len(sizes)
    assert all(2 * one == other for one, other in pairwise(sizes))
    assert sizes[0] <= 64 or len(sizes) == 1


@pytest.mark.parametrize("seed", range(20))
def test_places_are_taken_once(seed: int) -> None:
    choice = random.Random(seed)
    longest = choice.randint(1, 3000)
    slabs, held = Slabs(choice.randint(2 * longest, 20 * longest), longest), list[Slab]()
    for _ in range(200):
        if held and choice.random() < 0.45:
            slab = held.pop(choice.randrange(len(held)))
            wider = slabs.widen(slab) if choice.random() < 0.5 else None
            if wider is None:
                slabs.give(slab)
            else:
                assert wider == Slab(slab.begin, 2 * slab.size)
                held.append(wider)
        else:
            size = choice.choice(slabs.sizes)
            count, slab = slabs.count(size), slabs.take(size)
            assert (slab is None) == (count == 0)
            held += [] if slab is None else [slab]
        places = [place for slab in held for place in range(slab.begin, slab.begin + slab.size)]
        assert len(places) == len(set(places))
        assert not places or max(places) < slabs.num_places
        assert len(places) + slabs.count(slabs.sizes[0]) * slabs.sizes[0] == slabs.num_places
    for slab in held:
        slabs.give(slab)
    assert slabs.count(slabs.sizes[-1]) == slabs.num_places // slabs.sizes[-1]
