"""Our truncated importance weights are verl's (`algorithm.rollout_correction`)."""

from typing import Literal

import pytest
import torch

from lampo.algo.importance import importance_weights

helper = pytest.importorskip(
    "verl.trainer.ppo.rollout_corr_helper", reason="verl is not installed: make test-verl", exc_type=ImportError
)


@pytest.mark.parametrize("spread", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_weights_are_verls(level: Literal["token", "sequence"], spread: float) -> None:
    generator = torch.Generator().manual_seed(0)
    log_ratio_NT = spread * torch.randn(16, 12, generator=generator, dtype=torch.float64)
    mask_NT = torch.arange(12) < torch.randint(1, 13, (16, 1), generator=generator)
    theirs, _ = helper.compute_rollout_correction_weights(
        log_ratio_NT, mask_NT.double(), rollout_is=level, rollout_is_threshold=2.0
    )
    ours = importance_weights(log_ratio_NT, torch.zeros_like(log_ratio_NT), mask_NT, level=level, cap=2.0)
    assert torch.equal(ours, theirs)
