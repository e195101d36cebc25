"""Layers that keep less give what transformers' own give, to the bit, and leave to them what they are not for."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lampo.config.schema import LoraOptions
from lampo.model.policy import Policy

from ...helpers.kept import kept_storages
from .test_decode_step import KINDS, random_policy
from .test_packing import make_batch

LAYERS = {kind: changes for kind, changes in KINDS.items() if "all biases" not in kind and not kind.startswith("phi")}
LAYERS["qwen3, a window"] = KINDS["qwen3"] | {"sliding_window": 6, "use_sliding_window": True, "max_window_layers": 1}


def is_lean(policy: Policy) -> bool:
    return all(type(layer).__name__.startswith("Lean") for layer in policy.core.model.layers)


def leave_alone(policy: Policy) -> None:
    """The layers are transformers' own again."""
    for layer in policy.core.model.layers:
        layer.__class__ = type(layer).__bases__[1]
    assert not is_lean(policy)


def learn(policy: Policy) -> tuple[Tensor, dict[str, Tensor], int]:
    """Log-probabilities, gradients, and bytes kept between the two passes."""
    with kept_storages(policy.model) as kept:
        logprobs_NT, _ = policy.token_logprobs(make_batch(), temperature=0.9)
    parameters = policy.trainable_parameters()
    weights_T = torch.arange(1.0, 1 + logprobs_NT.shape[1])
    gradients = torch.autograd.grad((logprobs_NT * weights_T).sum(), list(parameters.values()))
    return logprobs_NT.detach(), dict(zip(parameters, gradients, strict=True)), sum(kept.values())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", LAYERS)
def test_values_and_gradients_are_the_layer_s_own(kind: str, dtype: torch.dtype, checkpointing: bool) -> None:
    policy = random_policy(LAYERS[kind], gradient_checkpointing=checkpointing)
    policy.model.to(dtype)
    assert policy.layout == "packed"
    assert is_lean(policy)
    logprobs_NT, gradients, kept = learn(policy)
    leave_alone(policy)
    own_logprobs_NT, own_gradients, own_kept = learn(policy)
    assert torch.equal(logprobs_NT, own_logprobs_NT)
    for name, gradient in own_gradients.items():
        assert gradient.abs().sum() > 0, name
        assert torch.equal(gradients[name], gradient), name
    assert kept == own_kept if checkpointing else kept < 0.7 * own_kept


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        (KINDS["llama, all biases"], {}),
        ({"model_type": "phi3"}, {}),
        (KINDS["qwen3"], {"dtype": "mixed"}),
        (KINDS["qwen3"], {"lora": LoraOptions(rank=2)}),
    ],
)
def test_other_layers_stay_as_they_are(changes: dict[str, object], options: dict[str, Any]) -> None:
    if "lora" in options:
        pytest.importorskip("peft")
    assert not is_lean(random_policy(changes, **options))


def test_a_layer_that_does_something_else_is_not_packed() -> None:
    policy = random_policy(KINDS["llama"])
    policy.core.model.layers[0].mlp.register_forward_hook(lambda _module, _inputs, output: output * 1.5)
    assert policy.layout == "shared"
