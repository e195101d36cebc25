"""Log-probs and advantages in, the loss of one micro-batch out: a pure function of tensors.

The sums of a whole optimiser step are divided by one denominator that belongs to the step. So the gradient does not
depend on how the step is split over micro-batches or processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..options import call_own, call_with
from ..types import Aggregation, LampoError, SamplerCorrection
from .advantages.groups import check_option
from .importance import importance_weights
from .registry import SURROGATES, surrogate_function
from .surrogates import Terms, Tokens

WHERE_GIVEN = ("kl_ref", "entropy", "importance_weight", "importance_capped")
"""Statistics that a loss has only where it is given what they need."""


@dataclass(frozen=True, slots=True, eq=False)
class Loss:
    """The loss of one micro-batch.

    Attributes:
        value: scalar, already divided by the step's denominator: call backward on it, and add nothing else.
        statistics: detached scalars on the device of the inputs, for `merge_statistics`. All are sums over the tokens
            of the micro-batch (num_tokens, clipped_low, clipped_high, kl_old, and kl_ref, entropy, importance_weight and
            importance_capped where given) but ratio_min and ratio_max.
    """

    value: Tensor
    statistics: dict[str, Tensor]


def loss_denominator(num_rows: int, num_tokens: int, max_completion_tokens: int, aggregation: Aggregation) -> float:
    """What `policy_loss` divides its sums by: one number for all micro-batches of an optimiser step.

        sequence   num_rows                            every row weighs the same: GRPO, arXiv 2402.03300
        token      num_tokens                          every token weighs the same: DAPO, arXiv 2503.14476
        constant   num_rows * max_completion_tokens    a token weighs the same in every step: Dr. GRPO, arXiv 2503.20783

    Args:
        num_rows: rows of the whole step, over all processes; rows left out because their advantage is 0 count.
        num_tokens: their completion tokens.
        max_completion_tokens: the longest completion that could have been sampled, a setting.
        aggregation: sequence, token or constant.

    Returns:
        The denominator; at least 1, so that a step without a token is a step without a gradient.

    Raises:
        ValueError: another aggregation.

    >>> loss_denominator(num_rows=8, num_tokens=500, max_completion_tokens=100, aggregation="constant")
    800.0
    """
    check_option("aggregation", aggregation, get_args(Aggregation))
    denominators = {"sequence": num_rows, "token": num_tokens, "constant": num_rows * max_completion_tokens}
    return float(max(denominators[aggregation], 1))


def policy_loss(
    logprobs_NT: Tensor,
    old_logprobs_NT: Tensor,
    advantages: Tensor,
    mask_NT: Tensor,
    *,
    denominator: float,
    surrogate: str | Callable[..., Any] = "token",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    beta: float = 0.1,
    aggregation: Aggregation = "sequence",
    kl_coefficient: float = 0.0,
    ref_logprobs_NT: Tensor | None = None,
    entropy_NT: Tensor | None = None,
    group_ids_N: Tensor | None = None,
    sampler_correction: SamplerCorrection = "off",
    sampler_cap: float = 2.0,
    sampler_logprobs_NT: Tensor | None = None,
) -> Loss:
    r"""The surrogate of a micro-batch, by default the clipped one of PPO (arXiv 1707.06347), and an optional KL penalty.

        r_it = exp(log pi(o_it) - log pi_old(o_it))
        l_it = -w_it min(r_it A_i, clip(r_it, 1 - clip_low, 1 + clip_high) A_i) + kl_coefficient * k3_it
        k3_it = exp(d_it) - d_it - 1,   d_it = log pi_ref(o_it) - log pi(o_it)
        w_it = 1, or under a sampler_correction see `importance_weights`
        loss = sum_i 1/T_i sum_t l_it / denominator        aggregation = sequence
             | sum_i sum_t l_it / denominator              aggregation = token, constant

    The aggregations token and constant differ in their denominator only, see `loss_denominator`. Equal clip ranges,
    `sequence` and a KL term are GRPO (arXiv 2402.03300). A wider upper range and `token` are DAPO (arXiv 2503.14476);
    `constant` is Dr. GRPO (arXiv 2503.20783). The other surrogates are in `lampo.algo.surrogates`: one ratio a response (sequence,
    GSPO), the geometric mean of clipped ratios (geometric, GMPO), clipped weights (cispo), centred log-ratios (gvpo). k3 is the
    estimator of KL(pi || pi_ref) of Schulman's note "Approximating KL divergence": unbiased for samples of pi, and never
    negative. Where pi = pi_old the gradient is that of REINFORCE.

    Args:
        logprobs_NT: (N, T) log-probs under the policy that learns; the gradient goes here and nowhere else.
        old_logprobs_NT: (N, T) log-probs under the policy that sampled. Under a sampler_correction the learner computed them.
        advantages: (N,) one a response, or (N, T) one a token; finite.
        mask_NT: (N, T) True on completion tokens. Whatever the other tensors hold elsewhere, NaN included, matters
            neither to the value nor to the gradient.
        denominator: of the whole optimiser step, see `loss_denominator`; > 0.
        surrogate: token, sequence, geometric, cispo, gvpo, python:module.function, or a function f(tokens, **settings). A function
            of your own gets the settings clip_low, clip_high and beta that it names. It returns `Terms`, or (N, T) losses alone.
        clip_low: a token whose advantage is negative has no gradient where r < 1 - clip_low (for geometric and cispo see there).
        clip_high: a token whose advantage is positive has no gradient where r > 1 + clip_high.
        beta: weight of the implicit reward; gvpo only.
        aggregation: sequence, token or constant.
        kl_coefficient: >= 0; 0 needs no reference.
        ref_logprobs_NT: (N, T) log-probs under the reference policy.
        entropy_NT: (N, T) entropies of the policy, for the statistics only.
        group_ids_N: (N,) integers; gvpo only, which needs all rows of a group in one micro-batch.
        sampler_correction: off, or at which level the surrogate is weighted for a sampler that is another program than the learner.
        sampler_cap: the largest of these weights.
        sampler_logprobs_NT: (N, T) log-probs as the sampler computed them.

    Returns:
        The loss, at least float32. Summed over the micro-batches of a step, value and gradient are the same for every
        split. A row without tokens adds 0; so does the surrogate of a row whose advantage is 0, whatever its ratio. The
        gradient of a clipped token is exactly 0. Log-probs so far apart that a ratio that counts overflows give a loss
        that is not finite: the caller has to look.

    Raises:
        ValueError: shapes that differ, an unknown aggregation, a negative or non-finite clip range or coefficient, a
            denominator that is not positive, a KL term without a reference, or a correction without the sampler's log-probs.

    The policy now finds the first token twice as likely as it did, more than the clip range rewards:

    >>> logprobs_NT = torch.tensor([[0.5, 0.25]]).log().requires_grad_()
    >>> old_logprobs_NT = torch.tensor([[0.25, 0.25]]).log()
    >>> loss = policy_loss(logprobs_NT, old_logprobs_NT, torch.ones(1), torch.ones(1, 2), denominator=1)
    >>> loss.value.backward()
    >>> loss.value.item(), logprobs_NT.grad  # (-1.2 - 1) / 2
    (-1.100000023841858, tensor([[ 0.0000, -0.5000]]))
    """
    check_settings(aggregation, denominator, clip_low, clip_high, beta, kl_coefficient, ref_logprobs_NT)
    check_option("sampler_correction", sampler_correction, get_args(SamplerCorrection))
    if sampler_correction != "off" and sampler_logprobs_NT is None:
        raise ValueError(f"sampler_correction is {sampler_correction}, which needs sampler_logprobs_NT")
    check_shapes(
        logprobs_NT, old_logprobs_NT, advantages, mask_NT, ref_logprobs_NT, entropy_NT, group_ids_N, sampler_logprobs_NT
    )
    mask_NT = mask_NT.bool()

    def on_tokens(values_NT: Tensor) -> Tensor:
        """Zero on padding, before anything is computed: a mask after the fact would let NaN into the gradient."""
        dtype = torch.promote_types(values_NT.dtype, torch.float32)
        return torch.where(mask_NT, values_NT, 0.0).to(dtype)

    logprobs_NT = on_tokens(logprobs_NT)
    log_ratio_NT = logprobs_NT - on_tokens(old_logprobs_NT.detach())
    advantages = advantages.detach()
    advantages_NT = on_tokens(advantages) if advantages.dim() == 2 else advantages[:, None]
    tokens = Tokens(log_ratio_NT, logprobs_NT, advantages_NT, mask_NT, group_ids_N)
    settings = {"clip_low": clip_low, "clip_high": clip_high, "beta": beta}
    losses_NT, too_low_NT, too_high_NT = surrogate_terms(surrogate, tokens, settings)

    with torch.no_grad():
        ratio_NT = log_ratio_NT.exp()
        statistics = {
            "num_tokens": mask_NT.sum(),
            "clipped_low": too_low_NT.sum(),
            "clipped_high": too_high_NT.sum(),
            "kl_old": k3(log_ratio_NT).sum(),
            "ratio_min": pad(torch.where(mask_NT, ratio_NT, math.inf).flatten(), (0, 1), value=math.inf).min(),
            "ratio_max": pad(torch.where(mask_NT, ratio_NT, -math.inf).flatten(), (0, 1), value=-math.inf).max(),
        }

    if sampler_correction != "off":
        assert sampler_logprobs_NT is not None
        weights_NT = importance_weights(
            old_logprobs_NT, sampler_logprobs_NT, mask_NT, level=sampler_correction, cap=sampler_cap
        )
        losses_NT = weights_NT * losses_NT
        statistics["importance_weight"] = weights_NT.sum()
        statistics["importance_capped"] = (weights_NT >= sampler_cap).sum()
    if ref_logprobs_NT is not None:
        kl_ref_NT = k3(on_tokens(ref_logprobs_NT.detach()) - logprobs_NT)
        statistics["kl_ref"] = kl_ref_NT.detach().sum()
        if kl_coefficient > 0:
            losses_NT = losses_NT + kl_coefficient * kl_ref_NT
    if entropy_NT is not None:
        statistics["entropy"] = on_tokens(entropy_NT.detach()).sum()

    losses_N = losses_NT.sum(1)
    if aggregation == "sequence":
        losses_N = losses_N / mask_NT.sum(1).clamp(min=1)
    return Loss(losses_N.sum() / denominator, statistics)


def surrogate_terms(surrogate: str | Callable[..., Any], tokens: Tokens, settings: dict[str, float]) -> Terms:
    """The terms of a surrogate, which is called with the settings that it names.

    Raises:
        LampoError: a function of the user's own cannot be imported, raises, or returns something else than losses.
        ValueError: there is no surrogate of that name.
    """
    function = surrogate_function(surrogate) if isinstance(surrogate, str) else surrogate
    if surrogate in SURROGATES:
        return call_with(function, {"tokens": tokens}, settings)
    said = call_own(function, f"The surrogate {surrogate}", {"tokens": tokens}, settings)
    if isinstance(said, Terms):
        return said
    shape = tokens.mask_NT.shape
    if not isinstance(said, Tensor) or said.shape != shape:
        what = f"a tensor {tuple(said.shape)}" if isinstance(said, Tensor) else f"a {type(said).__name__}"
        raise LampoError(
            f"The surrogate {surrogate} returned {what}. It must return Terms, or losses of the shape {tuple(shape)}."
        )
    nothing_NT = torch.zeros_like(tokens.mask_NT)
    return Terms(torch.where(tokens.mask_NT, said, 0.0), nothing_NT, nothing_NT)


def merge_statistics(statistics: Sequence[dict[str, Tensor]]) -> dict[str, float]:
    """The statistics of a step from those of its micro-batches. The only place that waits for the device.

    Args:
        statistics: of every `Loss` of the step.

    Returns:
        Averages over all tokens of the step: clip_fraction_low and clip_fraction_high, the shares of tokens whose
        gradient the clip took away; kl_old, the k3 estimate of KL(pi_old || pi); kl_ref, entropy, importance_weight and
        importance_capped, the share of weights at the cap, where they were given. Then ratio_min, ratio_max and
        num_tokens. A step without a token has averages of 0 and ratios of 1:
        nothing moved.

    Raises:
        ValueError: micro-batches that do not hold the same statistics.

    >>> zeros = torch.zeros(1, 2)
    >>> loss = policy_loss(zeros, zeros, torch.ones(1), torch.ones(1, 2), denominator=1)
    >>> merge_statistics([loss.statistics])["num_tokens"]
    2.0
    """
    names = set().union(*statistics)
    if any(part.keys() != names for part in statistics):
        raise ValueError(f"the micro-batches of a step must hold the same statistics; some lack one of {sorted(names)}")

    def gather(name: str) -> Tensor:
        return torch.stack([part[name] for part in statistics])

    num_tokens = int(gather("num_tokens").sum()) if statistics else 0

    def average(name: str) -> float:
        return float(gather(name).sum()) / num_tokens if num_tokens else 0.0

    merged = {
        "clip_fraction_low": average("clipped_low"),
        "clip_fraction_high": average("clipped_high"),
        "kl_old": average("kl_old"),
    }
    merged |= {name: average(name) for name in WHERE_GIVEN if name in names}
    return merged | {
        "ratio_min": float(gather("ratio_min").amin()) if num_tokens else 1.0,
        "ratio_max": float(gather("ratio_max").amax()) if num_tokens else 1.0,
        "num_tokens": float(num_tokens),
    }


def k3(log_ratio: Tensor) -> Tensor:
    """exp(x) - x - 1 >= 0, without cancellation near 0."""
    return log_ratio.expm1() - log_ratio


def check_settings(
    aggregation: str,
    denominator: float,
    clip_low: float,
    clip_high: float,
    beta: float,
    kl_coefficient: float,
    ref_logprobs_NT: Tensor | None,
) -> None:
    """Raise a ValueError for a number or a combination that has no meaning."""
    check_option("aggregation", aggregation, get_args(Aggregation))
    if not 0 < denominator < math.inf:
        raise ValueError(f"denominator must be a finite positive number; not {denominator}")
    settings = {"clip_low": clip_low, "clip_high": clip_high, "beta": beta, "kl_coefficient": kl_coefficient}
    for name, value in settings.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be finite and not negative; not {value}")
    if kl_coefficient > 0 and ref_logprobs_NT is None:
        raise ValueError(f"kl_coefficient is {kl_coefficient}, which needs ref_logprobs_NT")


def check_shapes(
    logprobs_NT: Tensor,
    old_logprobs_NT: Tensor,
    advantages: Tensor,
    mask_NT: Tensor,
    ref_logprobs_NT: Tensor | None,
    entropy_NT: Tensor | None,
    group_ids_N: Tensor | None,
    sampler_logprobs_NT: Tensor | None = None,
) -> None:
    """Raise a ValueError that names the tensor whose shape does not fit `logprobs_NT`."""
    if logprobs_NT.dim() != 2:
        raise ValueError(f"logprobs_NT must have the shape (N, T), not {tuple(logprobs_NT.shape)}")
    expected = {
        "old_logprobs_NT": (old_logprobs_NT, logprobs_NT.shape),
        "advantages": (advantages, logprobs_NT.shape if advantages.dim() == 2 else logprobs_NT.shape[:1]),
        "mask_NT": (mask_NT, logprobs_NT.shape),
        "ref_logprobs_NT": (ref_logprobs_NT, logprobs_NT.shape),
        "entropy_NT": (entropy_NT, logprobs_NT.shape),
        "group_ids_N": (group_ids_N, logprobs_NT.shape[:1]),
        "sampler_logprobs_NT": (sampler_logprobs_NT, logprobs_NT.shape),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, but logprobs_NT has {tuple(logprobs_NT.shape)}: "
                f"expected {tuple(shape)}"
            )
