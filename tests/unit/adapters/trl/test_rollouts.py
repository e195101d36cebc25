"""TRL's tensors as groups. Needs torch alone, but lives in a folder whose package imports TRL."""
# ruff: noqa: E402

from __future__ import annotations

import pytest
import torch

for package in ("trl", "accelerate", "datasets", "pandas", "jinja2"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'lampo[trl]'")

from lampo.adapters.trl.rollouts import GatheredRows

pytestmark = pytest.mark.filterwarnings("ignore")

NAN = float("nan")


def rows(logprobs: bool = True) -> GatheredRows:
    """Two groups of two: a tool's token in the second row, an unknown third row, an emptied fourth."""
    return GatheredRows(
        rewards_NF=torch.tensor([[1.0, NAN], [0.0, 2.0], [NAN, NAN], [1.0, 1.0]]),
        totals_N=torch.tensor([1.0, 2.0, NAN, 2.0]),
        prompt_ids=torch.tensor([[0, 5], [0, 5], [7, 8], [7, 8]]),
        prompt_mask=torch.tensor([[0, 1], [0, 1], [1, 1], [1, 1]]).bool(),
        completion_ids=torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 2, 3]]),
        mask_NT=torch.tensor([[1, 1, 0], [1, 0, 1], [1, 1, 1], [0, 0, 0]]).bool(),
        logprobs_NT=-torch.arange(12).view(4, 3).float() if logprobs else None,
    )


def test_groups_hold_the_masked_tokens_and_the_rewards_by_name() -> None:
    first, second = rows().groups(2, ["right", "rouge"], decode=lambda ids: " ".join(map(str, ids.tolist())))
    assert [rollout.completion_ids.tolist() for rollout in first.rollouts_G] == [[1, 2], [4, 6]]
    assert [rollout.logprobs.tolist() for rollout in first.rollouts_G] == [[0, -1], [-3, -5]]
    assert [rollout.text for rollout in first.rollouts_G] == ["1 2", "4 6"]
    assert (first.problem.prompt, second.problem.prompt) == ("5", "7 8")
    assert [dict(reward.parts) for reward in first.rewards_G] == [
        {"right": 1.0, "rouge": None},
        {"right": 0.0, "rouge": 2.0},
    ]
    assert [reward.valid for group in (first, second) for reward in group.rewards_G] == [True, True, False, False]


def test_valid_rows_have_a_reward_and_a_token() -> None:
    assert rows().valid_N.tolist() == [True, True, False, False]


def test_nothing_is_decoded_where_nobody_reads_it() -> None:
    (first, _) = rows(logprobs=False).groups(2, ["right", "rouge"])
    assert [rollout.text for rollout in first.rollouts_G] == ["", ""]
    assert first.rollouts_G[0].logprobs.tolist() == [0, 0]


def test_token_advantages_go_back_to_the_tokens_they_belong_to() -> None:
    by_token = [torch.tensor([0.5, 1.0]), torch.tensor([2.0, 3.0]), torch.zeros(3), torch.zeros(0)]
    assert rows().spread_out(by_token)[:2].tolist() == [[0.5, 1.0, 0.0], [2.0, 0.0, 3.0]]
