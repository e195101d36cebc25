"""Whether a quicker way with a model comes out as its own does. Each is tried once, on a few tokens.

A model may have layers or an attention of its own, a kernel may refuse its heads or the card, and Triton may be missing.
"""

from __future__ import annotations

from collections.abc import Callable
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from . import flash_layer, logprobs
from .decode_step import DecodeStep
from .flash_step import FlashStep
from .packing import Packing

if TYPE_CHECKING:
    from .policy import Policy

NEAR = 0.05
"""How far packed states may be from those of rows alone. In bfloat16 single numbers of a state are further off than its norm."""
NEAR_ALL = 0.1
"""... and the numbers of a quick step, or of a gradient, together. The kernels round elsewhere than torch's operations."""


@torch.no_grad()
def packs(policy: Policy) -> bool:
    """Whether two packed rows come out as they do alone, to 5 % of each token's state.

    CUDA's kernel knows no window between a completion and its prompt.
    """
    known = (DynamicLayer, DynamicSlidingWindowLayer) if policy.device.type == "cpu" else (DynamicLayer,)
    if any(type(layer) not in known for layer in policy.empty_cache().layers):
        return False
    training = policy.model.training
    policy.model.eval()
    try:
        packing, rows = Packing.example(policy.device)
        with policy.precision(cached=False):
            states = policy.packed_states(packing).float()
            alone = [policy.hidden_states(packing.ids[row][None])[0].float() for row in rows]
        near = [
            (states[row] - each).norm(dim=-1) <= NEAR * each.norm(dim=-1) for row, each in zip(rows, alone, strict=True)
        ]
        return bool(torch.cat(near).all())
    except Exception:  # whatever a model makes of an argument that it does not know
        return False
    finally:
        policy.model.train(training)


def learns_by_flash(policy: Policy) -> bool:
    """Whether packed layers of few kernels give the gradient of transformers' own. If so, the model has them from now on."""
    if not flash_layer.takes(policy.backbone):
        return False
    weights = [each for each in policy.backbone.layers[0].parameters() if each.requires_grad]

    def gradient() -> list[Tensor]:
        """Of the first layer, so that it comes through all of them; and what it is of."""
        packing, _ = Packing.example(policy.device)
        with torch.enable_grad(), policy.precision(cached=False):
            states = policy.packed_states(packing).float()
            upstream = torch.linspace(-1, 1, states.numel(), device=states.device).view_as(states)
            grads = torch.autograd.grad((states * upstream).sum(), weights)
        return [states.detach(), torch.cat([each.float().flatten() for each in grads])]

    def quick() -> list[Tensor]:
        flash_layer.make_flash(policy.backbone)
        return gradient()

    if _same(policy, "Updates take transformers' own layers", gradient, quick):
        return True
    flash_layer.unmake_flash(policy.backbone)
    return False


def scores_by_kernels(policy: Policy) -> bool:
    """Whether the head's log-probabilities and their gradient come out of the kernels as of torch's operations."""
    logits = torch.linspace(-4, 4, 2 * 5, device=policy.device).view(2, 5).bfloat16()
    targets = torch.tensor([0, 4], device=policy.device)

    def found(module: Any) -> list[Tensor]:
        scores = module.score(logits, targets, 0.7)
        back = module.score_back(logits.clone(), targets, scores[2], torch.ones_like(scores[0]), 0.7)
        return [*scores, back.float()]

    def quick() -> list[Tensor]:
        from . import update_kernels

        return found(update_kernels)

    return _same(policy, "Log-probabilities take torch's operations", lambda: found(logprobs), quick)


@torch.no_grad()
def steps_by_flash(policy: Policy) -> bool:
    """Whether quick decode steps on CUDA come out as the model's own, up to bfloat16."""
    ids = torch.tensor([[0, 1, 2], [2, 1, 0]], device=policy.device)

    def own() -> list[Tensor]:
        with policy.precision():
            return [policy.hidden_states(ids)[:, -1].float()]

    def quick() -> list[Tensor]:
        with policy.precision():
            return [FlashStep(policy.backbone, longest=3).states_after(ids).float()]

    return FlashStep.takes(policy.backbone) and _same(policy, "Sampling takes slower steps", own, quick)


@torch.no_grad()
def steps_quickly(policy: Policy) -> bool:
    """Whether a quick decode step on a CPU comes out as the model's own."""
    if not DecodeStep.takes(policy.backbone):
        return False
    ids = torch.tensor([[0, 1, 2], [2, 1, 0]])
    cache = policy.empty_cache()
    policy.hidden_states(ids[:, :-1], cache=cache)
    step = DecodeStep(policy.backbone, longest=3)(ids[:, -1], torch.full((2, 1), 2), None, cache)
    return torch.allclose(step, policy.hidden_states(ids)[:, -1], rtol=1e-3, atol=1e-3)


def _same(policy: Policy, otherwise: str, own: Callable[[], list[Tensor]], quick: Callable[[], list[Tensor]]) -> bool:
    """Whether both ways give the same. If not, the policy has to say what is slower, and why."""
    try:
        wanted, found = own(), quick()
        if all((each - other).norm() <= NEAR_ALL * other.norm() for each, other in zip(found, wanted, strict=True)):
            return True
        why = "they give other numbers"
    except Exception as error:  # whatever a compiler says of a card that it does not know
        why = shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
    policy.slower.append(f"{otherwise}, since the quick ones do not work here: {why}")
    return False
