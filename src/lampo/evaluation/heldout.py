"""Sampled accuracy on held-out problems, with an interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..config.schema import TrainConfig
from ..model.policy import Policy
from ..model.prompts import encode_prompts
from ..rollout.sampler import Sampler
from ..seeds import derive_seed
from ..tasks.split import stable_hash
from ..types import LampoError, Problem, Verdict
from ..verify import VerifierPool
from ..verify.verification import Verification
from .scores import wilson_interval


def evaluate(
    policy: Policy,
    sampler: Sampler,
    problems: Sequence[Problem],
    config: TrainConfig,
    pool: VerifierPool,
    *,
    samples: int | None = None,
    prefix: str = "evaluation/",
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Accuracy of sampled responses: the mean over problems of the share of right ones among the verified ones.

    Each response is verified while others are still being sampled.

    Unknown verdicts are left out and their share is reported. A problem with none verified is left out too. The random numbers are
    the same at every call of a run, so that two evaluations differ by the policy alone.

    Args:
        policy: the policy, whose tokenizer encodes the prompts.
        sampler: draws the responses.
        problems: what is asked.
        config: the recipe.
        pool: verifies.
        samples: responses to each problem; those of `config.evaluation` if not given.
        prefix: of the keys.
        on_progress: called with the number of tokens drawn so far.

    Returns:
        accuracy, low and high end of its 95 % interval, pass@k with k = samples (the share of problems with a right response) where
        there are several, number of problems, samples, shares of unknown and truncated responses, mean length; keys begin with the
        prefix. `by_problem` is a list: the share of right responses to each problem, in the order of a hash of their ids, so that an
        evaluation of fewer problems has the beginning of it. None where no verdict is known.
    """
    samples = config.evaluation.samples if samples is None else samples
    prompts_P = encode_prompts(problems, policy, config.prompt)
    seed = derive_seed(config.run.seed, "evaluate")
    verification = Verification(pool, problems, config.verifier)
    rollouts_PG = sampler.sample(prompts_P, samples, seed=seed, on_progress=on_progress, on_rollout=verification.begin)
    verdicts_PG = verification.verdicts(rollouts_PG)
    return measures(
        [problem.id for problem in problems],
        verdicts_PG,
        [len(rollout.completion_ids) for rollouts_G in rollouts_PG for rollout in rollouts_G],
        [rollout.finished for rollouts_G in rollouts_PG for rollout in rollouts_G],
        samples=samples,
        prefix=prefix,
    )


def measures(
    ids_P: Sequence[str],
    verdicts_PG: Sequence[Sequence[Verdict]],
    lengths_N: Sequence[int],
    finished_N: Sequence[bool],
    *,
    samples: int,
    prefix: str = "evaluation/",
) -> dict[str, Any]:
    """What `evaluate` returns, of responses that were sampled and judged already.

    Args:
        ids_P: of the problems.
        verdicts_PG: by problem.
        lengths_N: of all responses, in tokens.
        finished_N: whether each ended by itself.
        samples: responses to each problem.
        prefix: of the keys.

    Raises:
        LampoError: every verdict is unknown.
    """
    known_PG = [
        [verdict.status == "right" for verdict in verdicts_G if verdict.status != "unknown"]
        for verdicts_G in verdicts_PG
    ]
    shares_P = [sum(known_G) / len(known_G) if known_G else None for known_G in known_PG]
    shares = [share for share in shares_P if share is not None]
    if not shares:
        first = next((verdict.detail for verdicts_G in verdicts_PG for verdict in verdicts_G if verdict.detail), "")
        raise LampoError(
            f"Every verdict of the evaluation is unknown. The first: {first or 'the verifier gave no reason'}. "
            "Check the answers with: lampo tasks check RECIPE"
        )
    accuracy = sum(shares) / len(shares)
    low, high = wilson_interval(accuracy, len(shares))
    solved = {f"{prefix}pass_at_k": sum(share > 0 for share in shares) / len(shares)} if samples > 1 else {}
    return {
        f"{prefix}accuracy": accuracy,
        f"{prefix}low": low,
        f"{prefix}high": high,
        **solved,
        f"{prefix}problems": len(shares),
        f"{prefix}samples": samples,
        f"{prefix}unknown": 1 - sum(map(len, known_PG)) / len(lengths_N),
        f"{prefix}truncated": finished_N.count(False) / len(lengths_N),
        f"{prefix}length_mean": sum(lengths_N) / len(lengths_N),
        f"{prefix}by_problem": [
            shares_P[at] for at in sorted(range(len(ids_P)), key=lambda at: stable_hash(ids_P[at]))
        ],
    }
