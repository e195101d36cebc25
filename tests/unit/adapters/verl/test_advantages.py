"""verl's batches against the native engine's functions. No verl needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lampo import (
    LampoError,
    grpo_advantages,
    pairwise_advantages,
    reinforce_pp_advantages,
    rloo_advantages,
    sequence_scores,
)
from lampo.adapters.verl.advantages import advantages_of, read_settings
from lampo.adapters.verl.unknown import UNKNOWN

GROUPS = [f"uid{number}" for number in range(5)]


def batch_of(seed: int = 0, rows: int = 40, T: int = 7, padding: int = 3) -> tuple[dict[str, Tensor], list[str]]:
    """Rows of five groups in any order, with holes in their masks, and padding rows that share an id, as verl adds them."""
    generator = torch.Generator().manual_seed(seed)
    N = rows + padding
    mask_NT = torch.rand(N, T, generator=generator) < 0.7  # tool answers leave holes
    mask_NT[:rows, 0] = True
    mask_NT[rows:] = False
    rewards_NT = torch.zeros(N, T)
    rewards_NT[:rows, 2] = torch.randint(0, 3, (rows,), generator=generator).float()
    uids = [GROUPS[int(index)] for index in torch.randint(0, 5, (rows,), generator=generator)] + ["pad"] * padding
    order = torch.randperm(N, generator=generator)
    batch = {
        "response_mask": mask_NT[order].long(),
        "token_level_rewards": rewards_NT[order],
        "token_level_scores": rewards_NT[order],
        "old_log_probs": -torch.rand(N, T, generator=generator),
        "rollout_log_probs": -torch.rand(N, T, generator=generator),
    }
    return batch, [uids[int(index)] for index in order]


def ours(batch: dict[str, Tensor], uids: list[str], *, logprobs: str = "old_log_probs", **settings: Any) -> Tensor:
    """LamPO's advantages without the adapter, one a row. The rows are summed group by group, so that the last digit is the same."""
    names = list(dict.fromkeys(uids))
    ids_N = torch.tensor([names.index(uid) for uid in uids])
    order = ids_N.argsort(stable=True)
    mask_NT = batch["response_mask"].bool()[order]
    scores_N = torch.cat(
        [
            sequence_scores(row[mask][None], mask[mask][None])
            for row, mask in zip(batch[logprobs][order], mask_NT, strict=True)
        ]
    )
    advantages_N = pairwise_advantages(
        batch["token_level_rewards"].sum(1)[order], scores_N, ids_N[order], valid_N=mask_NT.any(1), **settings
    )
    return advantages_N[order.argsort()]


def theirs(batch: dict[str, Tensor], uids: list[str], settings: dict[str, Any] | None = None) -> Tensor:
    return advantages_of(batch, batch["token_level_rewards"], batch["response_mask"], uids, settings)


@pytest.mark.parametrize("seed", range(5))
def test_advantages_are_ours_exactly_whatever_the_order_of_the_rows(seed: int) -> None:
    batch, uids = batch_of(seed)
    expected_NT = ours(batch, uids, scale="group_std")[:, None] * batch["response_mask"]
    assert torch.equal(theirs(batch, uids), expected_NT)
    assert expected_NT.abs().sum() > 1
    order = torch.randperm(len(uids), generator=torch.Generator().manual_seed(seed))
    shuffled = {name: tensor[order] for name, tensor in batch.items()}
    torch.testing.assert_close(theirs(shuffled, [uids[int(index)] for index in order]), expected_NT[order])


@pytest.mark.parametrize(
    "settings",
    [{"weight": "winner"}, {"scale": "none", "temperature": 0.3}, {"normalizer": "weights", "centred": True}],
)
def test_settings_are_those_of_a_recipe(settings: dict[str, Any]) -> None:
    batch, uids = batch_of()
    expected_NT = ours(batch, uids, **{"scale": "group_std"} | settings)[:, None] * batch["response_mask"]
    assert torch.equal(theirs(batch, uids, settings), expected_NT)


def test_the_samplers_log_probs_can_weigh_the_pairs() -> None:
    batch, uids = batch_of()
    expected_NT = ours(batch, uids, logprobs="rollout_log_probs", scale="group_std")[:, None] * batch["response_mask"]
    assert torch.equal(theirs(batch, uids, {"scores_from": "sampler"}), expected_NT)
    assert not torch.equal(theirs(batch, uids), expected_NT)
    del batch["rollout_log_probs"]
    with pytest.raises(LampoError, match="calculate_log_probs=True"):
        theirs(batch, uids, {"scores_from": "sampler"})


@pytest.mark.parametrize(
    ("settings", "function"),
    [
        ({"name": "grpo"}, lambda *given, **valid: grpo_advantages(*given, std=True, **valid)),
        ({"name": "rloo"}, rloo_advantages),
        ({"name": "reinforce_pp"}, reinforce_pp_advantages),
    ],
)
def test_estimators_that_read_no_log_probs_need_none(settings: dict[str, Any], function: Any) -> None:
    batch, uids = batch_of()
    del batch["old_log_probs"]
    ids_N = torch.tensor([sorted(set(uids)).index(uid) for uid in uids])
    valid_N = batch["response_mask"].bool().any(1)
    expected_N = function(batch["token_level_rewards"].sum(1), ids_N, valid_N=valid_N)
    torch.testing.assert_close(theirs(batch, uids, settings), expected_N[:, None] * batch["response_mask"])


