"""The kernels of an update beside autograd: interpreted on a CPU, compiled where there is a GPU."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from ..helpers import update_kernels as expected

pytestmark = pytest.mark.usefixtures("on_device")
ROWS = 5


@pytest.fixture
def kernels(module_of_kernels: Callable[[str], ModuleType]) -> ModuleType:
    return module_of_kernels("update_kernels")


@pytest.fixture(params=[2, 512], ids=["rows in turns", "a program each"])
def programs(request: pytest.FixtureRequest, kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "PROGRAMS", request.param)


def check(found: Tensor, wanted: Tensor) -> None:
    """Up to the rounding of what is written; the interpreter cuts bfloat16 off, a GPU rounds."""
    assert found.dtype == wanted.dtype
    exact = found.dtype == torch.float32
    scale = float(wanted.float().abs().max())
    torch.testing.assert_close(found, wanted, rtol=1e-4 if exact else 2**-6, atol=(1e-5 if exact else 2**-8) * scale)


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [64, 72, 2048])
def test_norm_back(kernels: ModuleType, width: int, dtype: torch.dtype) -> None:
    grad, states, beside = torch.randn(3, ROWS, width).unbind()
    given = grad.bfloat16(), 3 * states.to(dtype), torch.rand(width).to(dtype), 1e-2, beside.to(dtype)
    for found, wanted in zip(kernels.norm_back(*given), expected.norm_back(*given), strict=True):
        check(found, wanted)


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
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
def test_turn_rows_and_back(
    kernels: ModuleType, heads: int, shared: int, width: int, turned: int, norms: bool, dtype: torch.dtype
) -> None:
    qkv = torch.randn(ROWS, heads + 2 * shared, width).to(dtype)
    angles = torch.rand(ROWS, turned // 2).repeat(1, 2)
    weights = tuple(torch.rand(2, width).to(dtype)) if norms else ()
    given = qkv, shared, (angles.cos(), angles.sin()), weights, 1e-2
    check(kernels.turn_rows(*given), expected.turn_rows(*given))
    grads: Any = tuple(torch.randn(ROWS, each, width).to(dtype) for each in (heads, shared, shared))
    found, of_norms = kernels.turn_back(grads, *given)
    wanted, of_wanted = expected.turn_back(grads, *given)
    check(found, wanted)
    assert len(of_norms) == len(of_wanted) == 2 * norms
    for each, other in zip(of_norms, of_wanted, strict=True):
        check(each, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gate_back(kernels: ModuleType, dtype: torch.dtype) -> None:
    grad, both = torch.randn(ROWS, 1500).to(dtype), torch.randn(ROWS, 3000).to(dtype)
    for found, wanted in zip(kernels.gate_back(grad, both), expected.gate_back(grad, both), strict=True):
        check(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("width", [50, 4096, 5000])
def test_score_and_back(kernels: ModuleType, width: int, temperature: float, dtype: torch.dtype) -> None:
    logits, targets = (4 * torch.randn(ROWS, width)).to(dtype), torch.randint(0, width, (ROWS,))
    targets[0], targets[1] = 0, width - 1
    scores = expected.score(logits, targets, temperature)
    for found, wanted in zip(kernels.score(logits, targets, temperature), scores, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    grad = torch.randn(ROWS)
    found, wanted = (
        module.score_back(logits.clone(), targets, scores[2], grad, temperature) for module in (kernels, expected)
    )
    check(found, wanted)
