from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lampo.learner import budget
from lampo.learner.budget import activation_bytes, choose_tokens, tokens_per_microbatch
from lampo.model.memory import memory_of
from lampo.model.pretrained import empty_model

from ...helpers.small_run import small_config

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GIB = 2**30


@pytest.mark.parametrize(
    ("device", "threads", "memory", "taken", "per_token", "expected"),
    [
        (CPU, 1, 24 * GIB, 0, 1000, 1024),
        (CPU, 2, 24 * GIB, 0, 1000, 1024),
        (CPU, 16, 24 * GIB, 0, 1000, 16 * 512),
        (CPU, 16, 24 * GIB, 8 * GIB, 2**20, 16 * GIB // 4 // 2**20),  # a quarter of what is left, and it is less
        (CPU, 1, 24 * GIB, 23 * GIB, 2**20, 256),
        (CPU, 1, 24 * GIB, 30 * GIB, 2**20, 256),  # nothing is left
        (CUDA, 1, 80 * GIB, 0, 1000, 32_768),
        (
            CUDA,
            1,
            80 * GIB,
            27 * GIB,
            2_750_000,
            53 * GIB // 4 // 2_750_000 // 256 * 256,
        ),  # Qwen3-1.7B on an H100: 5,120
    ],
)
def test_the_choice_by_hand(
    device: torch.device, threads: int, memory: int, taken: int, per_token: int, expected: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr(budget, "memory_of", lambda _: memory)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert choose_tokens(device, taken, per_token) == expected


def test_a_written_number_wins_and_auto_is_the_machine_s(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    model, _ = empty_model(config.model)
    assert tokens_per_microbatch(model, config) == 100
    config = small_config(tmp_path, "training.tokens_per_microbatch=auto")
    assert tokens_per_microbatch(model, config) == max(1024, 512 * torch.get_num_threads())
    assert memory_of(CPU) > GIB


def test_activations_by_hand() -> None:
    text: Any = SimpleNamespace(
        num_hidden_layers=3, hidden_size=8, num_attention_heads=2, num_key_value_heads=1, intermediate_size=20
    )
    layer = 6 * 8 + 3 * (2 + 2 * 1) * 4 + 4 * 20
    assert activation_bytes(text, 2, False) == 3 * layer * 2
    assert activation_bytes(text, 2, True) == (3 * 8 + layer) * 2
