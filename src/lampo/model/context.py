"""How many tokens a model takes in one row, prompt and completion together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

UNBOUNDED = 2**31


@dataclass(frozen=True, slots=True)
class Context:
    """The longest row of a model.

    Attributes:
        length: most tokens of prompt and completion together, such that each row's log-probabilities are its own.
        whole: most tokens that the model can read.
        note: why `length` is less than `whole`, and what to do; empty if it is not.
    """

    length: int
    whole: int
    note: str = ""

    def beyond(self) -> Context:
        """The whole context, for an engine that keeps to one set of factors, or where log-probabilities do not matter."""
        return Context(self.whole, self.whole)


def context_of(config: Any) -> Context:
    """The longest row of a model with this transformers configuration.

    A model with longrope (arXiv 2402.13753; Phi-3 and Phi-4-mini) has two sets of rotary factors, and a row longer than
    `original_max_position_embeddings` changes from one to the other **as a whole**. Keys that are cached when a row grows
    past that length were rotated by the factors before: a token sampled there has another log-probability than in a full
    forward pass. And transformers chooses one set for all rows of a micro-batch, so that a long row changes its neighbours.
    """
    config = config.get_text_config()
    length = getattr(config, "max_position_embeddings", None) or UNBOUNDED
    change = _longrope_change(config)
    if change is None or change >= length:
        return Context(length, length)
    return Context(
        change,
        length,
        f"Of the model's {length} positions only the first {change} are used here. Its longrope embedding rotates a longer row by "
        "other factors. Such a row would be sampled with other log-probabilities than those of the update. "
        f"Keep prompt and sampling.max_new_tokens together within {change}. To measure longer "
        "responses, use lampo eval --backend vllm, or a server.",
    )


def _longrope_change(config: Any) -> int | None:
    """The longest row before the factors change; None without longrope."""
    parameters = getattr(config, "rope_parameters", None) or {}
    by_layer = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    changes = [
        each.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
        for each in by_layer
        if each.get("rope_type") == "longrope"
    ]
    return min((change for change in changes if change), default=None)
