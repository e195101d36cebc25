"""CUDA's way with packed rows, by kernels in plain arithmetic on the CPU. What they take for granted stands in tests/helpers/flash.py."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lampo.config.schema import ModelOptions
from lampo.model import policy as policy_module
from lampo.model import varlen_attention
from lampo.model.packing import Packing
from lampo.model.policy import Policy
from lampo.model.varlen_attention import VarlenAttention

from ...conftest import ARCHITECTURES, CHARACTERS, TINY
from ...helpers import flash
from .test_packing import SHAPES, make_batch, plain_attention

Shapes = list[tuple[int, list[int]]]
BATCHES: dict[str, Shapes] = {
    "families of all kinds": SHAPES,
    "no family": [(9, [3]), (1, [1]), (4, [7]), (2, [1])],
    "one family": [(9, [3, 5, 1])],
    "one query of each family": [(9, [2, 1]), (4, [1, 2])],
    "completions of one token": [(9, [1, 1]), (4, [1, 1, 1])],
    "the last family has no queries": [(3, [4, 4]), (20, [1, 1])],
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Packed rows attend as on CUDA, in transformers' own layers; and the kernels that they called."""
    called = list[str]()

    def watched(name: str, kernel: Any) -> Any:
        return lambda *arguments, **settings: (called.append(name), kernel(*arguments, **settings))[1]

    def attend(packing: Packing, query: Tensor, key: Tensor, value: Tensor, scale: float, _: int | None) -> Any:
        return VarlenAttention.apply(query, key, value, packing, scale)

    monkeypatch.setattr(varlen_attention, "KERNEL", watched("forward", flash.forward))
    monkeypatch.setattr(varlen_attention, "KERNEL_BACKWARD", watched("backward", flash.backward))
    monkeypatch.setattr(Packing, "attend", attend)
    monkeypatch.setattr(policy_module, "takes", lambda _: False)
    return called


def calls_a_layer(shapes: Shapes) -> int:
    """One more where a completion of several goes on behind its first token, whatever the number of families."""
    return 1 + any(len(completions) > 1 and max(completions) > 1 for _, completions in shapes)


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("shapes", BATCHES.values(), ids=BATCHES)
def test_attention_is_that_of_one_matrix_of_who_sees_whom(
    shapes: Shapes, heads: tuple[int, int], calls: list[str]
) -> None:
    packing = Packing.of(make_batch(shapes))
    generator = torch.Generator().manual_seed(1)
    # as a model has them: the numbers of a token side by side, and its queries before its keys and values
    qkv = torch.randn(
        len(packing.ids), heads[0] + 2 * heads[1], 8, dtype=torch.float64, generator=generator, requires_grad=True
    )
    query, key, value = qkv.split([heads[0], heads[1], heads[1]], 1)
    upstream = torch.randn(query.shape, dtype=torch.float64, generator=generator)
    out = packing.attend(query, key, value, 8**-0.5, None)
    expected = plain_attention(query, key, value, packing, None)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    got, wanted = (torch.autograd.grad((each * upstream).sum(), qkv)[0] for each in (out, expected))
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    assert sorted(calls) == sorted(["forward", "backward"] * calls_a_layer(shapes))


def check_bfloat16(shapes: Shapes, device: str) -> None:
    batch = make_batch(shapes)
    here, packing = Packing.of(batch), Packing.of(batch.to(torch.device(device)))
    generator = torch.Generator().manual_seed(1)
    exact = torch.randn(len(here.ids), 8, 16, generator=generator, requires_grad=True)
    rounded = exact.detach().to(device, torch.bfloat16).requires_grad_()
    upstream = torch.randn(len(here.ids), 4, 16, generator=generator)
    query, key, value = rounded.split([4, 2, 2], 1)
    out = packing.attend(query, key, value, 0.25, None)
    query, key, value = exact.split([4, 2, 2], 1)
    expected = plain_attention(query, key, value, here, None)
    assert out.dtype == torch.bfloat16
    assert (out.cpu() - expected).norm() < 0.02 * expected.norm()
    (got,) = torch.autograd.grad(out, rounded, upstream.to(device, torch.bfloat16))
    (wanted,) = torch.autograd.grad(expected, exact, upstream)
    assert (got.cpu() - wanted).norm() < 0.02 * wanted.norm()


