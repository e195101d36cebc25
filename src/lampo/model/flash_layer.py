"""Layers of Llama's kind in few kernels, for packed rows on CUDA. To autograd a whole layer is one operation.

transformers' layer is some sixty launches forward, and most of what it reads and writes is float32. Here products are in bfloat16, one for
all weights with the same input, and what stands between two products is one kernel (`update_kernels`). What layers add up stays in the
precision in which the model adds it up.

The adapters of LoRA are small products beside those of the frozen weights, whose gradient nobody asks for.

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
from .flash_step import is_linear
from .varlen_attention import attend, attend_back

if TYPE_CHECKING:
    from .packing import Packing

Turns = tuple[Tensor, Tensor]
"""Cosines and sines of each token's position, (M, R)."""


def takes(backbone: Any) -> bool:
    """Whether the layers of a model are of this kind. What windows it may have `Policy.layout` asks before rows are packed."""
    config = backbone.config
    if not is_plain(backbone, is_linear) or config.hidden_act != "silu" or getattr(config, "mlp_bias", False):
        return False
    return _base(backbone.layers[0].self_attn.o_proj).bias is None


def make_flash(backbone: Any) -> None:
    """From now on its layers are computed as here where rows are packed. Their modules and weights stay what they are."""
    for layer in backbone.layers:
        layer.__class__ = _flash(type(layer))


def unmake_flash(backbone: Any) -> None:
    """Those of its layers that were made so are transformers' own again."""
    for layer in backbone.layers:
        if isinstance(layer, _Flash):
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
        if packing is None:
            return super().forward(hidden_states, **arguments)  # pyright: ignore[reportAttributeAccessIssue]
        turns = tuple(each[0].contiguous() for each in arguments["position_embeddings"])
        parts = _Parts.of(self)
        recomputes = self.gradient_checkpointing and self.training
        out: Any = _Layer.apply(hidden_states.squeeze(0), turns, packing, parts, recomputes, *parts.tensors())
        return out[None]


