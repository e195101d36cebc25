"""The kernels of a decode step beside their versions in torch: interpreted on a CPU, compiled where there is a GPU."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from ..helpers import decode_kernels as expected

pytestmark = pytest.mark.usefixtures("on_device")


@pytest.fixture
def kernels(module_of_kernels: Callable[[str], ModuleType]) -> ModuleType:
    return module_of_kernels("decode_kernels")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("width", [64, 72, 2048])
def test_add_norm(kernels: ModuleType, width: int, adds: bool, dtype: torch.dtype) -> None:
    states, added, weight = torch.randn(5, width, dtype=dtype), torch.randn(5, width).bfloat16(), torch.rand(width)
    other = states.clone()
    norms = [
        module.add_norm(each, added if adds else None, weight, 1e-6)
        for module, each in ((kernels, states), (expected, other))
    ]
    torch.testing.assert_close(*norms, rtol=0.01, atol=0.01)
    torch.testing.assert_close(states, other, rtol=2**-7, atol=0)  # the interpreter cuts bfloat16 off, a GPU rounds


def test_gate(kernels: ModuleType) -> None:
    both = torch.randn(3, 2 * 1500).bfloat16()
    torch.testing.assert_close(kernels.gate(both), expected.gate(both), rtol=0.01, atol=0.01)


@pytest.mark.parametrize(
    ("heads", "shared", "width", "turned", "norms"),
    [
        (4, 2, 16, 16, True),
        (3, 1, 24, 18, False),
        (4, 4, 32, 32, False),
        (16, 8, 128, 128, True),
        (24, 8, 128, 96, False),
    ],
)
def test_turn_and_attend(kernels: ModuleType, heads: int, shared: int, width: int, turned: int, norms: bool) -> None:
    begins = torch.tensor([0, 32, 100, 160, 199], dtype=torch.int32)
    lengths = torch.tensor([3, 67, 0, 20, 0], dtype=torch.int32)
    qkv = torch.randn(5, heads + 2 * shared, width).bfloat16()
    turns = torch.randn(100, turned), torch.randn(100, turned)
    norm = (torch.rand(2, width), 1e-6) if norms else None
    keys, values = (torch.randn(200, shared, width).bfloat16() for _ in range(2))
    others = keys.clone(), values.clone()
    query = kernels.turn(qkv, keys, values, begins, lengths, turns, norm)
    torch.testing.assert_close(query, expected.turn(qkv, *others, begins, lengths, turns, norm), rtol=0.02, atol=0.02)
    torch.testing.assert_close((keys, values), others, rtol=0.02, atol=0.02)
    if query.device.type == "cpu":  # products of bfloat16 are not interpreted
        query, keys, values = query.float(), keys.float(), values.float()
    arguments = query, keys, values, begins, lengths, width**-0.5
    torch.testing.assert_close(kernels.attend(*arguments), expected.attend(*arguments), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("vocabulary", [40, 5000, 151_936])
def test_draw(kernels: ModuleType, vocabulary: int, temperature: float) -> None:
    logits, uniforms = 3 * torch.randn(16, vocabulary), torch.rand(16, dtype=torch.float64)
    logits[:, ::3] = -torch.inf  # never drawn
    uniforms[:3] = torch.tensor([0.0, 1 - 1e-12, 0.5], dtype=torch.float64)
    (tokens, logprobs), (theirs, others) = (
        module.draw(logits, uniforms, temperature) for module in (kernels, expected)
    )
    assert (tokens == theirs).float().mean() >= 0.9  # sums of blocks round otherwise
    assert logprobs.isfinite().all()
    torch.testing.assert_close(logprobs[tokens == theirs], others[tokens == theirs], rtol=0, atol=1e-4)
