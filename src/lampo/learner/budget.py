"""How many tokens a micro-batch may have, where a recipe leaves it to the machine."""

from __future__ import annotations

from typing import Any

import torch

from ..config.schema import TrainConfig
from ..model.memory import memory_of, training_bytes
from ..model.policy import choose_device, choose_dtype

FEWEST = 256
"""Below this each micro-batch costs more in adding up gradients than in computing them."""
TOKENS_PER_THREAD = 512
"""On a CPU: with fewer, adding up the gradients shows (2 % of the time here); with more, memory grows and time does not fall."""
FEWEST_ON_CPU = 1024
MOST = 32_768
"""A GPU is busy with as many."""
SHARE_OF_MEMORY = 0.25
"""Of the memory that weights, gradients and moments leave. Sampling has its own, and fragments take some."""


def activation_bytes(text: Any, size: int, checkpointing: bool) -> int:
    """What a token keeps for the backward pass: per layer two norms and their inputs, projections before and after the rotation, the MLP.

    Args:
        text: the configuration of a transformers language model.
        size: bytes of an activation.
        checkpointing: layers keep their inputs alone, and one layer at a time is computed again.
    """
    kept = text.num_hidden_layers * text.hidden_size + layer_width(text)
    return (kept if checkpointing else text.num_hidden_layers * layer_width(text)) * size


def layer_width(text: Any) -> int:
    """Numbers that a layer keeps of a token."""
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = text.num_attention_heads + 2 * (getattr(text, "num_key_value_heads", None) or text.num_attention_heads)
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    return 6 * text.hidden_size + 3 * heads * width + 4 * inner


def choose_tokens(device: torch.device, taken: int, bytes_per_token: int) -> int:
    """Tokens of a micro-batch.

    Args:
        device: where the model is trained.
        taken: bytes of weights, gradients and moments.
        bytes_per_token: see `activation_bytes`.

    Returns:
        On a CPU 512 for each of torch's threads and at least 1,024, else 32,768. Fewer where a quarter of the free memory does not hold
        their activations, but never fewer than 256.
    """
    most = max(FEWEST_ON_CPU, TOKENS_PER_THREAD * torch.get_num_threads()) if device.type == "cpu" else MOST
    room = int(SHARE_OF_MEMORY * max(0, memory_of(device) - taken)) // bytes_per_token
    return max(FEWEST, min(most, room // FEWEST * FEWEST))


def tokens_per_microbatch(model: Any, config: TrainConfig) -> int:
    """`training.tokens_per_microbatch`, or what the machine is given where that is auto.

    Args:
        model: the transformers model, or PEFT's wrapper of it; it may be without weights.
        config: the recipe.
    """
    if config.training.tokens_per_microbatch != "auto":
        return config.training.tokens_per_microbatch
    device = choose_device(config.model.device)
    dtype, mixed = choose_dtype(config.model, device)
    taken = training_bytes(model, dtype.itemsize)
    size = torch.bfloat16.itemsize if mixed else dtype.itemsize
    text = model.config.get_text_config()
    return choose_tokens(device, taken, activation_bytes(text, size, config.model.gradient_checkpointing))


def with_tokens(config: TrainConfig, tokens: int) -> TrainConfig:
    """The recipe with this number for `training.tokens_per_microbatch`, so that `training.budget` may be asked."""
    training = config.training.model_copy(update={"tokens_per_microbatch": tokens})
    return config.model_copy(update={"training": training})