@dataclass(frozen=True, slots=True)
class _Product:
    """Linear layers with the same input, in bfloat16 and as one; and LoRA's adapters (arXiv 2106.09685), each beside one of them.

    Attributes:
        weights: of the layers, one below the other.
        biases: theirs, or none.
        adapters: (R, in) and (out, R), so many pairs.
        places: which of all outputs each pair adds to.
        factors: by what it is multiplied.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    adapters: tuple[Tensor, ...]
    places: tuple[slice, ...]
    factors: tuple[float, ...]

    @classmethod
    def of(cls, *layers: Any) -> _Product:
        start, adapters, places, factors = 0, list[Tensor](), list[slice](), list[float]()
        for layer in layers:
            place = slice(start, start := start + layer.out_features)
            for name in getattr(layer, "active_adapters", ()):  # PEFT's
                adapters += [layer.lora_A[name].weight, layer.lora_B[name].weight]
                places.append(place)
                factors.append(layer.scaling[name])
        bases = [_base(layer) for layer in layers]
        weights, biases = (each.weight for each in bases), (each.bias for each in bases if each.bias is not None)
        return cls(tuple(weights), tuple(biases), tuple(adapters), tuple(places), tuple(factors))

    def __iter__(self) -> Iterator[Tensor]:
        return chain(self.weights, self.biases, self.adapters)

    def __call__(self, states: Tensor) -> Tensor:
        out = linear(states, _joined(self.weights), _joined(self.biases) if self.biases else None)
        for into, back, place, factor in self._pairs():
            out[:, place].addmm_(states @ into.T, back.T, alpha=factor)
        return out

    def of_states(self, grad: Tensor) -> Tensor:
        """The gradient of the input, given that of the output."""
        out = grad @ _joined(self.weights)
        for into, back, place, factor in self._pairs():
            out.addmm_(grad[:, place] @ back, into, alpha=factor)
        return out

    def of_tensors(self, grad: Tensor, states: Tensor) -> list[Tensor | None]:
        """The gradients of weights, biases and adapters, given that of the output and the input."""
        lengths = [len(weight) for weight in self.weights]
        if any(each.requires_grad for each in chain(self.weights, self.biases)):
            of_biases = grad.sum(0).split(lengths) if self.biases else ()
            found = [*(grad.T @ states).split(lengths), *of_biases]
        else:
            found = [None] * (len(self.weights) + len(self.biases))
        for into, back, place, factor in self._pairs():
            part = grad[:, place]
            found += [((part @ back).T @ states).mul_(factor), (part.T @ (states @ into.T)).mul_(factor)]
        return found

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor, slice, float]]:
        narrow = [each.to(torch.bfloat16) for each in self.adapters]
        return zip(narrow[::2], narrow[1::2], self.places, self.factors, strict=True)


def _joined(weights: Sequence[Tensor]) -> Tensor:
    """In bfloat16, one below the other."""
    if len(weights) == 1:
        return weights[0].to(torch.bfloat16)
    lengths = [len(each) for each in weights]
    out = weights[0].new_empty(sum(lengths), *weights[0].shape[1:], dtype=torch.bfloat16)
    for place, weight in zip(out.split(lengths), weights, strict=True):
        place.copy_(weight)
    return out


def _base(layer: Any) -> Any:
    """The linear layer itself, under PEFT's wrapper if there is one."""
    return getattr(layer, "base_layer", layer)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a layer is made of.

    Attributes:
        norms: weights of its two norms.
        head_norms: those of queries and keys, or none.
        into: to queries, keys and values.
        out_of: from attention.
        gates: to gate and up.
        down: from both.
        shared: heads of keys.
        width: numbers of a head.
        scale: of scores.
        epsilon: of norms.
    """

    norms: tuple[Tensor, Tensor]
    head_norms: tuple[Tensor, ...]
    into: _Product
    out_of: _Product
    gates: _Product
    down: _Product
    shared: int
    width: int
    scale: float
    epsilon: float

    @classmethod
    def of(cls, layer: Any) -> _Parts:
        attention, mlp, norms = layer.self_attn, layer.mlp, (layer.input_layernorm, layer.post_attention_layernorm)
        joined = hasattr(attention, "qkv_proj")  # as Phi-3 has them
        into = [attention.qkv_proj] if joined else [attention.q_proj, attention.k_proj, attention.v_proj]
        gates = [mlp.gate_up_proj] if joined else [mlp.gate_proj, mlp.up_proj]
        head_norms = (attention.q_norm.weight, attention.k_norm.weight) if hasattr(attention, "q_norm") else ()
        return cls(
            (norms[0].weight, norms[1].weight),
            head_norms,
            _Product.of(*into),
            _Product.of(attention.o_proj),
            _Product.of(*gates),
            _Product.of(mlp.down_proj),
            attention.config.num_key_value_heads,
            attention.head_dim,
            attention.scaling,
            norms[0].variance_epsilon,
        )

    def tensors(self) -> Iterator[Tensor]:
        """All that may have a gradient."""
        return chain(self.norms, self.head_norms, self.into, self.out_of, self.gates, self.down)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, states: Tensor, turns: Turns, packing: Packing, parts: _Parts, recomputes: bool, *_: Tensor
    ) -> Tensor:
        """(M, D) states behind the layer, from those before it."""
        from .decode_kernels import gate  # triton is there only where CUDA is

        with torch.autocast(states.device.type, enabled=False):
            *attended, middle, both = _run(states, turns, packing, parts)
            ctx.save_for_backward(states, *turns, *(() if recomputes else (*attended, middle, both)))
            ctx.packing, ctx.parts = packing, parts
            return middle + parts.down(gate(both))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        states, cos, sin, *kept = ctx.saved_tensors
        with torch.autocast(states.device.type, enabled=False):
            turns, packing, parts = (cos, sin), ctx.packing, ctx.parts
            grads = _back(grad, states, turns, kept or _run(states, turns, packing, parts), packing, parts)
        of_states, *of_tensors = grads
        return of_states, None, None, None, None, *of_tensors


def _run(states: Tensor, turns: Turns, packing: Packing, parts: _Parts) -> tuple[Tensor, ...]:
    """What a layer keeps: queries, keys and values side by side, what `attend` returned, states in its middle, gate and up."""
    from .decode_kernels import add_norm
    from .update_kernels import turn_rows

    qkv = parts.into(add_norm(states, None, parts.norms[0], parts.epsilon)).unflatten(1, (-1, parts.width))
    turned = turn_rows(qkv, parts.shared, turns, parts.head_norms, parts.epsilon)
    attended = attend(*_apart(turned, qkv, parts.shared), packing.spans, parts.scale)
    middle = states + parts.out_of(attended[0].flatten(1))
    both = parts.gates(add_norm(middle, None, parts.norms[1], parts.epsilon))
    return qkv, *attended, middle, both


def _back(
    grad: Tensor, states: Tensor, turns: Turns, kept: Sequence[Tensor], packing: Packing, parts: _Parts
) -> Iterator[Tensor | None]:
    """The gradients of the states before the layer, and of its tensors, given that of the states behind it and what `_run` returned."""
    from .decode_kernels import add_norm
    from .update_kernels import gate_back, norm_back, turn_back, turn_rows

    qkv, *attended, middle, both = kept
    upstream = grad.to(torch.bfloat16)
    of_both, product = gate_back(parts.down.of_states(upstream), both)
    of_down = parts.down.of_tensors(upstream, product)
    of_gates = parts.gates.of_tensors(of_both, add_norm(middle, None, parts.norms[1], parts.epsilon))
    of_middle, of_second = norm_back(parts.gates.of_states(of_both), middle, parts.norms[1], parts.epsilon, grad)
    del kept, both, of_both, product  # half of what a layer holds at its peak

    upstream = of_middle.to(torch.bfloat16)
    of_out_of = parts.out_of.of_tensors(upstream, attended[0].flatten(1))
    turned = turns, parts.head_norms, parts.epsilon
    heads = _apart(turn_rows(qkv, parts.shared, *turned), qkv, parts.shared)
    of_attended = parts.out_of.of_states(upstream).view_as(attended[0])
    grads: Any = attend_back(of_attended, (*heads, *attended), packing.spans, parts.scale)
    of_qkv, of_head_norms = turn_back(grads, qkv, parts.shared, *turned)
    of_qkv = of_qkv.flatten(1)
    of_into = parts.into.of_tensors(of_qkv, add_norm(states, None, parts.norms[0], parts.epsilon))
    of_states, of_first = norm_back(parts.into.of_states(of_qkv), states, parts.norms[0], parts.epsilon, of_middle)
    return chain((of_states, of_first, of_second), of_head_norms, of_into, of_out_of, of_gates, of_down)


def _apart(turned: Tensor, qkv: Tensor, shared: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values."""
    return turned[:, :-shared], turned[:, -shared:], qkv[:, -shared:]
