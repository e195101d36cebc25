import dataclasses

import numpy as np
import pytest
import torch

from lampo.algo.registry import ESTIMATORS, OwnEstimatorOptions, PairwiseOptions, ProcessRewardOptions
from lampo.model.policy import Policy
from lampo.rewards import VerifierReward
from lampo.rollout.native import NativeSampler
from lampo.signal.answer import compare_signals
from lampo.signal.candidates import BASELINE, CANDIDATES, candidates
from lampo.signal.measure import Instrument, Sampled, Sketches, baseline_weights, measure_group, true_advantages, weigh
from lampo.types import Group, LampoError, Problem, Reward, Verdict

G = 4
OWN = {"own": OwnEstimatorOptions(function="tests.helpers.own_functions.by_token")}


def groups_of(policy: Policy, count: int) -> list[Group]:
    """Rollouts of a random policy; those of even length are right."""
    prompts = [torch.tensor(policy.encode(f"{number}+{number}=")) for number in range(count)]
    sampler = NativeSampler(policy, temperature=1.0, max_new_tokens=8, rows_at_once=256)
    found = []
    for number, rollouts_G in enumerate(sampler.sample(prompts, G, seed=0)):
        right_G = [len(rollout.completion_ids) % 2 == 0 for rollout in rollouts_G]
        verdicts_G = tuple(Verdict("right" if right else "wrong", str(right)) for right in right_G)
        rewards_G = tuple(Reward({}, float(right)) for right in right_G)
        found.append(Group(Problem(str(number), "?", "!"), tuple(rollouts_G), verdicts_G, rewards_G))
    return found


def instrument(policy: Policy, width: int, aggregation: str = "sequence") -> Instrument:
    return Instrument(policy, temperature=1.0, tokens_per_microbatch=64, aggregation=aggregation, width=width, seed=0)


def sketched(policy: Policy, groups: list[Group], width: int, estimators: dict) -> Sketches:
    tool, sketches = instrument(policy, width), Sketches()
    weights = weigh([Sampled(group) for group in groups], {"clean": [VerifierReward()]}, [G, 2], estimators, 8)
    for group, rows in zip(groups, weights["clean", G, BASELINE], strict=True):
        if step := baseline_weights(group, rows, tool):
            tool.learn_scale(group, step)
    tool.fix_scale()
    for index, group in enumerate(groups):
        measure_group(sketches, group, {key: rows[index] for key, rows in weights.items()}, tool, G)
    tool.close()
    return sketches


def exact_gradient(policy: Policy, group: Group, weights: list[float]) -> torch.Tensor:
    """Of sum_i w_i log pi(o_i), row by row through the transformers model itself."""
    parameters = [*policy.trainable_parameters().values()]
    total = torch.zeros(())
    for rollout, weight in zip(group.rollouts_G, weights, strict=True):
        ids = torch.cat([rollout.prompt_ids, rollout.completion_ids])[None]
        logprobs = policy.model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)[0, :-1]
        tokens = logprobs[len(rollout.prompt_ids) - 1 :].gather(1, rollout.completion_ids[:, None])
        total = total + weight * tokens.sum()
    return torch.cat([gradient.reshape(-1) for gradient in torch.autograd.grad(total, parameters)])


def test_a_step_is_the_exact_gradient(policy: Policy) -> None:
    """A sketch wider than the model is the gradient itself, its entries in another order and with other signs."""
    groups = groups_of(policy, 6)
    size = sum(parameter.numel() for parameter in policy.trainable_parameters().values())
    sketches = sketched(policy, groups, size, candidates(PairwiseOptions()))
    true_nN, gram_NN = sketches.products()["plain"]
    for name in (BASELINE, "lampo", "lampo_ob"):
        step = sketches.step(("clean", G, name))
        weights = weigh(
            [Sampled(group) for group in groups], {"clean": [VerifierReward()]}, [G], candidates(PairwiseOptions()), 8
        )
        exact, true = [], []
        for group, rows in zip(groups, weights["clean", G, name], strict=True):
            lengths = [len(rollout.completion_ids) for rollout in group.rollouts_G]
            exact.append(exact_gradient(policy, group, [float(a) / t / G for a, t in zip(rows, lengths, strict=True)]))
            true.append(exact_gradient(policy, group, [a / G for a in true_advantages(group)]))
        member = np.zeros((len(step.weights_N), len(groups)))
        member[np.arange(len(step.weights_N)), sketches.groups_N] = step.weights_N
        inner, squares = torch.stack(true) @ torch.stack(exact).T, torch.stack(exact) @ torch.stack(exact).T
        scale = float(squares.abs().max())
        np.testing.assert_allclose(member.T @ gram_NN @ member, squares, atol=1e-4 * scale)
        np.testing.assert_allclose(true_nN @ member, inner, atol=1e-4 * float(inner.abs().max()))


