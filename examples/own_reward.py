"""A reward of your own: a function that own_reward.yaml names as python:own_reward.brevity."""


def brevity(completion: str, answer: str, *, num_tokens: int, verdict, limit: int = 100) -> float:
    """From 1 for an empty response down to 0 at `limit` tokens; only right responses are paid for being short.

    The first two arguments are always given. Others are given by name to a function that names them: prompt, reference, problem_id,
    verdict, num_tokens, the other columns of your file, and what stands beside the name in the recipe, here `limit`.
    Return None where you cannot tell. Such a response is left out of the update.
    """
    if verdict.status != "right":
        return 0.0
    return max(0.0, 1 - num_tokens / limit)
