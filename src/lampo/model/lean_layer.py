"""Layers of Llama's kind that keep little for the backward pass, for packed rows on a CPU.

Autograd keeps what every operation needs: each tensor that a norm, a rotation and a gated MLP pass through. Here a layer keeps its inputs,
queries, keys and values, gate and up, and one number for each row of a norm. What lies between is an operation or two away and is computed
again. Values and gradients are those of transformers' own layer to the bit: the same operations in the same order.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, silu

from .decode_step import is_plain

if TYPE_CHECKING:
    from .packing import Packing

silu_backward: Any = torch.ops.aten.silu_backward


def takes(backbone: Any) -> bool:
    """Whether the layers of a model are of this kind."""
    config = backbone.config
    if not is_plain(backbone) or config.hidden_act != "silu" or getattr(config, "mlp_bias", False):
        return False
    return hasattr(backbone.layers[0].self_attn, "q_proj")  # Phi's is one product with those of keys and values


def make_lean(backbone: Any) -> None:
    """From now on its layers are computed as here where rows are packed. Their modules and weights stay what they are."""
    for layer in backbone.layers:
        layer.__class__ = _lean(type(layer))


@cache
def _lean(kind: type) -> type:
    """A kind of transformers' layers, lean. It is a subclass, which transformers lets checkpoint its inputs as all others."""
    return type(f"Lean{kind.__name__}", (_Lean, kind), {})


class _Lean:
    def forward(self, hidden_states: Tensor, **arguments: Any) -> Tensor:
        """What the layer makes of (1, M, D) states."""
        if "packing" in arguments:
            return _forward(self, hidden_states[0], **arguments)[None]
        return super().forward(hidden_states, **arguments)  # pyright: ignore[reportAttributeAccessIssue]


def _forward(layer: Any, states: Tensor, *, position_embeddings: Any, packing: Packing, **_: Any) -> Tensor:
    attention, mlp, norm = layer.self_attn, layer.mlp, layer.input_layernorm
    linears = [(each.weight, each.bias) for each in (attention.q_proj, attention.k_proj, attention.v_proj)]
    head_norms = [attention.q_norm.weight, attention.k_norm.weight] if hasattr(attention, "q_norm") else [None, None]
    weights = [weight for pair in linears for weight in pair]
    turn = tuple(each.transpose(0, 1) for each in position_embeddings)  # (M, 1, D)
    made: Any = _Heads.apply(states, turn, norm.variance_epsilon, norm.weight, *head_norms, *weights)
    states, query, key, value = made
    out = packing.attend(query, key, value, attention.scaling, getattr(attention, "sliding_window", None))
    states = attention.o_proj(out.flatten(1)).add_(states)
    norm, weights = layer.post_attention_layernorm, [mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight]
    return _MLP.apply(states, norm.variance_epsilon, norm.weight, *weights)  # pyright: ignore[reportReturnType]


