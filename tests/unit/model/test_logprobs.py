import subprocess
import sys

import pytest
import torch
from torch import Tensor

from lampo.model import logprobs as module
from lampo.model.logprobs import linear_logprobs


def plain(
    states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    logits = torch.nn.functional.linear(states, weight, bias) / temperature
    logprobs = logits.log_softmax(-1)
    return logprobs.gather(-1, targets[:, None]).squeeze(-1), -(logprobs.exp() * logprobs).sum(-1)


@pytest.fixture(params=[1, 7, 1000], ids=lambda chunk: f"chunks of {chunk}")
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(module, "LOGITS_PER_CHUNK", request.param * 11)
    return request.param


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_are_those_of_the_plain_softmax(chunk: int, with_bias: bool, temperature: float) -> None:
    torch.manual_seed(0)
    states = torch.randn(23, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(11, dtype=torch.float64, requires_grad=True) if with_bias else None
    targets = torch.randint(0, 11, (23,))
    inputs = [tensor for tensor in (states, weight, bias) if tensor is not None]
    upstream = torch.randn(23, dtype=torch.float64)

    expected, expected_entropy = plain(states, weight, bias, targets, temperature)
    expected_grads = torch.autograd.grad((expected * upstream).sum(), inputs)
    got, entropy = linear_logprobs(states, weight, bias, targets, temperature=temperature)
    grads = torch.autograd.grad((got * upstream).sum(), inputs)

    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(entropy, expected_entropy, rtol=1e-12, atol=1e-12)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-12, atol=1e-12)
    assert not entropy.requires_grad


def test_gradcheck() -> None:
    torch.manual_seed(1)
    states = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 5, 2, 2])
    assert torch.autograd.gradcheck(
        lambda s, w: linear_logprobs(s, w, None, targets, temperature=0.8)[0], (states, weight)
    )


def test_frozen_head_gets_no_gradient() -> None:
    states, weight = torch.randn(4, 3, requires_grad=True), torch.randn(6, 3)
    linear_logprobs(states, weight, None, torch.tensor([0, 5, 2, 2]))[0].sum().backward()
    assert weight.grad is None
    assert states.grad is not None


def test_bfloat16_products_stay_close_and_the_master_gradient_is_float32() -> None:
    torch.manual_seed(2)
    states, weight = torch.randn(64, 16, requires_grad=True), torch.randn(32, 16, requires_grad=True)
    targets = torch.randint(0, 32, (64,))
    logprobs, _ = linear_logprobs(states, weight, None, targets, dtype=torch.bfloat16)
    logprobs.sum().backward()
    assert logprobs.dtype == torch.float32
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    torch.testing.assert_close(logprobs, plain(states, weight, None, targets, 1.0)[0], rtol=0, atol=0.1)


def test_chunks_of_a_bfloat16_head_add_no_error_to_the_gradient_of_its_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against float64: summed in bfloat16, many chunks had three times the error of one."""
    torch.manual_seed(3)
    M, D, V = 4096, 32, 256
    states, weight = torch.randn(M, D).bfloat16(), (torch.randn(V, D) * 3 * D**-0.5).bfloat16()
    targets, upstream = torch.multinomial((states.float() @ weight.float().T).softmax(-1), 1).squeeze(1), torch.randn(M)

    def gradient(dtype: torch.dtype) -> Tensor:
        leaf = weight.to(dtype).requires_grad_()
        logprobs, _ = linear_logprobs(states.to(dtype), leaf, None, targets)
        return torch.autograd.grad((logprobs * upstream).sum(), leaf)[0].double()

    exact, errors = gradient(torch.float64), []
    for chunk in (16, M):
        monkeypatch.setattr(module, "LOGITS_PER_CHUNK", chunk * V)
        errors.append(float((gradient(torch.bfloat16) - exact).norm() / exact.norm()))
    assert errors[0] < 1.2 * errors[1] < 0.02


MEASURE = """
import resource, torch
from lampo.model.logprobs import linear_logprobs
torch.set_num_threads(1)
states = torch.randn(4096, 16, requires_grad=True)
weight = torch.randn(50_000, 16, requires_grad=True)
targets = torch.randint(0, 50_000, (4096,))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
linear_logprobs(states, weight, None, targets)[0].sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_peak_memory_of_a_50k_vocabulary_is_bounded_by_the_chunk() -> None:
    grown_kib = int(subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True).stdout)
    all_logits_kib = 4096 * 50_000 * 4 / 1024
    chunk_kib = module.LOGITS_PER_CHUNK * 4 / 1024
    assert grown_kib < 4 * chunk_kib < all_logits_kib
