"""The pair matrix of the viewer against the estimators."""

import itertools
from typing import Any

import pytest
import torch

from lampo.algo.advantages import grpo_advantages, pairwise_advantages, rloo_advantages
from lampo.view.inspect.pairs import pairs

from ....helpers.every_estimator import NORMALIZERS, SCALES, WEIGHTS
from ....helpers.recorded_groups import group, groups_of, rollout

OPTIONS = [
    dict(zip(("weight", "temperature", "normalizer", "scale"), values, strict=True))
    for values in itertools.product(WEIGHTS, ("auto", 0.01), NORMALIZERS, SCALES)
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_rows_of_pairs_sum_to_the_advantages(options: dict[str, Any]) -> None:
    statuses, scores = ["right", "wrong", "unknown", "right", "wrong"], [-0.1, -0.9, -0.4, -2.5, -0.3]
    each = group(1, "a", *map(rollout, statuses, scores))
    each["rollouts"][0]["total"] = 1.3
    found = pairs(each, {"name": "pairwise"} | options)
    assert found is not None
    assert found.note == ""
    rewards_G, valid_G = torch.tensor([1.3, 0, float("nan"), 1, 0]), torch.tensor([True, True, False, True, True])
    ids_G, scores_G = torch.zeros(5, dtype=torch.int64), torch.tensor(scores)
    advantages_G = pairwise_advantages(rewards_G, scores_G, ids_G, valid_N=valid_G, **options)
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


def test_no_pairs_without_scores_or_peers() -> None:
    assert pairs(group(1, "a", rollout("right", -0.1), rollout("unknown", -0.2)), {"name": "pairwise"}) is None
    each = group(1, "a", rollout("right", -0.1), rollout("wrong", -0.2) | {"score": None})
    assert pairs(each, {"name": "pairwise"}) is None
