import math

import pytest
import torch

from lampo.config.schema import OptimizerOptions
from lampo.learner.optimizer import Optimizer, learning_rate
from lampo.model.policy import Policy
from lampo.types import NotFinite


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
