import pytest
import torch

from lampo.signal import sketch as module
from lampo.signal.sketch import GradientSketch

SHAPES = [(300, 9), (128,), (1,), (64, 64)]


def gradients(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def flat(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([part.reshape(-1) for part in parts])


def test_inner_products_are_unbiased_and_as_exact_as_said() -> None:
    x = gradients(0)
    y = [a + b for a, b in zip(x, gradients(1), strict=True)]
    exact, width = float(flat(x) @ flat(y)), 256
    found = []
    for seed in range(400):
        sketch = GradientSketch(x, width=width, seed=seed)
        found.append(float(sketch(x)[0] @ sketch(y)[0]))
    values = torch.tensor(found)
    variance = float((flat(x).norm() ** 2 * flat(y).norm() ** 2 + exact**2) / width)
    assert float(values.mean()) == pytest.approx(exact, abs=4 * (variance / len(found)) ** 0.5)
    assert float(values.var()) < 1.2 * variance


def test_entries_of_one_block_never_meet() -> None:
    x, y = gradients(0), gradients(1)
    sketch = GradientSketch(x, width=8192, seed=0)  # wider than all
    assert float(sketch(x)[0] @ sketch(y)[0]) == pytest.approx(float(flat(x) @ flat(y)), rel=1e-4)


def test_the_scale_multiplies_the_entries() -> None:
    x, scale = gradients(0), flat(gradients(2))
    parts = [part.view(shape) for part, shape in zip(scale.split([t.numel() for t in x]), SHAPES, strict=True)]
    sketch = GradientSketch(x, width=128, seed=0)
    scaled = sketch([a * b for a, b in zip(x, parts, strict=True)])[0]
    torch.testing.assert_close(sketch(x, scale)[1], scaled, rtol=1e-5, atol=1e-4)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, scale = gradients(0), flat(gradients(2))
    whole = GradientSketch(x, width=128, seed=0)(x, scale)
    monkeypatch.setattr(module, "CHUNK", 300)
    for ours, theirs in zip(GradientSketch(x, width=128, seed=0)(x, scale), whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
