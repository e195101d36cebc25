"""The pair matrix of the viewer against the estimators."""

import itertools
from typing import Any

import pytest
import torch

from lampo.algo.advantages import grpo_advantages, pairwise_advantages, rloo_advantages
from lampo.algo.estimate import estimate_advantages
from lampo.algo.registry import PairwiseOptions
from lampo.config.methods import METHODS
from lampo.train.rollout_records import group_records
from lampo.types import Group, Problem, Reward, Rollout, Verdict
from lampo.view.inspect.pairs import pairs

from ....helpers.every_estimator import NORMALIZERS, SCALES, WEIGHTS
from ....helpers.recorded_groups import group, groups_of, rollout

OPTIONS = [
    dict(zip(("weight", "temperature", "normalizer", "scale"), values, strict=True))
    for values in itertools.product(WEIGHTS, ("auto", 0.01), NORMALIZERS, SCALES)
] + [{"negative": 0.36}, {"negative": 0.0}]
PEERS = [0.5, 2.0, 9.0, 0.0, 1.5]


@pytest.mark.parametrize("peer_weight", ["equal", "score_norm"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_rows_of_pairs_sum_to_the_advantages(options: dict[str, Any], peer_weight: str) -> None:
    statuses, scores = ["right", "wrong", "unknown", "right", "wrong"], [-0.1, -0.9, -0.4, -2.5, -0.3]
    each = group(1, "a", *map(rollout, statuses, scores))
    each["rollouts"][0]["total"] = 1.3
    peers = None if peer_weight == "equal" else torch.tensor(PEERS)
    for each_rollout, weight in zip(each["rollouts"], PEERS, strict=True):
        each_rollout |= {} if peers is None else {"peer_weight": weight}
    found = pairs(each, {"name": "pairwise", "peer_weight": peer_weight} | options)
    assert found is not None
    assert found.note == ""
    rewards_G, valid_G = torch.tensor([1.3, 0, float("nan"), 1, 0]), torch.tensor([True, True, False, True, True])
    ids_G, scores_G = torch.zeros(5, dtype=torch.int64), torch.tensor(scores)
    advantages_G = pairwise_advantages(rewards_G, scores_G, ids_G, valid_N=valid_G, peer_weights_N=peers, **options)
    assert found.pairwise_G == pytest.approx(advantages_G.tolist(), abs=1e-6)
    assert found.grpo_G == grpo_advantages(rewards_G, ids_G, valid_N=valid_G).tolist()
    assert found.rloo_G == rloo_advantages(rewards_G, ids_G, valid_N=valid_G).tolist()
    for i, j in itertools.product(range(5), range(5)):
        parts = [table[i][j] for table in (found.gaps_GG, found.weights_GG, found.contributions_GG)]
        if i == j or 2 in (i, j):
            assert parts == [None, None, None]
            continue
        gap, weight, contribution = (value or 0.0 for value in parts)
        assert gap == pytest.approx(float(rewards_G[i] - rewards_G[j]))
        if (divisor := found.divisors_G[i]) and divisor > 1e-6:
            assert contribution == pytest.approx(weight * gap / divisor, abs=1e-6)
    assert [sum(value or 0.0 for value in row) for row in found.contributions_GG] == pytest.approx(
        advantages_G.tolist(), abs=1e-6
    )


@pytest.mark.parametrize("method", ["lampo_ob", "lampo_cal"])
def test_what_a_run_records_is_taken_apart_into_the_advantages_that_it_used(method: str) -> None:
    logprobs = [[-0.1, -2.0], [-0.7], [-0.2, -0.2, -3.0], [-1.1, -0.4]]
    rollouts = tuple(
        Rollout(torch.tensor([1]), torch.arange(len(each)), torch.tensor(each), True, "") for each in logprobs
    )
    rewards = tuple(Reward({}, total) for total in (1.0, 0.0, 0.0, 1.0))
    sampled = Group(Problem("0", "?", ""), rollouts, (Verdict("wrong"),) * 4, rewards)
    options = PairwiseOptions.model_validate(METHODS[method].settings["advantage"])
    (record,) = group_records(1, [sampled], estimate_advantages([sampled], options))
    found = pairs(record, options.model_dump())
    assert found is not None
    assert found.note == ""
    assert found.pairwise_G == pytest.approx([each["advantage"] for each in record["rollouts"]], abs=1e-6)
    assert ("slope" in record) == (method == "lampo_cal")
    plain = next(group_records(1, [sampled], estimate_advantages([sampled], PairwiseOptions())))
    assert "slope" not in plain
    assert "peer_weight" not in plain["rollouts"][0]


def test_pairs_of_another_estimator_are_those_of_the_defaults_and_say_so() -> None:
    each = groups_of(1)[0]
    found, default = pairs(each, {"name": "grpo", "std": False}), pairs(each, {"name": "pairwise"})
    assert found is not None
    assert default is not None
    assert found.contributions_GG == default.contributions_GG
    assert found.note.startswith("This run was trained with grpo")
    strange, unread = pairs(each, {"name": "pairwise", "tau": 3}), pairs(each, {})
    assert strange is not None
    assert unread is not None
    assert strange.note.startswith("The options of the run's estimator are not understood")
    assert unread.note.startswith("The settings of this run could not be read")
    unrecorded = pairs(each, {"name": "pairwise", "peer_weight": "score_norm"})
    assert unrecorded is not None
    assert unrecorded.note.startswith("This run weighed its peers, and did not record the weights: the comparisons are")
    for slope in (None, -1.0, float("nan"), float("inf"), "1"):
        unrecorded = pairs({**each, "slope": slope}, {"name": "pairwise", "temperature": "calibrated"})
        assert unrecorded is not None
        assert unrecorded.note.startswith("This run calibrated its temperature, and did not record the slope: the")


def test_no_pairs_without_scores_or_peers() -> None:
    assert pairs(group(1, "a", rollout("right", -0.1), rollout("unknown", -0.2)), {"name": "pairwise"}) is None
    each = group(1, "a", rollout("right", -0.1), rollout("wrong", -0.2) | {"score": None})
    assert pairs(each, {"name": "pairwise"}) is None
