"""Layers of Llama's kind in few kernels, for packed rows on CUDA. To autograd a whole layer is one operation.

transformers' layer is some sixty launches forward, and most of what it reads and writes is float32. Here products are in bfloat16, one for
all weights with the same input, and what stands between two products is one kernel (`update_kernels`). What layers add up stays in the
precision in which the model adds it up.

A layer keeps its input, queries, keys and values before they are turned, what attention gave, and gate and up. What lies between is
computed again. Under gradient checkpointing it keeps its input alone and computes the others again too, but not its last product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from .decode_step import is_plain
from .varlen_attention import attend, attend_back

if TYPE_CHECKING:
    from .packing import Packing

Turns = tuple[Tensor, Tensor]
"""Cosines and sines of each token's position, (M, R)."""


def takes(backbone: Any) -> bool:
    """Whether the layers of a model are of this kind."""
    config = backbone.config
    if not is_plain(backbone) or config.hidden_act != "silu" or getattr(config, "mlp_bias", False):
        return False
    return backbone.layers[0].self_attn.o_proj.bias is None


def make_flash(backbone: Any) -> None:
    """From now on its layers are computed as here where rows are packed. Their modules and weights stay what they are."""
    for layer in backbone.layers:
        layer.__class__ = _flash(type(layer))


def unmake_flash(backbone: Any) -> None:
    """Its layers are transformers' own again."""
    for layer in backbone.layers:
        layer.__class__ = type(layer).__bases__[1]


@cache
def _flash(kind: type) -> type:
    return type(f"Flash{kind.__name__}", (_Flash, kind), {})


