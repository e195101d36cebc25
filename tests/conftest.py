"""Threads are pinned before torch is imported: spinning OpenMP threads on a busy core are many times slower than one."""
# ruff: noqa: E402

import os
import signal

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", TOKENIZERS_PARALLELISM="false")
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that wants the network is a mistake

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as under nohup: what the tests start would inherit it, and no Ctrl-C would reach it
    signal.signal(signal.SIGINT, signal.default_int_handler)

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

from lampo.config.schema import ModelOptions
from lampo.model.policy import Policy

CHARACTERS = "0123456789+=\n abcdefghijklmnopqrstuvwxyz#.?"

TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}

# The architectures of the paper in miniature: Qwen3, and Phi-3, the class that Phi-4-mini loads as. Of each of its heads a quarter is
# not turned, longrope's factors change after 128 positions, and no row passes its window.
ARCHITECTURES = {
    "qwen3": {"model_type": "qwen3", "head_dim": 8, "tie_word_embeddings": False},
    "qwen3-tied": {"model_type": "qwen3", "head_dim": 8, "tie_word_embeddings": True},
    "phi3": {"model_type": "phi3", "tie_word_embeddings": False},
    "phi-4-mini": {
        "model_type": "phi3",
        "tie_word_embeddings": True,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 128,
        "sliding_window": 8192,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0, 1.1, 1.3],
            "long_factor": [1.0, 4.0, 8.0],
        },
    },
}


def tiny_options(architecture: str = "qwen3-tied", **changes: object) -> ModelOptions:
    """A model of a few thousand parameters with a character tokenizer."""
    return ModelOptions(config=TINY | ARCHITECTURES[architecture], characters=CHARACTERS, **changes)  # pyright: ignore


def sharpen(policy: Policy, factor: float = 4.0) -> Policy:
    """Random weights give nearly uniform tokens; larger ones give distributions that differ, and more tokens end a text."""
    with torch.no_grad():
        for parameter in policy.core.get_output_embeddings().parameters():
            parameter.mul_(factor)
    policy.end_ids = list(range(1, len(policy.tokenizer), 8))
    return policy


@pytest.fixture(params=list(ARCHITECTURES))
def any_policy(request: pytest.FixtureRequest) -> Policy:
    return sharpen(Policy.load(tiny_options(request.param), seed=3))


@pytest.fixture
def policy() -> Policy:
    return sharpen(Policy.load(tiny_options(), seed=3))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the third-party data sets are not beside this repository")
    return folder
