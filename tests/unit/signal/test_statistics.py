import numpy as np
import pytest

from lampo.signal.statistics import Step, resamples, signals, versus

B = 16


def one_weight_policy(p: float, num_groups: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rewards and scores d log pi / d logit of pairs of actions of a policy that is right with probability p."""
    rewards_nG = (np.random.default_rng(seed).random((num_groups, 2)) < p).astype(float)
    return rewards_nG, rewards_nG - p


def measured(
    rewards_nG: np.ndarray, scores_nG: np.ndarray, baseline: float, counts_Rn: np.ndarray, factor: float = 1.0
) -> np.ndarray:
    """The signal of REINFORCE with this baseline; the gradients are numbers, and so is the policy's weight."""
    n, G = rewards_nG.shape
    true_n = ((rewards_nG - rewards_nG[:, ::-1]) * scores_nG).mean(1)  # RLOO
    scores_N, groups_N = scores_nG.reshape(-1), np.repeat(np.arange(n), G)
    step = Step(factor * (rewards_nG.reshape(-1) - baseline) / G, groups_N, 1)
    return signals(counts_Rn, np.outer(true_n, scores_N), np.outer(scores_N, scores_N), groups_N, step, B)


def analytic(p: float, baseline: float) -> float:
    """g m / sqrt(m^2 + v / B), with m = g = p (1-p) whatever the baseline, and v the variance of the mean of two."""
    m = p * (1 - p)
    square = p * (1 - baseline) ** 2 * (1 - p) ** 2 + (1 - p) * baseline**2 * p**2
    return m * m / (m * m + (square - m * m) / 2 / B) ** 0.5


@pytest.mark.parametrize("p", [0.2, 0.7])
def test_a_policy_of_one_weight_has_the_signal_of_the_formula(p: float) -> None:
    rewards_nG, scores_nG = one_weight_policy(p, 1500)
    counts_Rn = resamples(len(rewards_nG))
    for baseline in (p, 1 - p, 0.0):
        found_R = measured(rewards_nG, scores_nG, baseline, counts_Rn)
        assert found_R[0] == pytest.approx(analytic(p, baseline), abs=4 * found_R[1:].std())
        assert found_R[1:].std() < 0.15 * found_R[0]


def test_the_better_baseline_is_found() -> None:
    """E[R s^2] / E[s^2] = 1 - p is the baseline of least variance, not the mean reward p."""
    rewards_nG, scores_nG = one_weight_policy(0.2, 1500)
    counts_Rn = resamples(len(rewards_nG))
    of_mean, of_best, of_none = (measured(rewards_nG, scores_nG, b, counts_Rn) for b in (0.2, 0.8, 0.0))
    best, none = versus(of_best, of_mean, 1500), versus(of_none, of_mean, 1500)
    assert best.verdict == "better"
    assert best.low is not None
    assert best.high is not None
    assert best.low < analytic(0.2, 0.8) / analytic(0.2, 0.2) - 1 < best.high
    assert none.verdict == "worse"


def test_factors_change_nothing_and_the_same_is_exactly_level() -> None:
    rewards_nG, scores_nG = one_weight_policy(0.3, 100)
    counts_Rn = resamples(100)
    grpo = measured(rewards_nG, scores_nG, 0.3, counts_Rn)
    halved = measured(rewards_nG, scores_nG, 0.3, counts_Rn, factor=0.5)
    for ours in (grpo, halved):
        same = versus(ours, grpo, 100)
        assert (same.verdict, same.difference, same.low, same.high, same.more_groups) == ("same", 0, 0, 0, None)
    assert versus(grpo, grpo, 100, is_baseline=True).verdict == "baseline"


def test_it_says_when_it_is_too_noisy_to_tell_and_how_many_groups_would_do() -> None:
    random = np.random.default_rng(0)
    baseline_R = 1 + 0.05 * random.standard_normal(1001)
    baseline_R[0] = 1.0
    close_R = baseline_R * (1.02 + 0.1 * random.standard_normal(1001))
    close_R[0] = 1.02
    said = versus(close_R, baseline_R, 100)
    assert said.verdict == "cannot tell"
    assert said.more_groups is not None
    assert said.more_groups == pytest.approx(
        100 * ((1.96 * 0.1 / 0.03) ** 2 - 1), rel=0.15
    )  # so small that 2 % and half of it are within 5 %
    lost_R = random.standard_normal(1001)
    lost_R[0] = 0.3
    said = versus(close_R, lost_R, 100)
    assert (said.verdict, said.difference) == ("cannot tell", None)
    assert said.more_groups == pytest.approx(100 * ((1.96 / 0.3) ** 2 - 1), rel=0.15)
    lost_R[0] = -0.3
    assert versus(close_R, lost_R, 100).more_groups is None


def test_noise_of_a_group_does_not_meet_itself() -> None:
    """Where the gradient is nothing but noise the signal is about 0, however few the groups."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(200):
        rows_NW = random.standard_normal((20, 50))
        groups_N = np.arange(20)
        step = Step(np.ones(20), groups_N, 1)
        found.append(signals(np.ones((1, 20)), rows_NW @ rows_NW.T, rows_NW @ rows_NW.T, groups_N, step, B)[0])
    assert abs(np.mean(found)) < 4 * np.std(found) / 200**0.5


def test_a_split_group_counts_as_its_parts() -> None:
    """Two sub-groups of one group are two draws: with steps that never differ, the signal is that of the whole."""
    rows_NW = np.tile(np.array([[1.0, 2.0]]), (40, 1))
    groups_N = np.repeat(np.arange(10), 4)
    gram_NN = rows_NW @ rows_NW.T
    true_nN = rows_NW[::4] @ rows_NW.T
    whole = Step(np.full(40, 1 / 4), groups_N, 1)
    halves = Step(np.full(40, 1 / 2), np.repeat(np.arange(20), 2), 2)
    ours, theirs = (signals(np.ones((1, 10)), true_nN, gram_NN, groups_N, step, B)[0] for step in (whole, halves))
    assert ours == pytest.approx(theirs) == pytest.approx(5 / 5**0.5)
