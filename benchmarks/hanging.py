"""A user's own verifier that hangs now and then; for hanging_verifier.py. It imports quickly, as such a module should."""

import hashlib
import time

from lampo.types import Verdict
from lampo.verify import NumericOptions


def verify(completion: str, answer: str, *, share: float = 0.0) -> Verdict:
    """The numeric verifier, but it hangs on a share of all responses."""
    place = int.from_bytes(hashlib.blake2b(f"{answer} {completion}".encode(), digest_size=4).digest()) / 2**32
    if place < share / 2:
        time.sleep(3600)
    while share / 2 <= place < share:
        pass
    return NumericOptions().verify(completion, answer)
