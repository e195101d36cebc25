import importlib.util
import math
import sys

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


@pytest.fixture
def wide() -> Policy:
    """Some of its weights have the 4,096 numbers that torchao keeps in 8 bits."""
    config = TINY | ARCHITECTURES["qwen3"] | {"intermediate_size": 256}
    return Policy.load(tiny_options().model_copy(update={"config": config}), seed=3)


def steps(optimizer: Optimizer, policy: Policy, chosen: range) -> dict[str, torch.Tensor]:
    """The weights after steps with gradients that the step alone decides."""
    for number in chosen:
        generator = torch.Generator().manual_seed(number)
        for parameter in policy.trainable_parameters().values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step(number + 1)
    return copied(policy)


def copied(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in policy.trainable_parameters().items()}


def back_to(policy: Policy, weights: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in policy.trainable_parameters().items():
            parameter.copy_(weights[name])


PLAIN = OptimizerOptions(learning_rate=1e-3, max_gradient_norm=1e9)
EIGHT_BIT = PLAIN.model_copy(update={"eight_bit_moments": True})


@torchao
def test_moments_in_8_bits_move_nearly_as_full_ones_and_go_round(wide: Policy) -> None:
    start = copied(wide)
    full = steps(Optimizer(wide, PLAIN, 3), wide, range(3))
    back_to(wide, start)
    with torch.compiler.set_stance("force_eager"):  # compiling takes half a minute
        optimizer = Optimizer(wide, EIGHT_BIT, 3)
        middle = steps(optimizer, wide, range(2))
        state = {name: value.clone() for name, value in optimizer.state().items()}
        end = steps(optimizer, wide, range(2, 3))
        back_to(wide, middle)
        again = Optimizer(wide, EIGHT_BIT, 3)
        again.load_state(state)
        assert all(torch.equal(end[name], weight) for name, weight in steps(again, wide, range(2, 3)).items())
    assert 0 < distance(full, end) < 0.05 * distance(full, start)
    codes = [name for name, value in state.items() if name.endswith("/codes") and value.dtype == torch.uint8]
    assert len(codes) == 2 * sum(weight.numel() >= 4096 for weight in start.values()) > 0  # torchao leaves small ones
    assert not any(name.removesuffix("/codes") in state for name in codes)


@torchao
@pytest.mark.parametrize(("before", "after"), [(PLAIN, EIGHT_BIT), (EIGHT_BIT, PLAIN)], ids=["to_8_bits", "to_full"])
def test_a_run_goes_on_where_moments_were_kept_in_the_other_way(
    wide: Policy, before: OptimizerOptions, after: OptimizerOptions
) -> None:
    with torch.compiler.set_stance("force_eager"):
        optimizer = Optimizer(wide, before, 4)
        middle = steps(optimizer, wide, range(2))
        state = {name: value.clone() for name, value in optimizer.state().items()}
        end = steps(optimizer, wide, range(2, 4))
        back_to(wide, middle)
        other = Optimizer(wide, after, 4)
        other.load_state(state)
        assert 0 < distance(end, steps(other, wide, range(2, 4))) < 0.05 * distance(end, middle)
        (*_, kept) = (held for held in other.adamw.state.values() if held["exp_avg"].numel() >= 4096)
        assert {key: hasattr(kept[key], "codes") for key in ("exp_avg", "exp_avg_sq")} == dict.fromkeys(
            ("exp_avg", "exp_avg_sq"), after.eight_bit_moments
        )


@torchao
def test_a_moment_is_read_from_its_8_bits_as_torchao_reads_it(wide: Policy) -> None:
    with torch.compiler.set_stance("force_eager"):
        optimizer = Optimizer(wide, EIGHT_BIT, 2)
        steps(optimizer, wide, range(2))
    other = Optimizer(wide, PLAIN, 2)
    other.load_state(optimizer.state())
    for parameter, held in optimizer.adamw.state.items():
        for key in ("exp_avg", "exp_avg_sq"):
            expected = held[key].dequantize() if hasattr(held[key], "codes") else held[key]
            assert torch.equal(other.adamw.state[parameter][key], expected)


def test_moments_in_8_bits_are_read_without_torchao(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was begun where it is installed goes on where it is not, with whole moments."""
    monkeypatch.setitem(sys.modules, "torchao", None)
    name, parameter = next(iter(policy.trainable_parameters().items()))
    numbers = torch.linspace(-1, 1, 256)
    blocks = torch.tensor([2.0, 3.0])
    codes = torch.arange(parameter.numel()).remainder(256).to(torch.uint8).view(parameter.shape)
    optimizer = Optimizer(policy, PLAIN, 10)
    optimizer.load_state(
        {
            f"{name}/step": torch.tensor(1.0),
            **{
                f"{name}/{moment}/{part}": value
                for moment in ("exp_avg", "exp_avg_sq")
                for part, value in {"codes": codes, "scale": blocks, "qmap": numbers.abs()}.items()
            },
        }
    )
    half = parameter.numel() // 2
    expected = numbers.abs()[codes.int().flatten()] * torch.cat([2 * torch.ones(half), 3 * torch.ones(half)])
    assert torch.equal(optimizer.adamw.state[parameter]["exp_avg"], expected.view(parameter.shape))
    fill_gradients(policy, 1.0)
    assert optimizer.step(2)["optimizer/gradient_norm"] > 0


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return float(torch.cat([(a[name] - b[name]).flatten() for name in a]).norm())


def test_moments_in_8_bits_need_torchao(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    config = TrainConfig.model_validate(
        {
            "run": {"name": "x"},
            "model": {"path": "x"},
            "task": {"name": "arithmetic"},
            "optimizer": {"eight_bit_moments": True},
        }
    )
    told = r"optimizer.eight_bit_moments needs the package torchao.*lampo\[torchao\]"
    with pytest.raises(LampoError, match=told):
        refuse(config)
    for name in ("torchao", "torchao.optim"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(LampoError, match=told):
        Optimizer(policy, config.optimizer, 1)  # as `lampo signal` makes one
