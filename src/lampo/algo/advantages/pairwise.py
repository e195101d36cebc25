"""LamPO: pairwise reward gaps, each weighted by what the sampling policy thought of the two rollouts.

Every public function here goes through one kernel, `pair_margins_and_gaps`. It works on groups of one size at a time,
and on a block of their rows:

    B   groups of one size
    I   rows i of a block: the rollouts that are being judged
    G   their peers j, all valid rollouts of the group
"""

from __future__ import annotations

import math
import sys
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ...types import Normalizer, Reduce, Scale, Weight
from .groups import (
    GROUP_STD_EPSILON,
    check_negative,
    check_not_negative,
    check_option,
    check_rows,
    estimate_by_group,
    floating_dtype,
    groups_by_size,
    row_blocks,
    standard_deviation,
)

SMALLEST_AUTO_TEMPERATURE = 1e-6
"""The floor of temperature="auto", for groups whose scores are all but equal."""


MAX_NEWTON_STEPS = 50
"""Of the slope. Six are enough for most steps of training."""

SATURATED_MARGIN = 5.0
"""Beyond this |s_i - s_j| / tau the sigmoid has less than 1 % left to say."""


@torch.no_grad()
def sequence_scores(logprobs_NT: Tensor, mask_NT: Tensor, *, reduce: Reduce = "mean") -> Tensor:
    r"""The score of a rollout: how likely the sampling policy found its completion.

        s_i = reduce_t log pi_old(o_i,t | q, o_i,<t)        over the T_i tokens of the mask

    The sum is the log-probability of the completion, and differs between two rollouts mostly by their lengths. The mean
    is per token. The LamPO abstract (arXiv 2605.21235) says "sequence log-probability differences" and leaves it open;
    the mean is our default.

    Args:
        logprobs_NT: (N, T) log-probabilities under the policy that sampled; padding may hold anything, NaN included.
        mask_NT: (N, T) True on the tokens of the completion.
        reduce: mean or sum.

    Returns:
        (N,) scores without gradient, at least float32; 0 for an empty completion.

    Raises:
        ValueError: shapes that differ, or another `reduce`.

    >>> logprobs_NT = torch.tensor([[-1.0, -3.0], [-2.0, float("nan")]])
    >>> sequence_scores(logprobs_NT, torch.tensor([[True, True], [True, False]]))
    tensor([-2., -2.])
    """
    check_option("reduce", reduce, get_args(Reduce))
    if logprobs_NT.shape != mask_NT.shape or logprobs_NT.dim() != 2:
        raise ValueError(
            "logprobs_NT and mask_NT must have the same shape (N, T), "
            f"but the shapes are {tuple(logprobs_NT.shape)} and {tuple(mask_NT.shape)}"
        )
    mask_NT = mask_NT.bool()
    sums_N = torch.where(mask_NT, logprobs_NT, 0.0).to(floating_dtype(logprobs_NT)).sum(1)
    return sums_N / mask_NT.sum(1).clamp(min=1) if reduce == "mean" else sums_N


