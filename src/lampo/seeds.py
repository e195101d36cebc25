"""Random numbers as a function of the seed and a key, such as ("sample", step).

No generator lives from one step to the next: every step makes its own from (seed, purpose, step). So a resumed run needs no
saved generator state, and a step draws the same numbers however the steps before it went.
"""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *key: str | int) -> int:
    """A 63-bit seed for one key, by BLAKE2b.

    >>> derive_seed(0, "sample", 1) == derive_seed(0, "sample", 1), derive_seed(0, "sample", 1) == derive_seed(0, "sample", 2)
    (True, False)
    """
    text = repr((seed, *key)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
