"""What a device's memory holds beside a model that is trained."""

from __future__ import annotations

import os
from typing import Any

import torch

SHARE_FOR_ROWS = 0.7
"""Of what weights, gradients, moments and copies of weights leave, for keys and values. Logits take some in sampling."""


def memory_of(device: torch.device) -> int:
    """Bytes that a device has, whoever uses them now: what is chosen by them has to be the same in the next run."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def training_bytes(model: Any, size: int) -> int:
    """Weights of this many bytes each. Those that are trained have a gradient and two moments as well."""
    return sum(each.numel() * (4 if each.requires_grad else 1) for each in model.parameters()) * size


def cached_bytes(text: Any, size: int) -> int:
    """Keys and values of a token, in numbers of this many bytes.

    Args:
        text: the configuration of a transformers language model.
        size: bytes of a number.
    """
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * heads * width * size


def rows_that_fit(device: torch.device, model: Any, size: int, bytes_per_row: int) -> int:
    """Rows whose keys and values have room at once beside a model that is trained there, and at least 1.

    On CUDA copies of the weights in bfloat16 lie there too: those of autocast, or of `FlashStep`.

    Args:
        device: where they are sampled.
        model: whose weights, gradients and moments lie there, in numbers of `size` bytes.
        size: bytes of a number.
        bytes_per_row: of the longest row's keys and values.
    """
    copies = 0 if device.type != "cuda" else sum(each.numel() for each in model.parameters()) * torch.bfloat16.itemsize
    free = max(0, memory_of(device) - training_bytes(model, size) - copies)
    return max(1, int(SHARE_FOR_ROWS * free) // bytes_per_row)