@torch.no_grad()
def pairwise_advantages(
    rewards_N: Tensor,
    scores_N: Tensor,
    group_ids_N: Tensor,
    *,
    valid_N: Tensor | None = None,
    weight: Weight = "policy",
    temperature: float | Literal["auto"] = "auto",
    slope: float = 1.0,
    normalizer: Normalizer = "peers",
    scale: Scale = "group_std",
    peer_weights_N: Tensor | None = None,
    centred: bool = False,
    negative: float = 1.0,
) -> Tensor:
    r"""The Pairwise Decomposed Advantage: reward gaps to the peers, each weighted by a confidence.

        A_i  = 1/(|V|-1) sum_j w_ij (R_i - R_j)                    normalizer = peers
             | sum_j w_ij (R_i - R_j) / sum_j w_ij                 normalizer = weights
        w_ij = sigmoid(m_ij),  m_ij = beta (s_i - s_j) / tau       weight = policy
             | sigmoid(+sign(R_i - R_j) |m_ij|)                    weight = winner
             | sigmoid(-sign(R_i - R_j) m_ij)                      weight = lambdarank
             | sigmoid(+sign(R_i - R_j) m_ij)                      weight = better
             | 1/2                                                 weight = uniform

    over the other valid rollouts j of the group of i; |V| counts the valid ones. With weights v_j of the peers each pair counts
    v_j / mean(v) times, the mean over the group, so that equal ones change nothing:

        A_i  = |V|/(|V|-1) sum_j v_j w_ij (R_i - R_j) / sum_j v_j      normalizer = peers
             | sum_j v_j w_ij (R_i - R_j) / sum_j v_j w_ij             normalizer = weights

    LamPO, arXiv 2605.21235: its abstract fixes the weighted sum of gaps; `policy` with `peers` is how readers reported
    its formula. `lambdarank` turns the weight around as LambdaRank does (Burges, "From RankNet to LambdaRank to
    LambdaMART", Microsoft Research technical report MSR-TR-2010-82): a pair the policy already ranks right counts less.
    `winner`, `better`, the normaliser `weights`, `auto` and `scale` are ours. Where the better of two is also the likelier one,
    `winner` is `policy`. Where it is not, `policy` pushes both down together and `winner` both up.

    It reduces to RLOO (arXiv 2402.14740) with equal weights, which is what tau -> infinity and `uniform` mean: exactly
    half of RLOO's advantage under `peers`, and RLOO's itself under `weights`. Half of RLOO with `scale="group_std"` is
    GRPO (arXiv 2402.03300) times G / (2 (G-1)). With equal confidence and weights of the peers it is a constant times R_i - b, where
    b = sum_j v_j R_j / sum_j v_j: OPO (arXiv 2505.23585) for v = length, the baseline of least variance for v = squared norm of the
    score function, see `score_norms`.

    Args:
        rewards_N: (N,) rewards; rows that are not valid may hold NaN here and in the scores.
        scores_N: (N,) any finite numbers, see `sequence_scores`.
        group_ids_N: (N,) integers, in any order; groups may differ in size.
        valid_N: (N,) bool; None means that every row is valid.
        weight: which confidence, see above.
        temperature: tau > 0 in units of the score, held to the normal numbers of the dtype; or "auto": per group, the
            root mean square of s_i - s_j over the pairs i != j (that is sqrt(2) times the unbiased standard deviation),
            and at least 1e-6.
        slope: beta >= 0, how much a gap of the scores says about the rewards, see `calibrated_slope`. 0: nothing, all weights are 1/2.
        normalizer: divide by the number of peers, or by the sum of the weights.
        scale: group_std, the default, divides by the group's reward std + 1e-4, the very number `grpo_advantages` divides by. group_mean
            divides by the mean of its rewards, as `maxrl_advantages` does, so that hard problems weigh more. none does not.

        peer_weights_N: (N,) v_j > 0, see above; None means that all are equal. A group whose weights are all 0 has equal ones.
        centred: take the mean over the group from its advantages, so that they sum to 0.
        negative: factor of the advantages below 0, as in `grpo_advantages`.

    Returns:
        (N,) advantages, float64 where an input is float64 and else float32.
        Shifting all rewards or all scores of a group changes nothing; permuting rows permutes advantages. Without
        `scale`, scaling the rewards scales the advantages, and |A_i| is at most the largest reward gap of the group,
        whatever the scores: no finite score gives NaN or infinity. Exactly 0 for a group without reward spread, for a
        rollout without a peer and for rows that are not valid, which influence nobody. Under `peers` the advantages of
        a group sum to 0 with the weights lambdarank, better and uniform; with policy their sum is
        1/(|V|-1) sum_{i<j} (R_i - R_j) tanh((s_i - s_j) / 2 tau), and with winner each term is taken without its sign.

    Raises:
        ValueError: shapes that differ, ids that are not integers, an unknown option, a temperature that is neither
            "auto" nor finite and positive, a slope or `negative` below 0, a valid reward or score that is not finite, and under
            `group_mean` a valid reward below 0.

    One right answer among three, which the policy found likelier than the second and less likely than the third:

    >>> rewards_N, scores_N = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([-1.0, -3.0, -0.5])
    >>> group_ids_N = torch.tensor([4, 4, 4])
    >>> pairwise_advantages(rewards_N, scores_N, group_ids_N, temperature=1.0, scale="none")
    tensor([ 0.6292, -0.0596, -0.3112])
    >>> pairwise_advantages(rewards_N, scores_N, group_ids_N, weight="uniform", scale="none")  # half of RLOO
    tensor([ 0.5000, -0.2500, -0.2500])
    """
    check_options(weight, temperature, normalizer, scale, slope)
    check_negative(negative)

    def compare(rewards_BG: Tensor, scores_BG: Tensor, *peers_BG: Tensor) -> Tensor:
        num_groups, group_size = rewards_BG.shape
        peers_B1G = relative_weights(*peers_BG)[:, None] if peers_BG else None
        advantages_BG = torch.empty_like(rewards_BG)
        for block in row_blocks(num_groups, group_size):
            margins_BIG, gaps_BIG = pair_margins_and_gaps(rewards_BG, scores_BG, block, weight, temperature, slope)
            if normalizer == "peers":
                weights_BIG = margins_BIG.sigmoid() if peers_B1G is None else margins_BIG.sigmoid() * peers_B1G
                advantages_BG[:, block] = (weights_BIG * gaps_BIG).sum(2) / (group_size - 1)
            else:  # w_ij / sum_j w_ij as a softmax of log w_ij: never 0 / 0, however saturated the weights are
                log_weights_BIG = logsigmoid(margins_BIG)
                if peers_B1G is not None:
                    log_weights_BIG = log_weights_BIG + peers_B1G.clamp(min=torch.finfo(peers_B1G.dtype).tiny).log()
                log_weights_BIG.diagonal(block.start, 1, 2).fill_(-math.inf)
                advantages_BG[:, block] = (log_weights_BIG.softmax(2) * gaps_BIG).sum(2)
        if centred:
            advantages_BG = advantages_BG - advantages_BG.mean(1, keepdim=True)
        if negative != 1:
            advantages_BG = torch.where(advantages_BG < 0, negative * advantages_BG, advantages_BG)
        return advantages_BG / reward_scale(rewards_BG, scale)

    named = {"rewards_N": rewards_N, "scores_N": scores_N}
    if peer_weights_N is not None:
        named["peer_weights_N"] = peer_weights_N
    valid_N, *values_N = check_rows(group_ids_N, valid_N, **named)
    if scale == "group_mean":
        check_not_negative(
            "rewards_N", values_N[0], valid_N, "group_mean divides by the mean, so no reward may be negative"
        )
    if peer_weights_N is not None:
        check_not_negative("peer_weights_N", values_N[2], valid_N, "weights must not be negative")
    return estimate_by_group(compare, group_ids_N, valid_N, *values_N)


