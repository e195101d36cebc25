"""A user's own verifier whose import takes longer than its time limit."""

import time

time.sleep(2)


def verify(completion: str, answer: str) -> bool:
    return completion == answer
