"""Layers of the real kernels: on a GPU as a recipe has them, else interpreted, with torch's attention in plain arithmetic."""

import pytest
import torch

from lampo.model import trials, varlen_attention
from lampo.model.policy import Policy

from ..conftest import TINY, tiny_options
from ..helpers import flash
from ..unit.model.test_decode_step import KINDS, random_policy

TAKEN = [kind for kind in KINDS if kind != "llama, all biases"]
ON_CUDA = torch.cuda.is_available()


@pytest.mark.skipif(ON_CUDA, reason="a GPU runs the kernels themselves")
@pytest.mark.usefixtures("module_of_kernels")
@pytest.mark.parametrize("dtype", ["mixed", "bfloat16"])
@pytest.mark.parametrize("kind", TAKEN)
def test_interpreted_layers_pass_the_trial(kind: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = random_policy(KINDS[kind], dtype=dtype)
    assert policy.layout == "packed"
    monkeypatch.setattr(varlen_attention, "KERNEL", flash.forward)
    monkeypatch.setattr(varlen_attention, "KERNEL_BACKWARD", flash.backward)
    assert trials.learns_by_flash(policy), policy.slower
    assert trials.scores_by_kernels(policy), policy.slower


@pytest.mark.skipif(not ON_CUDA, reason="there is no GPU")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", ["mixed", "bfloat16"])
@pytest.mark.parametrize("kind", TAKEN)
def test_a_policy_on_a_gpu_has_them(kind: str, dtype: str, checkpointing: bool) -> None:
    options = tiny_options(device="cuda", dtype=dtype, gradient_checkpointing=checkpointing)
    policy = Policy.load(options.model_copy(update={"config": TINY | KINDS[kind]}), seed=3)
    assert policy.layout == "packed"
    assert all(type(layer).__name__.startswith("Flash") for layer in policy.core.model.layers), policy.slower
    assert policy._kernels_of_scores is not None, policy.slower
    assert not policy.slower