@torch.no_grad()
def score_norms(logprobs_NT: Tensor, mask_NT: Tensor) -> Tensor:
    r"""An estimate of the squared norm of each rollout's score function, from the log-probs that it was drawn with.

        v_i = sum_t (1 - pi_old(o_i,t))^2

    The norm of a token's gradient with respect to its own logits is 1 - 2 pi(o_t) + sum_v pi(v)^2 (arXiv 2602.07078, which keeps the
    sum over the vocabulary). Its leading part (1 - pi(o_t))^2 needs the log-prob of the token alone: the rest is at most (1 - pi(o_t))^2
    again. Under the baseline weighted by it the gradient has about the least variance, where tokens are independent.

    Args:
        logprobs_NT: (N, T) log-probabilities under the policy that sampled; padding may hold anything, NaN included.
        mask_NT: (N, T) True on the tokens of the completion.

    Returns:
        (N,) from 0, where every token was certain, to the number of tokens.

    >>> score_norms(torch.tensor([[0.0, -0.6931472]]), torch.tensor([[True, True]]))
    tensor([0.2500])
    """
    mask_NT = mask_NT.bool()
    doubts_NT = -torch.where(mask_NT, logprobs_NT, 0.0).to(floating_dtype(logprobs_NT)).expm1()
    return doubts_NT.square().sum(1)


