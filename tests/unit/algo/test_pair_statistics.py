"""Scores of rollouts, and what is logged of groups, pairs and their scores."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
from typing import Any

import pytest
import torch
from scipy.stats import mannwhitneyu

from lampo.algo.advantages import concordance, group_statistics, groups, pair_statistics, sequence_scores


@pytest.mark.parametrize(("reduce", "expected"), [("mean", [(-1 - 2 - 6) / 3, -4, 0]), ("sum", [-1 - 2 - 6, -4, 0])])
def test_sequence_scores(reduce: Any, expected: list[float]) -> None:
    logprobs_NT = torch.tensor([-1, -2, -6, -4, math.nan, math.inf, math.nan, -math.inf, 7], dtype=torch.float64).view(
        3, 3
    )
    mask_NT = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]])
    for mask in (mask_NT, mask_NT.bool(), mask_NT.float()):
        assert torch.equal(
            sequence_scores(logprobs_NT, mask, reduce=reduce), torch.tensor(expected, dtype=torch.float64)
        )


def test_sequence_scores_of_half_precision_are_summed_in_float32() -> None:
    logprobs_NT = torch.full((1, 1000), -1.0, dtype=torch.bfloat16)
    assert sequence_scores(logprobs_NT, torch.ones(1, 1000), reduce="sum").tolist() == [-1000.0]


def test_sequence_scores_refuse() -> None:
    with pytest.raises(ValueError, match="reduce must be one of mean, sum; not 'max'"):
        sequence_scores(torch.zeros(1, 2), torch.ones(1, 2), reduce="max")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(1, 3\)"):
        sequence_scores(torch.zeros(1, 2), torch.ones(1, 3))


def test_concordance_is_the_area_under_the_roc_curve_within_groups() -> None:
    generator = torch.Generator().manual_seed(0)
    group_ids_N = torch.arange(60) // 6
    rewards_N = torch.randint(0, 2, (60,), generator=generator).double()
    scores_N = torch.randint(-4, 0, (60,), generator=generator).double()  # with ties
    areas = []
    for group in range(10):
        rewards, scores = rewards_N[group_ids_N == group], scores_N[group_ids_N == group]
        if 0 < rewards.sum() < 6:
            right, wrong = scores[rewards == 1].tolist(), scores[rewards == 0].tolist()
            areas.append(mannwhitneyu(right, wrong).statistic / (len(right) * len(wrong)))
    assert len(areas) > 5
    assert concordance(rewards_N, scores_N, group_ids_N) == pytest.approx(statistics.mean(areas))
    order = torch.randperm(60, generator=generator)
    assert concordance(rewards_N[order], scores_N[order], group_ids_N[order]) == pytest.approx(statistics.mean(areas))


def test_concordance_counts_all_pairs_with_a_gap_and_no_row_that_is_not_valid() -> None:
    rewards_N, scores_N = torch.tensor([1.0, 0.5, 0.0, math.nan]), torch.tensor([-3.0, -1.0, -2.0, math.nan])
    valid_N = torch.tensor([True, True, True, False])
    together = torch.zeros(4, dtype=torch.int64)
    assert concordance(rewards_N, scores_N, together, valid_N=valid_N) == pytest.approx(1 / 3)
    assert concordance(torch.ones(4), torch.arange(4.0), together) is None
    assert concordance(rewards_N[:0], scores_N[:0], together[:0]) is None


def test_group_statistics() -> None:
    rewards_N = torch.tensor([1.0, 0.0, 0.5, 0.5, 1.0, math.nan, math.nan])
    group_ids_N = torch.tensor([9, 9, -4, -4, 2, 2, 3])
    valid_N = torch.tensor([True, True, True, True, True, False, False])
    assert group_statistics(rewards_N, group_ids_N, valid_N=valid_N) == {
        "num_groups": 4,
        "groups_without_peer": 2,
        "share_without_spread": 1 / 2,
    }
    assert set(group_statistics(rewards_N[:0], group_ids_N[:0]).values()) == {0}


def test_pair_statistics() -> None:
    scores_N = torch.tensor([0.0, 1.0, 11.0, 0.0, 2.0, 5.0])
    group_ids_N = torch.tensor([0, 0, 0, 1, 1, 2])
    fixed = pair_statistics(scores_N, group_ids_N, temperature=2.0)
    # |0 - 11| / 2 = 5.5 is saturated; |1 - 11| / 2 = 5 is not
    assert fixed["saturation"] == 2 / (3 * 2 + 2 * 1)
    assert fixed["temperature"] == 2.0

    automatic = pair_statistics(scores_N, group_ids_N)
    expected = (math.sqrt((1**2 + 10**2 + 11**2) / 3) + 2.0) / 2
    assert automatic["temperature"] == pytest.approx(expected, rel=1e-6)
    assert set(pair_statistics(scores_N[:1], group_ids_N[:1]).values()) == {0}


def concordance_at_once(rewards: torch.Tensor, scores: torch.Tensor) -> float:
    """By one matrix of all pairs of one group."""
    better = rewards[:, None] > rewards
    return float(((1 + (scores[:, None] - scores).sign()) / 2 * better).sum() / better.sum())


@pytest.mark.parametrize("pairs", [1, 7, 2**20])
def test_concordance_block_by_block_is_that_of_all_pairs_at_once(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "PAIRS_PER_BLOCK", pairs)
    generator = torch.Generator().manual_seed(2)
    rewards = torch.randint(0, 4, (7, 13), generator=generator) / 3
    scores = torch.randint(-9, 0, (7, 13), generator=generator).double()
    expected = [concordance_at_once(*each) for each in zip(rewards.double(), scores, strict=True)]
    ids = torch.arange(7).repeat_interleave(13)
    assert concordance(rewards.flatten(), scores.flatten(), ids) == pytest.approx(statistics.mean(expected), rel=1e-6)


MEASURE = """
import resource, time, torch
from lampo.algo.advantages import concordance
torch.set_num_threads(1)
rewards_N, scores_N, ids_N = torch.randint(0, 2, (4096,)).float(), torch.randn(4096), torch.zeros(4096, dtype=torch.int64)
concordance(rewards_N[:64], scores_N[:64], ids_N[:64])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
seconds = []
for _ in range(5):
    begin = time.process_time()
    concordance(rewards_N, scores_N, ids_N)
    seconds.append(time.process_time() - begin)
print(min(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_concordance_of_a_group_of_4096_is_quick_and_small() -> None:
    told = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True).stdout.split()
    assert float(told[0]) < 0.3  # 0.05 on a core of one's own; 0.35 by one matrix of all pairs, which takes 0.3 GiB
    assert int(told[1]) < 64 * 1024
