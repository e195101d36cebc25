"""Layers in few kernels are as exact as transformers' own in bfloat16. Here kernels are in torch, and `tests/triton` has the real ones."""

import copy
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lampo.config.schema import LoraOptions
from lampo.model import flash_layer, trials, varlen_attention
from lampo.model.logprobs import linear_logprobs
from lampo.model.policy import Policy

from ...helpers import decode_kernels, flash, update_kernels
from ...helpers.kept import kept_storages
from .test_decode_step import KINDS, random_policy
from .test_packing import make_batch

TAKEN = [kind for kind in KINDS if kind != "llama, all biases"]


@pytest.fixture(autouse=True)
def kernels_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in (("decode_kernels", decode_kernels), ("update_kernels", update_kernels)):
        monkeypatch.setitem(sys.modules, f"lampo.model.{name}", module)
        monkeypatch.setattr(f"lampo.model.{name}", module, raising=False)
    monkeypatch.setattr(varlen_attention, "KERNEL", flash.forward)
    monkeypatch.setattr(varlen_attention, "KERNEL_BACKWARD", flash.backward)


def is_flash(policy: Policy) -> bool:
    return all(type(layer).__name__.startswith("Flash") for layer in policy.core.model.layers)


def make_policy(kind: str, **options: Any) -> Policy:
    """One that packs, on a CPU, in transformers' own layers. Adapters are no zeros, and each adds to its own part of a product."""
    policy = random_policy(KINDS[kind], **{"dtype": "mixed"} | options)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    assert policy.layout == "packed"
    assert policy.device.type == "cpu"
    return policy


def learn(policy: Policy) -> tuple[Tensor, dict[str, Tensor], int]:
    """Log-probabilities, gradients, and bytes kept between the two passes, weights left out."""
    with kept_storages(policy.model) as kept:
        logprobs_NT, _ = policy.token_logprobs(make_batch(), temperature=0.9)
    parameters = policy.trainable_parameters()
    weights_T = torch.arange(1.0, 1 + logprobs_NT.shape[1])
    gradients = torch.autograd.grad((logprobs_NT * weights_T).sum(), list(parameters.values()))
    return logprobs_NT.detach(), dict(zip(parameters, gradients, strict=True)), sum(kept.values())


def exact(policy: Policy) -> tuple[Tensor, dict[str, Tensor]]:
    """By the same weights in float64, in transformers' own layers."""
    other = copy.copy(policy)
    other.model, other._autocast = copy.deepcopy(policy.model).double(), False
    other.head = other.core.get_output_embeddings()
    return learn(other)[:2]


def errors(found: tuple[Tensor, dict[str, Tensor]], wanted: tuple[Tensor, dict[str, Tensor]]) -> dict[str, float]:
    """The distance of each gradient, as a share of its norm, and of the log-probs."""
    names = {name: (found[1][name], each) for name, each in wanted[1].items() if not name.endswith("k_proj.bias")}
    names["log-probs"] = (
        found[0],
        wanted[0],
    )  # a bias of keys moves them all alike, so its gradient is nothing but rounding
    return {name: float((each.double() - other).norm() / other.norm()) for name, (each, other) in names.items()}


def check_exactness(policy: Policy, *, most: float = 1.3, slack: float = 5e-3) -> None:
    """The errors against float64 are at most so many times those of transformers' own layers, in each gradient and in all."""
    wanted = exact(policy)
    own = errors(learn(policy)[:2], wanted)
    assert flash_layer.takes(policy.backbone)
    flash_layer.make_flash(policy.backbone)
    found = errors(learn(policy)[:2], wanted)
    assert found["log-probs"] < 1.2 * own["log-probs"] + 1e-3
    for name, error in found.items():
        assert error < most * own[name] + slack, name
    assert sum(found.values()) < most * sum(own.values()) + slack


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", ["mixed", "bfloat16"])
@pytest.mark.parametrize("kind", TAKEN)
def test_they_are_as_exact_as_transformers_own(kind: str, dtype: str, checkpointing: bool) -> None:
    check_exactness(make_policy(kind, dtype=dtype, gradient_checkpointing=checkpointing))


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj", "up_proj", "down_proj"]])
@pytest.mark.parametrize("dtype", ["mixed", "bfloat16"])
@pytest.mark.parametrize("kind", ["qwen3", "qwen2, with biases", "phi-4-mini"])
def test_so_they_are_with_adapters(kind: str, dtype: str, targets: str | list[str]) -> None:
    pytest.importorskip("peft")
    if kind == "phi-4-mini" and targets != "all-linear":
        targets = ["qkv_proj", "gate_up_proj"]
    lora = LoraOptions(rank=2, alpha=3, target_modules=targets)
    policy = make_policy(kind, dtype=dtype, lora=lora, gradient_checkpointing=True)
    assert all("lora" in name for name in policy.trainable_parameters())
    # few numbers each, so that rounding does not even out; and beside bfloat16 weights PEFT computes adapters in float32
    check_exactness(policy, most=2 if dtype == "mixed" else 3, slack=1e-2)