@torch.no_grad()
def calibrated_slope(
    rewards_N: Tensor, scores_N: Tensor, group_ids_N: Tensor, *, valid_N: Tensor | None = None
) -> float:
    r"""How much a gap of two scores says about their rewards in this step: the slope that makes LamPO's weight a calibrated probability.

        beta = argmax_{beta >= 0}  sum_groups 2/|V| sum_{R_i > R_j} log sigmoid(beta (s_i - s_j) / tau)  -  beta^2 / 2

    over the pairs of different rewards, with tau the `auto` one of the group: the model of Bradley and Terry (Biometrika 39, 1952) of which
    one of two is the better. It is temperature scaling (arXiv 1706.04599) on the step's own verdicts. Pairs of a group depend on each
    other, so its |V| rollouts count as |V| / 2 pairs at most. The last term is a normal prior of variance 1, and holds few pairs to a small
    slope.

    Args:
        rewards_N: (N,) rewards; rows that are not valid may hold NaN.
        scores_N: (N,) scores, see `sequence_scores`.
        group_ids_N: (N,) integers.
        valid_N: (N,) bool; None means that every row is valid.

    Returns:
        At least 0. 0 where the likelier one of two is the better one no more often than not, or no two rewards differ: then the confidence
        is none. About 1 where LamPO's own temperature is right.

    Raises:
        ValueError: see `check_rows`.

    >>> scores_N = torch.tensor([-0.1, -2.0, -0.5])
    >>> slope = calibrated_slope(torch.tensor([1.0, 0.0, 0.0]), scores_N, torch.zeros(3, dtype=torch.int64))
    >>> round(slope, 2)
    0.41
    """
    valid_N, rewards_N, scores_N = check_rows(group_ids_N, valid_N, rewards_N=rewards_N, scores_N=scores_N)
    tables = [rows_BG for rows_BG in groups_by_size(group_ids_N, valid_N) if rows_BG.shape[1] > 1]
    slope = 0.0
    for _ in range(MAX_NEWTON_STEPS):  # of Newton's, on a concave function
        gradient, curvature = -slope, 1.0
        for rows_BG in tables:
            rewards_BG, scores_BG = rewards_N[rows_BG], scores_N[rows_BG]
            for block in row_blocks(*rows_BG.shape):
                margins_BIG = score_margins(scores_BG, block, "auto")
                better_BIG = rewards_BG[:, block, None] > rewards_BG[:, None, :]
                margins = margins_BIG[better_BIG].double()
                lost = (-slope * margins).sigmoid()
                gradient += float((lost * margins).sum()) * 2 / rows_BG.shape[1]
                curvature += float((lost * (1 - lost) * margins.square()).sum()) * 2 / rows_BG.shape[1]
        step = max(-1.0, min(1.0, gradient / curvature))
        slope = max(0.0, slope + step)
        if abs(step) < 1e-9 or (slope == 0 and step < 0):
            break
    return slope


def relative_weights(peers_BG: Tensor) -> Tensor:
    """Weights of the peers over the mean of their group; 1 where all are 0."""
    mean_B1 = peers_BG.mean(1, keepdim=True)
    return torch.where(mean_B1 > 0, peers_BG / mean_B1, 1.0)


