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
"""How far packed states may be from those of rows alone in bfloat16. Single numbers of a state are further off than its norm."""
NEAR_IN_FLOAT32 = 1e-3
NEAR_ALL = 0.1
"""... and the numbers of a quick step, or log-probs and their gradient. The kernels round elsewhere than torch's operations."""
NEAR_EACH = 0.2
"""... and the gradient of each weight of a layer. That of a bias of keys is nothing but rounding: here 0.08."""


@torch.no_grad()
def packs(policy: Policy) -> bool:
    """Whether two packed rows come out as they do alone, in the norm of each token's state.

    CUDA's kernel knows no window between a completion and its prompt.
    """
    known = (DynamicLayer, DynamicSlidingWindowLayer) if policy.device.type == "cpu" else (DynamicLayer,)
    if any(type(layer) not in known for layer in policy.empty_cache().layers):
        return False
    training = policy.model.training
    policy.model.eval()
    try:
        packing, rows = Packing.example(policy.device, _ordinary(policy))
        with policy.precision(cached=False):
            states = policy.packed_states(packing).float()
            alone = [policy.hidden_states(packing.ids[row][None])[0].float() for row in rows]
        limit = NEAR if policy.in_bfloat16 else NEAR_IN_FLOAT32
        near = [
            (states[row] - each).norm(dim=-1) <= limit * each.norm(dim=-1)
            for row, each in zip(rows, alone, strict=True)
        ]
        return bool(torch.cat(near).all())
    except Exception:  # whatever a model makes of an argument that it does not know
        return False
    finally:
        policy.model.train(training)


def learns_by_flash(policy: Policy) -> bool:
    """Whether packed layers of few kernels give the gradients of transformers' own. If so, the model has them from now on.

    The first layer is tried alone. Through many layers transformers' own gradient in bfloat16 may be further from the exact one than this
    allows, and with random weights and a token whose embedding is 0 it is no number.
    """
    backbone = policy.backbone
    if not flash_layer.takes(backbone):
        return False
    weights = [each for each in backbone.layers[0].parameters() if each.requires_grad]

    def gradients() -> list[Tensor]:
        """Each of the layer's, and what they are of."""
        packing, _ = Packing.example(policy.device, _ordinary(policy))
        with torch.enable_grad(), policy.precision(cached=False):
            states = policy.packed_states(packing).float()
            if not weights:  # adapters are elsewhere
                return [states.detach()]
            upstream = torch.linspace(-1, 1, states.numel(), device=states.device).view_as(states)
            return [states.detach(), *torch.autograd.grad((states * upstream).sum(), weights)]

    def quick() -> list[Tensor]:
        flash_layer.make_flash(backbone)
        return gradients()

    layers = backbone.layers
    backbone.layers = layers[:1]
    try:
        same = _same(policy, "Updates take transformers' own layers", gradients, quick, NEAR_EACH)
        flash_layer.unmake_flash(backbone)
    finally:
        backbone.layers = layers
    if same:
        flash_layer.make_flash(backbone)
    return same


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
    ids = torch.tensor([[0, 1, 2], [2, 1, 0]], device=policy.device) + _ordinary(policy)

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
    ids = torch.tensor([[0, 1, 2], [2, 1, 0]]) + _ordinary(policy)
    cache = policy.empty_cache()
    policy.hidden_states(ids[:, :-1], cache=cache)
    step = DecodeStep(policy.backbone, longest=3)(ids[:, -1], torch.full((2, 1), 2), None, cache)
    return torch.allclose(step, policy.hidden_states(ids)[:, -1], rtol=1e-3, atol=1e-3)


def _ordinary(policy: Policy) -> int:
    """The first of three words in the middle of the vocabulary. Special ones stand at its ends, with states so large that in bfloat16 two
    right ways come out far from each other.
    """
    vocabulary = policy.head.out_features
    return min(vocabulary // 2, vocabulary - 3)


def _same(
    policy: Policy,
    otherwise: str,
    own: Callable[[], list[Tensor]],
    quick: Callable[[], list[Tensor]],
    near: float = NEAR_ALL,
) -> bool:
    """Whether both ways give the same, each tensor by itself. If not, the policy has to say what is slower, and why."""
    try:
        wanted, found = own(), quick()
        if all((each - other).norm() <= near * other.norm() for each, other in zip(found, wanted, strict=True)):
            return True
        why = "they give other numbers"
    except Exception as error:  # whatever a compiler says of a card that it does not know
        why = shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
    policy.slower.append(f"{otherwise}, since the quick ones do not work here: {why}")
    return False
