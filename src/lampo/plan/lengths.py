"""How long responses are: a log-normal cut at the longest, or those that a run kept."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

from ..store.rollouts import read_groups, rollout_steps
from ..types import LampoError

SPREAD = 0.6
"""Standard deviation of the logarithm of a length, assumed."""
STEPS_READ = 5

_NORMAL = NormalDist()


def assumed_lengths(count: int, mean: float, longest: int) -> list[int]:
    """`count` lengths that stand for a log-normal distribution cut at `longest`, with this mean after the cut. In ascending order."""
    low, high = math.log(max(1.0, mean)) - 3, math.log(longest) + 6
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _mean_of_cut(middle, longest) < mean else (low, middle)
    spread = (_NORMAL.inv_cdf((number + 0.5) / count) for number in range(count))
    return [min(longest, max(1, round(math.exp(low + SPREAD * z)))) for z in spread]


def _mean_of_cut(location: float, longest: int) -> float:
    """E[min(X, longest)] of log X ~ N(location, SPREAD^2)."""
    z = (math.log(longest) - location) / SPREAD
    below = math.exp(location + SPREAD**2 / 2) * _NORMAL.cdf(z - SPREAD)
    return below + longest * (1 - _NORMAL.cdf(z))


def kept_lengths(run: Path) -> list[int]:
    """Lengths of the rollouts of a run's last steps, in ascending order.

    Raises:
        LampoError: it kept none.
    """
    steps = rollout_steps(run)[-STEPS_READ:]
    lengths = [rollout["length"] for step in steps for group in read_groups(run, step) for rollout in group["rollouts"]]
    if not lengths:
        raise LampoError(f"{run} has no rollouts to take lengths from.")
    return sorted(lengths)


def resampled(lengths: Sequence[int], count: int) -> list[int]:
    """`count` evenly spread quantiles of lengths in ascending order."""
    return [lengths[int((number + 0.5) / count * len(lengths))] for number in range(count)]


def in_order_of_asking(lengths: Sequence[int]) -> list[int]:
    """The lengths as they come: an engine does not know which response will be long."""
    shuffled = list(lengths)
    random.Random(0).shuffle(shuffled)
    return shuffled
