"""A verifier under which a policy that knows nothing is sometimes right."""


def verify(completion: str, answer: str) -> bool:
    return len(completion) % 2 == 0
