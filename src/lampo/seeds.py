"""Random numbers as a function of the seed and a place in the run.

No generator lives from one step to the next: every step makes its own from (seed, purpose, step). So a resumed run needs no
saved generator state, and a step draws the same numbers however the steps before it went.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *place: str | int) -> int:
    """A 63-bit seed for one place of a run, by BLAKE2b.

    >>> derive_seed(0, "sample", 1) == derive_seed(0, "sample", 1), derive_seed(0, "sample", 1) == derive_seed(0, "sample", 2)
    (True, False)
    """
    text = repr((seed, *place)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generator(seed: int, *place: str | int) -> torch.Generator:
    """A CPU generator for one place of a run."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *place))