@torch.no_grad()
def pairwise_terms(
    rewards_G: Tensor,
    scores_G: Tensor,
    *,
    valid_N: Tensor | None = None,
    weight: Weight = "policy",
    temperature: float | Literal["auto"] = "auto",
    slope: float = 1.0,
    normalizer: Normalizer = "peers",
    scale: Scale = "group_std",
) -> Tensor:
    r"""What every ordered pair of one group contributes: the advantages of `pairwise_advantages`, taken apart.

        C_ij = w_ij (R_i - R_j)        divided by std(R) + 1e-4 under scale = group_std, by mean(R) under group_mean

    Args:
        rewards_G: (G,) rewards of one group.
        scores_G: (G,) their scores.
        valid_N: (G,) bool; None means that every row is valid.
        weight: as in `pairwise_advantages`.
        temperature, slope: as in `pairwise_advantages`.
        normalizer: taken so that both functions accept the same options; the terms are those before normalisation.
        scale: as in `pairwise_advantages`.

    Returns:
        (G, G) terms, row i for the rollout that is judged. A row's sum over its normaliser, |V| - 1 under peers and
        sum_j w_ij under weights, is its advantage. The diagonal, and rows and columns that are not valid, are
        exactly 0.

    Raises:
        ValueError: as `pairwise_advantages`.

    >>> pairwise_terms(torch.tensor([1.0, 0.0]), torch.tensor([-1.0, -1.0]), scale="none")
    tensor([[ 0.0000,  0.5000],
            [-0.5000,  0.0000]])
    """
    check_options(weight, temperature, normalizer, scale, slope)
    group_ids_G = torch.zeros_like(rewards_G, dtype=torch.int64)
    valid_G, rewards_G, scores_G = check_rows(group_ids_G, valid_N, rewards_G=rewards_G, scores_G=scores_G)
    terms_GG = rewards_G.new_zeros(len(rewards_G), len(rewards_G))
    rows = valid_G.nonzero().squeeze(1)
    if len(rows) > 1:
        rewards_1G, scores_1G = rewards_G[None, rows], scores_G[None, rows]
        everyone = slice(0, len(rows))
        margins_1GG, gaps_1GG = pair_margins_and_gaps(rewards_1G, scores_1G, everyone, weight, temperature, slope)
        terms_GG[rows[:, None], rows] = (margins_1GG.sigmoid() * gaps_1GG)[0] / reward_scale(rewards_1G, scale)
    return terms_GG


@torch.no_grad()
def pair_statistics(
    scores_N: Tensor,
    group_ids_N: Tensor,
    *,
    valid_N: Tensor | None = None,
    temperature: float | Literal["auto"] = "auto",
    slope: float = 1.0,
    **_: object,
) -> dict[str, float]:
    """What to watch about the comparisons of a step.

    Args:
        scores_N: (N,) scores; rows that are not valid may hold NaN.
        group_ids_N: (N,) integers.
        valid_N: (N,) bool; None means that every row is valid.
        temperature, slope: as in `pairwise_advantages`. Its other options change nothing here.

    Returns:
        saturation: of the ordered pairs of different rollouts, the share with beta |s_i - s_j| / tau > 5, in [0, 1]:
            there the weight is a step function, which for summed log-probs of long traces mostly compares lengths.
        temperature: tau averaged over the groups with a pair; 0 where there is none.
        Both are finite. The numbers about groups that need no scores are in `group_statistics`.

    Raises:
        ValueError: as `pairwise_advantages`.

    >>> scores_N = torch.tensor([-1.0, -1.0, -9.0])
    >>> pair_statistics(scores_N, torch.zeros(3, dtype=torch.int64), temperature=1.0)
    {'saturation': 0.6666666666666666, 'temperature': 1.0}
    """
    check_temperature(temperature, slope)
    valid_N, scores_N = check_rows(group_ids_N, valid_N, scores_N=scores_N)
    num_pairs = num_saturated = num_groups = 0
    mean_temperature = 0.0
    for rows_BG in groups_by_size(group_ids_N, valid_N):
        B, G = rows_BG.shape
        if G == 1:
            continue
        scores_BG = scores_N[rows_BG]
        for block in row_blocks(B, G):
            num_saturated += int((score_margins(scores_BG, block, temperature, slope).abs() > SATURATED_MARGIN).sum())
        num_pairs += B * G * (G - 1)
        num_groups += B
        bucket_temperature = 4 * float((quarter_temperature(scores_BG, temperature) / B).sum())
        mean_temperature += (bucket_temperature - mean_temperature) * (B / num_groups)
    return {
        "saturation": num_saturated / max(num_pairs, 1),
        "temperature": min(mean_temperature, sys.float_info.max),
    }


