"""What an evaluation says: avg@k, pass@k, maj@k, with intervals over problems, and the difference of two evaluations.

An interval answers "what if other problems of this kind had been asked?", so problems are resampled, with all their
responses. To resample responses would answer another question and be far too narrow.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..types import Verdict

RESAMPLES = 4999
Z = 1.96

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ProblemMean:
    """A mean over problems and the ends of its 95 % interval."""

    value: float
    low: float
    high: float
    num_problems: int


def wilson_interval(accuracy: float, num_problems: int) -> tuple[float, float]:
    """95 % interval of a share by Wilson's score (J. Am. Stat. Assoc. 22, 1927): in [0, 1], and sensible at 0 and 1.

        (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)

    `n` counts problems. With several responses a problem `p` is the mean over problems. The interval then is
    conservative, since the mean of several responses varies no more than one response.

    >>> low, high = wilson_interval(0.5, 100)
    >>> round(low, 3), round(high, 3)
    (0.404, 0.596)
    """
    n, p, z = num_problems, accuracy, Z
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (centre - spread) / (1 + z * z / n)), min(1.0, (centre + spread) / (1 + z * z / n))


def pass_at_k(num_responses: int, num_right: int, k: int) -> float:
    """Probability that one of k responses is right, unbiased: 1 - C(n - c, k) / C(n, k) (arXiv 2107.03374, equation 1).

    >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 2), pass_at_k(4, 4, 2)
    (0.25, 0.5, 1.0)

    Raises:
        ValueError: there are fewer responses than k.
    """
    if not 0 <= num_right <= num_responses or not 1 <= k <= num_responses:
        raise ValueError(
            f"pass@{k} needs at least {k} responses and 0 to all of them right, not {num_right} of {num_responses}"
        )
    return 1.0 - math.comb(num_responses - num_right, k) / math.comb(num_responses, k)


def majority(verdicts: Sequence[Verdict]) -> float | None:
    """Whether the answer given most often is right (self-consistency, arXiv 2203.11171). None if nobody gave one.

    All right answers count as the same answer, wrong ones by their text. A response without an answer, or with an unknown
    verdict, has no vote. Of answers that are given equally often one is drawn: its share of being right is returned.

    >>> right, wrong = Verdict("right", "2"), Verdict("wrong", "3")
    >>> majority([right, wrong, wrong]), majority([right, wrong]), majority([Verdict("wrong")])
    (0.0, 0.5, None)
    """
    votes = Counter(
        ("right", "") if verdict.status == "right" else ("wrong", " ".join((verdict.extracted or "").split()))
        for verdict in verdicts
        if verdict.status == "right" or (verdict.status == "wrong" and verdict.extracted)
    )
    if not votes:
        return None
    most = max(votes.values())
    first = [status for (status, _), count in votes.items() if count == most]
    return first.count("right") / len(first)


def mean_over_problems(values: Sequence[float]) -> ProblemMean:
    """The mean, with a 95 % interval by resampling problems (bias-corrected and accelerated bootstrap, Efron 1987).

    Where all values are equal (all right, all wrong, one problem) there is nothing to resample: Wilson's interval then.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a mean over problems needs at least one problem")
    mean = float(np.mean(values))
    if len(set(values)) == 1:
        return ProblemMean(mean, *wilson_interval(min(1.0, max(0.0, mean)), len(values)), len(values))
    low, high = _problem_bootstrap(values)
    return ProblemMean(mean, max(0.0, low), min(1.0, high), len(values))


@dataclass(frozen=True, slots=True)
class Difference:
    """How two evaluations differ on the same problems: B minus A."""

    estimate: ProblemMean
    num_better: int
    num_worse: int


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Mean of b - a over the same problems, with a 95 % interval by resampling problems.

    A problem's own difficulty cancels, so the interval is narrower than those of a and b suggest.

    >>> difference = paired_difference([0.0, 0.5, 1.0, 0.0], [1.0, 0.5, 1.0, 0.5])
    >>> difference.estimate.value, difference.num_better, difference.num_worse
    (0.375, 2, 0)
    """
    differences = [after - before for before, after in zip(a, b, strict=True)]
    if not differences:
        raise ValueError("the two evaluations have no problem in common")
    mean, n = float(np.mean(differences)), len(differences)
    if len(set(differences)) == 1:
        reach = wilson_interval(0.0, n)[1]  # no difference was seen in n problems: as wide as for none of n
        low, high = max(-1.0, mean - reach), min(1.0, mean + reach)
    else:
        low, high = _problem_bootstrap(differences)
    return Difference(
        ProblemMean(mean, low, high, n),
        sum(value > 0 for value in differences),
        sum(value < 0 for value in differences),
    )


def _problem_bootstrap(values: Sequence[float]) -> tuple[float, float]:
    array_N1 = np.asarray(values, dtype=float)[:, None]
    for method in ("BCa", "percentile"):  # BCa has no value where leaving one out changes nothing
        low, high = (float(end[0]) for end in bootstrap(array_N1, RESAMPLES, method=method))
        if math.isfinite(low) and math.isfinite(high):
            break
    return low, high


def bootstrap(
    values_NM: Array, resamples: int, *, level: float = 0.95, method: Literal["BCa", "percentile"] = "BCa"
) -> tuple[Array, Array]:
    """Ends of the intervals of the means of columns, by resampling rows. Not finite where the method has no value.

    The draws have a fixed seed, so the same values always have the same interval.
    """
    from scipy import stats  # a second to import, and only evaluations and comparisons ask for it

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        interval = stats.bootstrap(
            (values_NM,),
            np.mean,
            n_resamples=resamples,
            confidence_level=level,
            method=method,
            rng=np.random.default_rng(0),
        ).confidence_interval
    return np.asarray(interval.low), np.asarray(interval.high)