def test_bfloat16_is_as_near_as_its_rounding(calls: list[str]) -> None:
    check_bfloat16(SHAPES, "cpu")
    assert len(calls) == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("shapes", BATCHES.values(), ids=BATCHES)
def test_the_kernels_of_the_card_are_as_near(shapes: Shapes) -> None:
    check_bfloat16(shapes, "cuda")


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("architecture", ["qwen3-tied", "phi-4-mini"])
@pytest.mark.parametrize("shapes", BATCHES.values(), ids=BATCHES)
def test_logprobs_and_gradients_are_those_of_rows_alone(
    shapes: Shapes, architecture: str, checkpointing: bool, calls: list[str]
) -> None:
    config = TINY | ARCHITECTURES[architecture]
    options = ModelOptions(config=config, characters=CHARACTERS, device="cpu", gradient_checkpointing=checkpointing)
    policy, batch, found = Policy.load(options, seed=3), make_batch(shapes), []
    policy.model.double()
    assert policy.layout == "packed"
    calls.clear()
    for layout in ("packed", "rows"):
        policy.layout = layout
        logprobs_NT, _ = policy.token_logprobs(batch, temperature=0.9)
        policy.model.zero_grad()
        (logprobs_NT * torch.arange(1.0, 1 + logprobs_NT.shape[1])).sum().backward()
        found.append((logprobs_NT, {name: each.grad for name, each in policy.trainable_parameters().items()}))
    times = config["num_hidden_layers"] * calls_a_layer(shapes)
    assert (calls.count("forward"), calls.count("backward")) == (times * (1 + checkpointing), times)
    (packed_NT, packed), (rows_NT, rows) = found
    torch.testing.assert_close(packed_NT, rows_NT, rtol=1e-5, atol=1e-6)
    for name, gradient in rows.items():
        # norms round to float32 in a double model too
        torch.testing.assert_close(packed[name], gradient, rtol=1e-5, atol=1e-6 * float(gradient.abs().max()))


WINDOW = {"use_sliding_window": True, "max_window_layers": 1}


def on_cuda(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Policy:
    """A policy on the CPU that takes itself to be on CUDA."""
    config = TINY | ARCHITECTURES["qwen3"] | options.pop("config", {})
    policy = Policy.load(ModelOptions(config=config, characters=CHARACTERS, device="cpu", **options), seed=3)
    policy.device = torch.device("cuda")
    there = Packing.example
    monkeypatch.setattr(Packing, "example", lambda _, first: there(torch.device("cpu"), first))
    return policy


@pytest.mark.parametrize(
    ("options", "layout"),
    [
        ({"dtype": "bfloat16"}, "packed"),
        ({"dtype": "bfloat16", "gradient_checkpointing": True}, "packed"),
        ({"dtype": "float32"}, "shared"),
        ({"dtype": "float32", "gradient_checkpointing": True}, "rows"),
        ({"dtype": "bfloat16", "attention": "eager"}, "shared"),
        ({"dtype": "bfloat16", "config": {"head_dim": 12}}, "shared"),  # the kernel refuses it
        ({"dtype": "bfloat16", "config": WINDOW | {"sliding_window": 16}}, "rows"),
        ({"dtype": "bfloat16", "config": WINDOW | {"sliding_window": 512}}, "packed"),  # no row passes it
    ],
)
def test_rows_are_packed_on_cuda_in_bfloat16_where_the_kernel_can(
    options: dict[str, Any], layout: str, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = on_cuda(options, monkeypatch)
    assert policy.layout == layout
    assert not policy.model.training


def test_a_kernel_that_gives_something_else_is_not_taken(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: Any, **settings: Any) -> tuple[Tensor, ...]:
        out, *others = flash.forward(*arguments, **settings)
        return 0.5 * out, *others

    monkeypatch.setattr(varlen_attention, "KERNEL", wrong)
    assert on_cuda({"dtype": "bfloat16"}, monkeypatch).layout == "shared"
