"""The supervised stage before reinforcement learning: imitate worked solutions until the answer format is there."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..config.schema import TrainConfig
from ..learner.batch import Batch, Row
from ..learner.optimizer import Optimizer
from ..model.policy import Policy
from ..model.prompts import encode_prompts
from ..types import LampoError, Problem


def demonstrations(problems_P: Sequence[Problem], policy: Policy, config: TrainConfig) -> Batch:
    """Prompts with worked solutions (and the end-of-sequence token) as the rows of a supervised step."""
    rows = []
    for problem, prompt_ids in zip(problems_P, encode_prompts(problems_P, policy, config.prompt), strict=True):
        solution = problem.demonstration if problem.demonstration is not None else problem.reference
        if solution is None:
            raise LampoError(
                f"The warm start needs worked solutions, but problem {problem.id!r} has none. "
                "Name the task's reference column, or set warmstart.steps to 0."
            )
        solution_ids = torch.tensor([*policy.encode(solution), policy.tokenizer.eos_token_id])
        solution_ids = solution_ids[: policy.context.length - len(prompt_ids)]
        rows.append(Row(prompt_ids, solution_ids, torch.zeros(len(solution_ids)), advantage=1.0))
    return Batch(tuple(rows), num_rows=len(rows), num_tokens=sum(len(row.completion_ids) for row in rows))


def imitate(policy: Policy, optimizer: Optimizer, batch: Batch, config: TrainConfig, step: int) -> dict[str, float]:
    """One optimiser step on -mean over the solutions' tokens of log pi(token). The prompt has no loss.

    Raises:
        NotFinite: the gradient is not finite.
    """
    value = torch.zeros(())
    for microbatch in batch.split(config.training.budget, layout=policy.layout):
        microbatch = microbatch.to(policy.device)
        logprobs_NT, _ = policy.token_logprobs(microbatch, temperature=1.0)
        loss = -(logprobs_NT * microbatch.mask_NT).sum() / batch.num_tokens
        loss.backward()
        value += loss.detach().cpu()
    return {"loss/value": float(value), **optimizer.step(step)}