def check_options(weight: str, temperature: float | str, normalizer: str, scale: str, slope: float) -> None:
    """Raise a ValueError for an option that `pairwise_advantages` does not know."""
    check_option("weight", weight, get_args(Weight))
    check_option("normalizer", normalizer, get_args(Normalizer))
    check_option("scale", scale, get_args(Scale))
    check_temperature(temperature, slope)


def check_temperature(temperature: float | str, slope: float) -> None:
    """Raise a ValueError for what is no temperature, or no slope."""
    if temperature != "auto" and (isinstance(temperature, str | bool) or not 0 < temperature < math.inf):
        raise ValueError(f'temperature must be "auto" or a finite positive number; not {temperature!r}')
    if not 0 <= slope < math.inf:
        raise ValueError(f"slope must be a finite number of at least 0; not {slope!r}")


def quarter_temperature(scores_BG: Tensor, temperature: float | Literal["auto"]) -> Tensor:
    """(B, 1) tau / 4: of a quarter of the scores no gap and no root mean square of gaps can overflow."""
    if temperature == "auto":
        root_mean_square_B1 = math.sqrt(2) * standard_deviation(scores_BG / 4)
        return root_mean_square_B1.clamp(min=SMALLEST_AUTO_TEMPERATURE / 4)
    limits = torch.finfo(scores_BG.dtype)
    return scores_BG.new_full((len(scores_BG), 1), min(max(temperature / 4, limits.tiny), limits.max))


def pair_margins_and_gaps(
    rewards_BG: Tensor,
    scores_BG: Tensor,
    block: slice,
    weight: Weight,
    temperature: float | Literal["auto"],
    slope: float,
) -> tuple[Tensor, Tensor]:
    """Of rows i of a block against all rows j: m_ij, the finite number with w_ij = sigmoid(m_ij), and R_i - R_j."""
    gaps_BIG = rewards_BG[:, block, None] - rewards_BG[:, None, :]
    if weight == "uniform":
        return torch.zeros_like(gaps_BIG), gaps_BIG
    margins_BIG = score_margins(scores_BG, block, temperature, slope)
    if weight == "policy":
        return margins_BIG, gaps_BIG
    if weight == "winner":
        return gaps_BIG.sign() * margins_BIG.abs(), gaps_BIG
    better_margins_BIG = gaps_BIG.sign() * margins_BIG
    return (better_margins_BIG if weight == "better" else -better_margins_BIG), gaps_BIG


def score_margins(scores_BG: Tensor, block: slice, temperature: float | Literal["auto"], slope: float = 1.0) -> Tensor:
    """(B, I, G) score gaps s_i - s_j, times beta over tau, of rows i of a block against all rows j. Finite whatever the scores."""
    quarters_BG = scores_BG / 4
    temperature_B11 = quarter_temperature(scores_BG, temperature)[:, :, None]
    limit = torch.finfo(scores_BG.dtype).max
    margins_BIG = (quarters_BG[:, block, None] - quarters_BG[:, None, :]) / temperature_B11
    return margins_BIG.clamp(-limit, limit).mul_(slope).clamp_(-limit, limit)


def reward_scale(rewards_BG: Tensor, scale: Scale) -> Tensor | float:
    """What the advantages are divided by: (B, 1), or 1."""
    if scale == "group_mean":
        mean_B1 = rewards_BG.mean(1, keepdim=True)
        return torch.where(mean_B1 > 0, mean_B1, 1.0)
    return standard_deviation(rewards_BG) + GROUP_STD_EPSILON if scale == "group_std" else 1.0
