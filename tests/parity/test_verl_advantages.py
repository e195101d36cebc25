"""Our advantages beside verl's own functions on the same tensors; verl is not in the extra `dev`."""

import numpy as np
import pytest
import torch

core = pytest.importorskip("verl.trainer.ppo.core_algos", reason="verl is not installed")

from lampo.algo.advantages import otb_advantages, pairwise_advantages  # noqa: E402

P, G, T = 6, 5, 9


@pytest.mark.parametrize("seed", range(5))
def test_otb_and_opo(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards_N = torch.rand(P * G, generator=generator).double()
    mask_NT = torch.arange(T) < torch.randint(1, T + 1, (P * G, 1), generator=generator)
    probabilities_NTV = torch.rand(P * G, T, 8, generator=generator).double().softmax(2)
    logprobs_NT, squares_NT = probabilities_NTV[..., 0].log(), probabilities_NTV.square().sum(2)
    group_ids_N = torch.arange(P).repeat_interleave(G)
    last_N1 = mask_NT.sum(1, keepdim=True) - 1
    rewards_NT = torch.zeros(P * G, T).double().scatter(1, last_N1, rewards_N[:, None])
    given = (rewards_NT, mask_NT.double(), group_ids_N.numpy().astype(np.int64))

    theirs_NT, _ = core.compute_optimal_token_baseline_advantage(
        *given, old_log_probs=logprobs_NT, sum_pi_squared=squares_NT
    )
    ours_NT = otb_advantages(rewards_N, group_ids_N, logprobs_NT, mask_NT, sum_squares_NT=squares_NT)
    torch.testing.assert_close(ours_NT, theirs_NT, rtol=1e-12, atol=1e-12)

    theirs_NT, _ = core.compute_opo_outcome_advantage(*given)
    ours_N = pairwise_advantages(
        rewards_N,
        torch.zeros_like(rewards_N),
        group_ids_N,
        weight="uniform",
        scale="none",
        peer_weights_N=mask_NT.sum(1).double(),
    )
    factor = G / (2 * (G - 1))  # half of every pair, and |V| / (|V| - 1)
    torch.testing.assert_close(
        ours_N[:, None] * mask_NT, factor * theirs_NT, rtol=1e-6, atol=1e-6
    )  # theirs is float32 inside