def test_what_is_right_is_the_verdict_and_not_its_score(policy: Policy) -> None:
    (group,) = groups_of(policy, 1)
    graded = [dataclasses.replace(verdict, score=0.25, graded=True) for verdict in group.verdicts_G]
    assert true_advantages(dataclasses.replace(group, verdicts_G=tuple(graded))) == true_advantages(group)


def test_a_narrow_sketch_says_what_the_exact_gradient_says(policy: Policy) -> None:
    groups = groups_of(policy, 24)
    size = sum(parameter.numel() for parameter in policy.trainable_parameters().values())
    exact, narrow = (
        compare_signals(sketched(policy, groups, width, candidates(PairwiseOptions())), BASELINE, 8)
        for width in (size, 4096)
    )
    for ours, theirs in zip(narrow, exact, strict=True):
        assert ours.estimator == theirs.estimator
        assert ours.versus.signal == pytest.approx(theirs.versus.signal, abs=0.1 * max(e.versus.signal for e in exact))


def test_estimators_that_push_alike_are_the_same(policy: Policy) -> None:
    found = compare_signals(sketched(policy, groups_of(policy, 24), 4096, candidates(PairwiseOptions())), BASELINE, 8)
    rloo, dr_grpo = (
        next(each for each in found if (each.estimator, each.group_size, each.scaling) == (name, G, "plain"))
        for name in ("rloo", "dr_grpo")
    )
    assert rloo.versus.signal == pytest.approx(dr_grpo.versus.signal, rel=1e-6)  # (G - 1) / G times
    assert all(
        each.versus.verdict == "baseline" for each in found if each.estimator == BASELINE and each.group_size == G
    )


def test_token_advantages_that_are_alike_are_those_of_the_rollout(policy: Policy) -> None:
    """An estimator that weighs tokens is measured by a pass of its own: where all tokens weigh alike it is the same step."""
    groups = groups_of(policy, 6)
    sketches = sketched(policy, groups, 4096, candidates(PairwiseOptions()) | OWN)
    _, gram_NN = sketches.products()["plain"]
    step = sketches.step(("clean", G, "own"))
    pushed = {number for number, weight in zip(sketches.groups_N, step.weights_N, strict=True) if weight}
    assert pushed == {n for n, group in enumerate(groups) if (group.accuracy or 0) > 0}
    for row in np.flatnonzero(step.weights_N):
        group = groups[sketches.groups_N[row]]
        weights = [
            reward.total / len(r.completion_ids) / G
            for r, reward in zip(group.rollouts_G, group.rewards_G, strict=True)
        ]
        exact = exact_gradient(policy, group, weights)
        assert gram_NN[row, row] == pytest.approx(float(exact @ exact), rel=0.1)


def test_sums_of_log_probs_under_other_aggregations(policy: Policy) -> None:
    (group,) = groups_of(policy, 1)
    assert instrument(policy, 64, "token").normalised(group, 0) == 1.0
    assert instrument(policy, 64).normalised(group, 0) == 1 / len(group.rollouts_G[0].completion_ids)


def test_every_registered_estimator_is_a_candidate() -> None:
    measured = {type(options) for options in candidates(PairwiseOptions()).values()}
    learned = {kind for kind in ESTIMATORS.values() if issubclass(kind, ProcessRewardOptions)}
    assert measured == {*ESTIMATORS.values()} - learned - {OwnEstimatorOptions}
    assert next(iter(CANDIDATES)) == BASELINE


def test_own_estimators_and_methods_join() -> None:
    found = candidates(PairwiseOptions(temperature=0.1), ["python:mine.advantage", "otb"])
    assert [*found][len(CANDIDATES) :] == ["mine.advantage", "recipe"]  # otb is there anyway
    with pytest.raises(LampoError, match="The method dapo has the advantage of grpo"):
        candidates(PairwiseOptions(), ["dapo"])
    with pytest.raises(LampoError, match="Did you mean lampo"):
        candidates(PairwiseOptions(), ["lampoo"])
    with pytest.raises(LampoError, match="learns a reward model"):
        candidates(PairwiseOptions(), ["prime"])