class _Flash:
    gradient_checkpointing: bool
    training: bool

    def __call__(self, *inputs: Any, **arguments: Any) -> Any:
        """Where rows are packed transformers' checkpointing, around its call or its forward, is left out: the layer has its own."""
        if "packing" in arguments:
            return _Flash.forward(self, *inputs, **arguments)
        return super().__call__(*inputs, **arguments)  # pyright: ignore[reportAttributeAccessIssue]

    def forward(self, hidden_states: Tensor, **arguments: Any) -> Tensor:
        """What the layer makes of (1, M, D) states."""
        packing = arguments.get("packing")
        if packing is None or packing.passes(getattr(self.self_attn, "sliding_window", None)):  # pyright: ignore[reportAttributeAccessIssue]
            return super().forward(hidden_states, **arguments)  # pyright: ignore[reportAttributeAccessIssue]
        turns = tuple(each[0].contiguous() for each in arguments["position_embeddings"])
        groups = _weights(self)
        shape = _Shape.of(self, self.gradient_checkpointing and self.training, tuple(map(len, groups)))
        out: Any = _Layer.apply(hidden_states[0], turns, packing, shape, *chain(*groups))
        return out[None]


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a layer is beside its weights.

    Attributes:
        shared: heads of keys.
        width: numbers of a head.
        scale: of scores.
        epsilon: of norms.
        recomputes: whether it keeps its input alone.
        sizes: how many weights each group of `_weights` has.
    """

    shared: int
    width: int
    scale: float
    epsilon: float
    recomputes: bool
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, layer: Any, recomputes: bool, sizes: tuple[int, ...]) -> _Shape:
        attention = layer.self_attn
        shared, epsilon = attention.config.num_key_value_heads, layer.input_layernorm.variance_epsilon
        return cls(shared, attention.head_dim, attention.scaling, epsilon, recomputes, sizes)

    def grouped(self, tensors: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        """The weights as `_weights` has them."""
        start = 0
        for size in self.sizes:
            yield tuple(tensors[start : start + size])
            start += size


def _weights(layer: Any) -> tuple[tuple[Tensor, ...], ...]:
    """Norms; those of queries and keys; products to queries, keys and values, their biases; from attention; to gate and up; down."""
    attention, mlp = layer.self_attn, layer.mlp
    into = (
        [attention.qkv_proj]
        if hasattr(attention, "qkv_proj")
        else [attention.q_proj, attention.k_proj, attention.v_proj]
    )
    gates = [mlp.gate_up_proj] if hasattr(mlp, "gate_up_proj") else [mlp.gate_proj, mlp.up_proj]
    return (
        (layer.input_layernorm.weight, layer.post_attention_layernorm.weight),
        (attention.q_norm.weight, attention.k_norm.weight) if hasattr(attention, "q_norm") else (),
        tuple(each.weight for each in into),
        tuple(each.bias for each in into if each.bias is not None),
        (attention.o_proj.weight,),
        tuple(each.weight for each in gates),
        (mlp.down_proj.weight,),
    )


def _joined(weights: Sequence[Tensor]) -> Tensor:
    """In bfloat16, one below the other."""
    first, *others = (each.to(torch.bfloat16) for each in weights)
    return torch.cat([first, *others]) if others else first


def _parted(grad: Tensor, weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return grad.split([len(each) for each in weights])


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, states: Tensor, turns: Turns, packing: Packing, shape: _Shape, *weights: Tensor
    ) -> Tensor:
        """(M, D) states behind the layer, from those before it."""
        from .decode_kernels import gate  # triton is there only where CUDA is

        kept = _run(states, turns, packing, shape, weights)
        *_, (down,) = shape.grouped(weights)
        *_, middle, both = kept
        ctx.save_for_backward(states, *turns, *weights, *(() if shape.recomputes else kept))
        ctx.packing, ctx.shape = packing, shape
        return middle + linear(gate(both), _joined((down,)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        from .decode_kernels import add_norm
        from .update_kernels import gate_back, norm_back, turn_back, turn_rows

        shape, packing = ctx.shape, ctx.packing
        states, cos, sin, *rest = ctx.saved_tensors
        weights, kept = rest[: sum(shape.sizes)], rest[sum(shape.sizes) :]
        qkv, *attended, middle, both = kept or _run(states, (cos, sin), packing, shape, weights)
        (norm, second_norm), head_norms, into, biases, (out_of,), gates, (down,) = shape.grouped(weights)

        upstream = grad.to(torch.bfloat16)
        of_both, product = gate_back(upstream @ _joined((down,)), both)
        of_down = upstream.T @ product
        of_gates = of_both.T @ add_norm(middle, None, second_norm, shape.epsilon)
        of_middle, of_second_norm = norm_back(of_both @ _joined(gates), middle, second_norm, shape.epsilon, grad)

        upstream = of_middle.to(torch.bfloat16)
        of_out_of = upstream.T @ attended[0].flatten(1)
        of_attended = (upstream @ _joined((out_of,))).view_as(attended[0])
        turned = (cos, sin), head_norms, shape.epsilon
        heads = _apart(turn_rows(qkv, shape.shared, *turned), qkv, shape.shared)
        grads: Any = attend_back(of_attended, (*heads, *attended), packing.spans, shape.scale)
        of_qkv, of_head_norms = turn_back(grads, qkv, shape.shared, *turned)
        of_qkv = of_qkv.flatten(1)
        of_into = of_qkv.T @ add_norm(states, None, norm, shape.epsilon)
        of_biases = _parted(of_qkv.sum(0), biases) if biases else ()
        of_states, of_norm = norm_back(of_qkv @ _joined(into), states, norm, shape.epsilon, of_middle)

        of_norms = of_norm, of_second_norm, *of_head_norms
        of_products = *_parted(of_into, into), *of_biases, of_out_of, *_parted(of_gates, gates), of_down
        return of_states, None, None, None, *of_norms, *of_products


def _run(
    states: Tensor, turns: Turns, packing: Packing, shape: _Shape, weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """What a layer keeps: queries, keys and values side by side, what `attend` returned, states in its middle, gate and up."""
    from .decode_kernels import add_norm
    from .update_kernels import turn_rows

    (norm, second_norm), head_norms, into, biases, (out_of,), gates, _ = shape.grouped(weights)
    normed = add_norm(states, None, norm, shape.epsilon)
    qkv = linear(normed, _joined(into), _joined(biases) if biases else None).unflatten(1, (-1, shape.width))
    turned = turn_rows(qkv, shape.shared, turns, head_norms, shape.epsilon)
    attended = attend(*_apart(turned, qkv, shape.shared), packing.spans, shape.scale)
    middle = states + linear(attended[0].flatten(1), _joined((out_of,)))
    both = linear(add_norm(middle, None, second_norm, shape.epsilon), _joined(gates))
    return qkv, *attended, middle, both


def _apart(turned: Tensor, qkv: Tensor, shared: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values."""
    return turned[:, :-shared], turned[:, -shared:], qkv[:, -shared:]
