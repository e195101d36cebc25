"""What every estimator shares: which rows form a group, what is refused, and the spread of a group.

Rows arrive in any order, with any integer as group id and groups of any size. They are brought into dense (B, G)
tables, one for each distinct group size, after the rows that are not valid have been dropped: that a masked row is
the same as an absent one holds by construction. Here and in the estimators

    B   groups of one size
    G   valid rollouts of such a group
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

GROUP_STD_EPSILON = 1e-4
"""Added to a group's reward std before dividing by it, as TRL's GRPOTrainer does."""

PAIRS_PER_BLOCK = 2**20
"""Temporaries hold about this many pairs, however large a group is."""

# A reward beyond the largest float of its dtype times this is refused: sums of its gaps could overflow.
REWARD_HEADROOM = 2.0**-24


def floating_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype to compute in: the promotion of all, and never less than float32.

    >>> floating_dtype(torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.int64))
    torch.float32
    >>> floating_dtype(torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float16))
    torch.float64
    """
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def check_option(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise a ValueError that lists the allowed values, unless `value` is one of them."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; not {value!r}")


def check_rows(group_ids_N: Tensor, valid_N: Tensor | None, **values_N: Tensor) -> tuple[Tensor, ...]:
    """Refuse what has no meaning, and return `valid_N` as bool followed by the values in the dtype to compute in.

    Raises:
        ValueError: tensors of different shapes, or not one-dimensional; group ids that are not integers;
            a valid row whose value is not finite, or whose reward is too large to form gaps.
    """
    valid_N = torch.ones_like(group_ids_N, dtype=torch.bool) if valid_N is None else valid_N.bool()
    named = {**values_N, "group_ids_N": group_ids_N, "valid_N": valid_N}
    if group_ids_N.dim() != 1 or len({tensor.shape for tensor in named.values()}) != 1:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in named.items())
        raise ValueError(f"every tensor must have the same shape (N,), but the shapes are: {shapes}")
    if group_ids_N.dtype.is_floating_point or group_ids_N.dtype.is_complex:
        raise ValueError(f"group_ids_N must hold integers, not {group_ids_N.dtype}")

    dtype = floating_dtype(*values_N.values())
    for name, value_N in values_N.items():
        limit = torch.finfo(dtype).max * (REWARD_HEADROOM if name.startswith("rewards") else 1.0)
        bad_N = valid_N & ~(value_N.to(dtype).abs() <= limit)
        if bad_N.any():
            row = int(bad_N.nonzero()[0])
            value = float(value_N[row])
            reason = "is not finite" if not math.isfinite(value) else "is too large to form gaps"
            raise ValueError(
                f"{name}[{row}] is {value}, which {reason}; a row without a meaning must be marked not valid"
            )
    return valid_N, *(value_N.to(dtype) for value_N in values_N.values())


def check_not_negative(name: str, values_N: Tensor, valid_N: Tensor, why: str) -> None:
    """Raise a ValueError that names the first valid row with a negative value, and says why there must be none."""
    if (negative_N := valid_N & (values_N < 0)).any():
        row = int(negative_N.nonzero()[0])
        raise ValueError(f"{name}[{row}] is {float(values_N[row])}: {why}")


def check_negative(negative: float) -> None:
    """Raise a ValueError for what is no factor of negative advantages."""
    if not 0 <= negative < math.inf:
        raise ValueError(f"negative must be a finite number, at least 0; not {negative!r}")


def groups_by_size(group_ids_N: Tensor, valid_N: Tensor) -> list[Tensor]:
    """Row indices of the valid rows as dense tables, one (B, G) table for each distinct group size G.

    >>> group_ids_N = torch.tensor([7, -1, 7, 3, -1, 7])
    >>> [rows_BG.tolist() for rows_BG in groups_by_size(group_ids_N, torch.ones(6, dtype=torch.bool))]
    [[[3]], [[1, 4]], [[0, 2, 5]]]
    """
    valid_rows = valid_N.nonzero().squeeze(1)
    sorted_ids, order = group_ids_N[valid_rows].sort(stable=True)
    rows = valid_rows[order]
    _, sizes = sorted_ids.unique_consecutive(return_counts=True)
    starts = sizes.cumsum(0) - sizes
    return [
        rows[starts[sizes == size, None] + torch.arange(size, device=rows.device)] for size in sizes.unique().tolist()
    ]


