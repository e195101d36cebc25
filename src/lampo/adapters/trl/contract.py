"""What `LamPOTrainer` relies on inside TRL, which has no hook for advantages: each part is looked for, and missed in a plain sentence."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from typing import Any

from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from ...types import LampoError

PARAMETERS = {
    "_generate_and_score_completions": ("inputs",),
    "_compute_loss": ("model", "inputs"),
    "_get_per_token_logps_and_entropies": ("model", "batch_size"),
}
"""Methods that are overridden or called, with parameters that are used by position or name."""

LINES = {
    "_calculate_rewards": {
        "gather(rewards_per_func)": "returns the rewards of all processes",
    },
    "_generate_and_score_completions": {
        "self._calculate_rewards(": "asks _calculate_rewards for the rewards",
        'self._logs["advantages"].extend(': "writes the advantages of all processes to _logs",
        '"advantages": advantages': "returns the advantages",
        '"num_items_in_batch": num_items_in_batch': "returns num_items_in_batch",
        '"completion_mask": completion_mask': "returns completion_mask",
        'output["old_per_token_logps"]': "returns old_per_token_logps where it has them",
        'output["sampling_per_token_logps"]': "returns the sampler's log-probs where it has them",
        'output["ref_per_token_logps"]': "returns the reference's log-probs where it has them",
        'output["tool_mask"]': "returns tool_mask where it has one",
    },
    "_generate_single_turn": {
        "unwrapped_model.generate(": "draws by transformers' generate",
        "return completion_ids, logprobs": "returns the completions with log-probs, or with None",
    },
    "_compute_loss": {
        'inputs["advantages"]': "reads the advantages from the batch",
        "advantages.dim() == 1": "takes advantages of one a row and of one a token",
        'inputs.get("old_per_token_logps")': "reads old_per_token_logps from the batch",
        'inputs["num_items_in_batch"]': "divides by num_items_in_batch",
        "self.beta * per_token_kl": "weighs the KL term with self.beta",
    },
    "_prepare_inputs": {
        "self._generate_and_score_completions(": "gets its batches from _generate_and_score_completions",
    },
}
"""Lines of TRL's source, by method, and what they say."""

SETTINGS = (
    "scale_rewards",
    "multi_objective_aggregation",
    "loss_type",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "generation_kwargs",
)
"""Settings of TRL that are looked at."""


def broken_promises(trainer: type[Any] = GRPOTrainer, config: type[Any] = GRPOConfig) -> Iterator[str]:
    """What is no longer as `LamPOTrainer` needs it, a sentence each."""
    for name, parameters in PARAMETERS.items():
        method = getattr(trainer, name, None)
        if method is None:
            yield f"GRPOTrainer has no method {name}."
            continue
        missing = [parameter for parameter in parameters if parameter not in inspect.signature(method).parameters]
        if missing:
            yield f"GRPOTrainer.{name} no longer takes {', '.join(missing)}."
    for name, lines in LINES.items():
        method = getattr(trainer, name, None)
        source = inspect.getsource(method) if method is not None else ""
        for line, meaning in lines.items():
            if line not in source:
                yield f"GRPOTrainer.{name} no longer {meaning} ({line})."
    for name in SETTINGS:
        if name not in config.__dataclass_fields__:
            yield f"GRPOConfig has no setting {name}."


@cache
def check_contract() -> None:
    """Refuse a TRL that would train on something else than our advantages.

    Raises:
        LampoError: says what has moved.
    """
    broken = list(broken_promises())
    if broken:
        raise LampoError(
            f"TRL {metadata.version('trl')} has moved what LamPOTrainer relies on. {' '.join(broken)} "
            "Install a version between 1.0 and 1.16, or a newer LamPO."
        )