@pytest.mark.parametrize("dtype", ["mixed", "bfloat16"])
@pytest.mark.parametrize("kind", ["qwen3", "phi-4-mini"])
def test_they_keep_less_and_with_checkpointing_their_input_alone(kind: str, dtype: str) -> None:
    policy = make_policy(kind, dtype=dtype)
    *_, own = learn(policy)
    flash_layer.make_flash(policy.backbone)
    logprobs_NT, gradients, kept = learn(policy)
    assert kept < 0.85 * own
    for layer in policy.core.model.layers:
        layer.gradient_checkpointing = True
    other_NT, others, few = learn(policy)
    assert torch.equal(logprobs_NT, other_NT)
    assert all(torch.equal(gradient, others[name]) for name, gradient in gradients.items())
    assert few < 0.5 * kept


def test_without_a_packing_they_are_transformers_own() -> None:
    policy, ids = make_policy("qwen3"), torch.tensor([[3, 4, 5]])
    with torch.no_grad(), policy.precision():
        expected = policy.hidden_states(ids)
        flash_layer.make_flash(policy.backbone)
        assert torch.equal(policy.hidden_states(ids), expected)


def test_other_layers_are_not_taken() -> None:
    policy = random_policy(KINDS["llama, all biases"], dtype="mixed")
    assert not trials.learns_by_flash(policy)
    assert not is_flash(policy)
    assert not policy.slower


@pytest.mark.parametrize("kind", TAKEN)
@pytest.mark.parametrize("lora", [None, LoraOptions(rank=2, alpha=2)])
def test_a_trial_takes_them_where_their_gradient_is_the_model_s(kind: str, lora: LoraOptions | None) -> None:
    if lora is not None:
        pytest.importorskip("peft")
    policy = make_policy(kind, lora=lora, gradient_checkpointing=True)
    assert trials.learns_by_flash(policy)
    assert trials.scores_by_kernels(policy)
    assert is_flash(policy)
    assert not policy.slower
    assert all(each.grad is None for each in policy.model.parameters())


def test_a_deep_model_of_random_weights_is_tried_in_one_layer() -> None:
    """Its token 0 is padding with an embedding of 0, by which the gradient through all layers is no number."""
    changes = KINDS["qwen3"] | {"hidden_size": 256, "num_hidden_layers": 28, "max_window_layers": 28}
    policy = random_policy(changes, dtype="mixed")
    assert trials.learns_by_flash(policy), policy.slower
    assert is_flash(policy)
    assert len(policy.backbone.layers) == 28


def spoiled(name: str, which: int) -> Callable[..., tuple[Tensor, ...]]:
    """A kernel one of whose results is half as large again."""
    right = getattr(update_kernels, name)

    def kernel(*given: Any) -> tuple[Tensor, ...]:
        return tuple(1.5 * each if place == which else each for place, each in enumerate(right(*given)))

    return kernel


@pytest.mark.parametrize("wrong", [("gate_back", 0), ("gate_back", 1), ("norm_back", 0), ("norm_back", 1), None])
def test_kernels_that_fail_are_told(wrong: tuple[str, int] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, told = make_policy("qwen3"), list[str]()
    if wrong is None:
        monkeypatch.setitem(sys.modules, "lampo.model.update_kernels", None)
        monkeypatch.delattr("lampo.model.update_kernels")
    else:
        monkeypatch.setattr(update_kernels, wrong[0], spoiled(*wrong))
        monkeypatch.setattr(update_kernels, "score_back", lambda logits, *_: logits)
    before = learn(policy)[0]
    assert not trials.learns_by_flash(policy)
    assert not trials.scores_by_kernels(policy)
    assert not is_flash(policy)
    assert torch.equal(learn(policy)[0], before)
    policy.tell_slower(told.append)
    policy.tell_slower(told.append)
    assert [each.split(",")[0] for each in told] == [
        "Updates take transformers' own layers",
        "Log-probabilities take torch's operations",
    ]
    assert all(each.endswith("they give other numbers") or "ModuleNotFoundError" in each for each in told)


def test_a_model_whose_own_layers_fail_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy("qwen3")

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("no memory is left")

    monkeypatch.setattr(policy, "packed_states", full)
    assert not trials.learns_by_flash(policy)
    assert len(policy.backbone.layers) == 2
    assert "OutOfMemoryError: no memory is left" in policy.slower[0]


@pytest.mark.parametrize("with_bias", [False, True])
def test_scores_by_kernels_are_those_of_torch_s_operations(with_bias: bool) -> None:
    torch.manual_seed(0)
    states, weight = torch.randn(23, 16, requires_grad=True), torch.randn(40, 16, requires_grad=True)
    bias = torch.randn(40, requires_grad=True) if with_bias else None
    inputs = [each for each in (states, weight, bias) if each is not None]
    targets, upstream = torch.randint(0, 40, (23,)), torch.randn(23)
    found = []
    for kernels in (update_kernels, None):
        options: Any = {"temperature": 0.7, "dtype": torch.bfloat16, "kernels": kernels}
        logprobs, entropies = linear_logprobs(states, weight, bias, targets, **options)
        grads = torch.autograd.grad((logprobs * upstream).sum(), inputs)
        found.append((logprobs, entropies, *grads))
    for each, other in zip(*found, strict=True):
        torch.testing.assert_close(each, other, rtol=2e-2, atol=2e-2)
    assert not found[0][1].requires_grad