def row_blocks(num_groups: int, group_size: int) -> Iterator[slice]:
    """The rows 0 .. G-1 in blocks, each of at most PAIRS_PER_BLOCK pairs or one row."""
    step = max(1, PAIRS_PER_BLOCK // (num_groups * group_size))
    for start in range(0, group_size, step):
        yield slice(start, min(start + step, group_size))


def estimate_by_group(
    estimator: Callable[..., Tensor], group_ids_N: Tensor, valid_N: Tensor, *values_N: Tensor
) -> Tensor:
    """Apply `estimator`, from (B, G) tables to (B, G) advantages, to all groups. Rows without a peer get 0."""
    advantages_N = torch.zeros_like(values_N[0])
    for rows_BG in groups_by_size(group_ids_N, valid_N):
        if rows_BG.shape[1] > 1:
            advantages_N[rows_BG] = estimator(*(value_N[rows_BG] for value_N in values_N))
    return advantages_N


def centred(values_BG: Tensor) -> Tensor:
    """Values minus the mean of their group: exactly 0, not a rounding residue, where all of them are equal."""
    above_lowest_BG = values_BG - values_BG.amin(1, keepdim=True)
    return above_lowest_BG - above_lowest_BG.mean(1, keepdim=True)


def standard_deviation(values_BG: Tensor) -> Tensor:
    """(B, 1) unbiased standard deviation (ddof 1), for G > 1 and values whose gaps are finite. Nothing overflows.

    Deviations are measured in units of the group's range, so that no square leaves the floating-point range.
    """
    lowest_B1, highest_B1 = values_BG.aminmax(dim=1, keepdim=True)
    range_B1 = highest_B1 - lowest_B1
    unit_BG = (values_BG - lowest_B1) / torch.where(range_B1 > 0, range_B1, 1.0)
    return range_B1 * unit_BG.std(1, keepdim=True)


@torch.no_grad()
def group_statistics(rewards_N: Tensor, group_ids_N: Tensor, *, valid_N: Tensor | None = None) -> dict[str, float]:
    """What a step's groups have to offer, whatever the estimator: the three numbers to log first.

    Args:
        rewards_N: (N,) rewards; rows that are not valid may hold NaN.
        group_ids_N: (N,) integers.
        valid_N: (N,) bool; None means that every row is valid.

    Returns:
        num_groups: distinct ids, groups without any valid row included.
        groups_without_peer: number of groups with 0 or 1 valid rollouts, where no comparison exists.
        share_without_spread: of the groups with at least 2 valid rollouts, the share whose rewards are all equal, in
            [0, 1]; these have no gradient under any estimator here but REINFORCE++ without a group baseline. 0 where there
            is no such group.

    Raises:
        ValueError: see `check_rows`.

    >>> rewards_N = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.5])
    >>> group_statistics(rewards_N, torch.tensor([0, 0, 1, 1, 2]))
    {'num_groups': 3.0, 'groups_without_peer': 1.0, 'share_without_spread': 0.5}
    """
    valid_N, rewards_N = check_rows(group_ids_N, valid_N, rewards_N=rewards_N)
    num_groups = group_ids_N.unique().numel()
    num_with_peer = num_without_spread = 0
    for rows_BG in groups_by_size(group_ids_N, valid_N):
        if rows_BG.shape[1] > 1:
            lowest_B, highest_B = rewards_N[rows_BG].aminmax(dim=1)
            num_with_peer += len(rows_BG)
            num_without_spread += int((lowest_B == highest_B).sum())
    return {
        "num_groups": float(num_groups),
        "groups_without_peer": float(num_groups - num_with_peer),
        "share_without_spread": num_without_spread / max(num_with_peer, 1),
    }


@torch.no_grad()
def concordance(
    rewards_N: Tensor, scores_N: Tensor, group_ids_N: Tensor, *, valid_N: Tensor | None = None
) -> float | None:
    """How often the better one of two rollouts of a group is also the likelier one: whether confidence tells right from wrong.

        mean over groups of   P(s_i > s_j) + P(s_i = s_j) / 2   over the pairs with R_i > R_j

    With rewards of 0 and 1 it is the area under the ROC curve of the score as a guess of the reward, within groups. 1: all right
    ones are likelier than all wrong ones; 0.5: the score says nothing. LamPO's `policy` weight leans on this.

    Args:
        rewards_N: (N,) rewards; rows that are not valid may hold NaN.
        scores_N: (N,) scores, see `sequence_scores`.
        group_ids_N: (N,) integers.
        valid_N: (N,) bool; None means that every row is valid.

    Returns:
        In [0, 1]; None where no group has two different rewards.

    Raises:
        ValueError: see `check_rows`.

    >>> concordance(torch.tensor([1.0, 0, 0]), torch.tensor([-1.0, -2, -0.5]), torch.zeros(3, dtype=torch.int64))
    0.5
    """
    valid_N, rewards_N, scores_N = check_rows(group_ids_N, valid_N, rewards_N=rewards_N, scores_N=scores_N)
    shares = []
    for rows_BG in groups_by_size(group_ids_N, valid_N):
        rewards_BG, scores_BG = rewards_N[rows_BG], scores_N[rows_BG]
        num_B, twice_B = (torch.zeros(len(rows_BG), dtype=torch.int64) for _ in range(2))
        for block in row_blocks(*rows_BG.shape):
            better_BIG = rewards_BG[:, block, None] > rewards_BG[:, None, :]
            num_B += _count(better_BIG)
            for likelier_BIG in (
                scores_BG[:, block, None] > scores_BG[:, None, :],
                scores_BG[:, block, None] >= scores_BG[:, None, :],
            ):
                twice_B += _count(likelier_BIG & better_BIG)  # once more where the score is larger, not equal
        shares += (twice_B / (2 * num_B))[num_B > 0].tolist()
    return sum(shares) / len(shares) if shares else None


def _count(found_BIG: Tensor) -> Tensor:
    """(B,) how many are true."""
    return torch.stack([found.count_nonzero() for found in found_BIG]).cpu()