@pytest.mark.parametrize("value", [UNKNOWN, float("nan")])
def test_an_unknown_row_is_in_no_group_and_not_in_the_mask(value: float) -> None:
    batch, uids = batch_of()
    rows = [index for index, uid in enumerate(uids) if uid == "uid1"]
    batch["token_level_scores"] = batch["token_level_scores"].clone()
    batch["token_level_scores"][rows[0]] = 0
    batch["token_level_scores"][rows[0], 0] = value
    batch["token_level_rewards"] = batch["token_level_scores"] - 0.01  # a KL term, which hides the score
    before = batch["response_mask"].clone()
    advantages_NT = theirs(batch, uids)
    assert not advantages_NT[rows[0]].any()
    assert not batch["response_mask"][rows[0]].any()
    others = [index for index in range(len(uids)) if index != rows[0]]
    assert torch.equal(batch["response_mask"][others], before[others])
    without = {name: tensor[others] for name, tensor in batch.items()}
    assert torch.equal(advantages_NT[others], theirs(without, [uids[index] for index in others]))


def test_a_batch_in_which_nobody_could_judge_anything_is_told(caplog: pytest.LogCaptureFixture) -> None:
    batch, uids = batch_of()
    theirs(batch, uids)
    assert not caplog.records
    batch["token_level_scores"] = torch.full_like(batch["token_level_scores"], UNKNOWN)
    assert not theirs(batch, uids).any()
    assert "No response of this batch could be judged" in caplog.text


def test_a_mask_is_left_alone_where_all_rows_have_a_reward() -> None:
    batch, uids = batch_of()
    mask_NT = batch["response_mask"]
    theirs(batch, uids)
    assert batch["response_mask"] is mask_NT


def test_unknown_is_exact_where_verl_may_carry_it() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert float(torch.tensor(UNKNOWN, dtype=dtype)) == UNKNOWN
    assert float(torch.tensor([UNKNOWN, 1.0, 0.0]).mean()) == float(torch.tensor([0.0, 1.0, 0.0]).mean())


def own(rewards_N: Tensor, group_ids_N: Tensor, *, scores_N: Tensor, factor: float = 1.0) -> Tensor:
    return factor * rewards_N - scores_N


def own_by_token(rewards_N: Tensor, group_ids_N: Tensor, *, scores_N: Tensor) -> Tensor:
    longest = 7
    return rewards_N[:, None] * torch.arange(1, longest + 1)


def own_of_rollouts(rewards_N: Tensor, group_ids_N: Tensor, *, rollouts_N: Any) -> Tensor:
    return rewards_N


def test_an_own_advantage_with_its_options() -> None:
    batch, uids = batch_of(padding=0)
    scores_N = sequence_scores(batch["old_log_probs"], batch["response_mask"].bool())
    expected_N = 2 * batch["token_level_rewards"].sum(1) - scores_N
    settings = {"name": f"python:{__name__}.own", "factor": 2.0}
    torch.testing.assert_close(theirs(batch, uids, settings), expected_N[:, None] * batch["response_mask"])


def test_an_own_advantage_of_tokens_lies_on_the_tokens_of_the_mask() -> None:
    batch, uids = batch_of(padding=0)
    batch["response_mask"][0] = 1  # one row of full length
    advantages_NT = theirs(batch, uids, {"name": f"python:{__name__}.own_by_token"})
    for row, mask in enumerate(batch["response_mask"].bool()):
        total = batch["token_level_rewards"][row].sum()
        assert torch.equal(advantages_NT[row, mask], total * torch.arange(1, int(mask.sum()) + 1))
        assert not advantages_NT[row, ~mask].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "pairwize"}, "There is no advantage 'pairwize'"),
        ({"name": "prime"}, "process reward model"),
        ({"wight": "winner"}, "algorithm.lampo.wight"),
        ({"scores_from": "critic"}, "scores_from must be one of trainer, sampler"),
        ({"name": "python:nowhere.f"}, "There is no module 'nowhere'"),
        ({"name": f"python:{__name__}.own_of_rollouts"}, "asks for rollouts_N"),
        ({"name": f"python:{__name__}.own", "facter": 1}, "'facter'"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    batch, uids = batch_of()
    with pytest.raises(LampoError, match=message):
        theirs(batch, uids, settings)


def test_what_verl_does_not_give_is_told() -> None:
    batch, uids = batch_of()
    with pytest.raises(LampoError, match="no uid"):
        advantages_of(batch, batch["token_level_rewards"], batch["response_mask"], None)
    del batch["old_log_probs"]
    for name in ("pairwise", "otb"):  # the second reads them from the rollouts
        with pytest.raises(LampoError, match="no old_log_probs"):
            theirs(batch, uids, {"name": name})


def test_a_batch_of_padding_alone_has_no_advantages() -> None:
    batch, uids = batch_of(rows=0, padding=2)
    assert not theirs(batch, uids).any()


def test_the_default_is_the_preset_lampo() -> None:
    options, scores_from = read_settings(None)
    assert (options.model_dump()["name"], options.model_dump()["scale"], scores_from) == (
        "pairwise",
        "group_std",
        "trainer",
    )
