import importlib.util
import math

import pytest
import torch

from lampo.config.schema import OptimizerOptions, TrainConfig
from lampo.learner.optimizer import Optimizer, learning_rate, refuse
from lampo.model.policy import Policy
from lampo.types import LampoError, NotFinite

from ...conftest import ARCHITECTURES, TINY, tiny_options


def test_cosine_ends_at_zero_and_warmup_is_linear() -> None:
    options = OptimizerOptions(learning_rate=2.0, schedule="cosine", warmup_steps=4)
    rates = [learning_rate(step, 12, options) for step in range(1, 13)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[7] == pytest.approx(2.0 * 0.5 * (1 + math.cos(math.pi * 4 / 8)))
    assert rates[-1] == pytest.approx(0.0)


def fill_gradients(policy: Policy, value: float) -> None:
    for parameter in policy.trainable_parameters().values():
        parameter.grad = torch.full_like(parameter, value)


def test_gradient_is_clipped_to_its_norm_and_cleared(policy: Policy) -> None:
    optimizer = Optimizer(policy, OptimizerOptions(learning_rate=1e-3, max_gradient_norm=1.0), 10)
    fill_gradients(policy, 2.0)
    count = sum(parameter.numel() for parameter in policy.trainable_parameters().values())
    record = optimizer.step(1)
    assert record["optimizer/gradient_norm"] == pytest.approx(2.0 * math.sqrt(count), rel=1e-5)
    assert all(parameter.grad is None for parameter in policy.trainable_parameters().values())


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone_and_says_which_it_is(policy: Policy) -> None:
    optimizer = Optimizer(policy, OptimizerOptions(learning_rate=1e-3), 10)
    weights = policy.trainable_parameters()
    before = {name: parameter.detach().clone() for name, parameter in weights.items()}
    first, second, *_, untouched = weights
    fill_gradients(policy, 1.0)
    weights[untouched].grad = None
    for name in (first, second):
        weights[name].grad.view(-1)[0] = float("nan")  # pyright: ignore
    message = rf"not finite: that of 2 of {len(weights) - 1} weights, last in the model {second}\."
    with pytest.raises(NotFinite, match=message):
        optimizer.step(1)
    fill_gradients(policy, 1e30)
    with pytest.raises(NotFinite, match="its norm is not finite"):
        optimizer.step(1)
    assert all(torch.equal(before[name], parameter) for name, parameter in weights.items())


def test_state_goes_round(policy: Policy) -> None:
    options = OptimizerOptions(learning_rate=1e-3)
    first = Optimizer(policy, options, 10)
    fill_gradients(policy, 1.0)
    first.step(1)
    second = Optimizer(policy, options, 10)
    second.load_state({name: value.clone() for name, value in first.state().items()})
    assert first.state().keys() == second.state().keys()
    assert {name.rpartition("/")[2] for name in first.state()} == {"exp_avg", "exp_avg_sq", "step"}

    weights = {name: parameter.detach().clone() for name, parameter in policy.trainable_parameters().items()}
    results = []
    for optimizer in (first, second):
        with torch.no_grad():
            for name, parameter in policy.trainable_parameters().items():
                parameter.copy_(weights[name])
        fill_gradients(policy, -0.5)
        optimizer.step(2)
        results.append({name: parameter.detach().clone() for name, parameter in policy.trainable_parameters().items()})
    assert all(torch.equal(results[0][name], results[1][name]) for name in weights)


torchao = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")


@torchao
def test_moments_in_8_bits_move_nearly_as_full_ones_and_go_round() -> None:
    policy = Policy.load(
        tiny_options().model_copy(update={"config": TINY | ARCHITECTURES["qwen3"] | {"intermediate_size": 256}}), seed=3
    )
    start = {name: weight.detach().clone() for name, weight in policy.trainable_parameters().items()}
    torch.manual_seed(0)
    gradients = [{name: torch.randn_like(weight) for name, weight in start.items()} for _ in range(3)]

    def steps(optimizer: Optimizer, chosen: range) -> dict[str, torch.Tensor]:
        for number in chosen:
            for name, parameter in policy.trainable_parameters().items():
                parameter.grad = gradients[number][name].clone()
            optimizer.step(number + 1)
        return {name: weight.detach().clone() for name, weight in policy.trainable_parameters().items()}

    def back_to(weights: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in policy.trainable_parameters().items():
                parameter.copy_(weights[name])

    plain = OptimizerOptions(learning_rate=1e-3, max_gradient_norm=1e9)
    full = steps(Optimizer(policy, plain, 3), range(3))
    back_to(start)
    options = plain.model_copy(update={"eight_bit_moments": True})
    with torch.compiler.set_stance("force_eager"):  # compiling takes half a minute
        optimizer = Optimizer(policy, options, 3)
        middle = steps(optimizer, range(2))
        state = {name: value.clone() for name, value in optimizer.state().items()}
        end = steps(optimizer, range(2, 3))
        back_to(middle)
        again = Optimizer(policy, options, 3)
        again.load_state(state)
        assert all(torch.equal(end[name], weight) for name, weight in steps(again, range(2, 3)).items())
    moved = torch.cat([(full[name] - start[name]).flatten() for name in start])
    differ = torch.cat([(full[name] - end[name]).flatten() for name in start])
    assert 0 < differ.norm() < 0.05 * moved.norm()
    codes = [name for name, value in state.items() if name.endswith("/codes") and value.dtype == torch.uint8]
    assert len(codes) == 2 * sum(weight.numel() >= 4096 for weight in start.values()) > 0  # torchao leaves small ones
    assert not any(name.removesuffix("/codes") in state for name in codes)


def test_moments_in_8_bits_need_torchao(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    config = TrainConfig.model_validate(
        {
            "run": {"name": "x"},
            "model": {"path": "x"},
            "task": {"name": "arithmetic"},
            "optimizer": {"eight_bit_moments": True},
        }
    )
    with pytest.raises(LampoError, match=r"optimizer.eight_bit_moments needs the package torchao.*lampo\[torchao\]"):
        refuse(config)