class _Heads(torch.autograd.Function):
    """Queries, keys and values, (M, H, D) each, of states (M, D); and the states themselves, so that their gradients meet here."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, turn: tuple[Tensor, Tensor], epsilon: float, norm: Tensor, *rest: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        head_norms, weights, biases = [*rest[:2], None], rest[2::2], rest[3::2]
        scale = _scale(states, epsilon)
        normed = _normed(states, scale, norm)
        heads, kept = [], []
        for weight, bias, head_norm in zip(weights, biases, head_norms, strict=True):
            raw = linear(normed, weight, bias).unflatten(1, (-1, turn[0].shape[-1]))
            out, head_scale = raw, None
            if head_norm is not None:
                head_scale = _scale(raw, epsilon)
                out = _normed(raw, head_scale, head_norm)
            kept += [None if head_norm is None else raw, head_scale]
            heads.append(_turned(out, *turn) if len(heads) < 2 else out)
        ctx.save_for_backward(states, scale, norm, *turn, *head_norms, *weights, *biases, *kept)
        return states, *heads

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        states, scale, norm, cos, sin, *rest = ctx.saved_tensors
        head_norms, weights, biases, kept = rest[:3], rest[3:6], rest[6:9], rest[9:]
        normed = _normed(states, scale, norm)
        of_norms: list[Tensor | None] = [None, None, None]
        of_weights: list[Tensor | None] = [None] * 6
        of_normed = None
        for place in (2, 1, 0):  # in the order of autograd, which goes back
            part = grads[place] if place == 2 else _turned_back(grads[place], cos, sin)
            head_norm = head_norms[place]
            if head_norm is not None:
                part, of_norms[place] = _through_norm(part, kept[2 * place], kept[2 * place + 1], head_norm)
            part = part.flatten(1)
            of_weights[2 * place] = part.T @ normed
            of_weights[2 * place + 1] = None if biases[place] is None else part.sum(0)
            part = part @ weights[place]
            of_normed = part if of_normed is None else of_normed.add_(part)
        of_states, of_norm = _through_norm(of_normed, states, scale, norm, grad)  # pyright: ignore[reportArgumentType]
        return of_states, None, None, of_norm, *of_norms[:2], *of_weights


class _MLP(torch.autograd.Function):
    """The states (M, D), and what the gated MLP adds to them."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, states: Tensor, epsilon: float, norm: Tensor, gate: Tensor, up: Tensor, down: Tensor
    ) -> Tensor:
        scale = _scale(states, epsilon)
        normed = _normed(states, scale, norm)
        gated, raised = linear(normed, gate), linear(normed, up)
        ctx.save_for_backward(states, scale, norm, gate, up, down, gated, raised)
        return linear(silu(gated).mul_(raised), down).add_(states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        states, scale, norm, gate, up, down, gated, raised = ctx.saved_tensors
        active = silu(gated)
        of_down = grad.T @ (active * raised)
        of_product = grad @ down
        of_raised = active.mul_(of_product)
        of_gated = silu_backward(of_product.mul_(raised), gated)
        normed = _normed(states, scale, norm)
        of_gate, of_up = of_gated.T @ normed, of_raised.T @ normed
        of_normed = (of_raised @ up).add_(of_gated @ gate)
        of_states, of_norm = _through_norm(of_normed, states, scale, norm, grad)
        return of_states, None, of_norm, of_gate, of_up, of_down


def _scale(states: Tensor, epsilon: float) -> Tensor:
    """What each row is multiplied by, so that its root mean square is 1. A norm computes in float32, whatever the model does."""
    return states.float().pow(2).mean(-1, keepdim=True).add_(epsilon).rsqrt_()


def _normed(states: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
    return (states.float() * scale).to(weight.dtype).mul_(weight)


def _through_norm(
    grad: Tensor, states: Tensor, scale: Tensor, weight: Tensor, beside: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The gradient of a norm's input, with what reaches it beside the norm, and that of the norm's weight."""
    of_weight = (states.float() * scale).to(grad.dtype).mul_(grad)
    of_weight = of_weight.transpose(0, -2).flatten(0, -2).sum(0)  # heads one by one, as autograd has them
    grad = (grad * weight).float()
    of_scale = (grad * states.float()).sum(-1, keepdim=True)
    of_mean = of_scale.mul_(-scale.pow(3)).div_(states.shape[-1])
    grad.mul_(scale)
    if beside is not None and states.dtype == torch.float32:  # where nothing is converted, autograd goes on adding
        grad, beside = grad.add_(beside), None
    grad = grad.add_(states.float() * of_mean).to(states.dtype)
    return grad if beside is None else grad.add_(beside), of_weight


def _turned(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (arXiv 2104.09864): each half of a head's numbers is turned with the other."""
    first, second = heads.chunk(2, -1)
    return (heads * cos).add_(torch.cat((-second, first), -1).mul_(sin))


def _turned_back(grad: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = (grad * sin).chunk(2, -1)
    return (grad * cos).add_(torch.cat((second, -first), -1))
