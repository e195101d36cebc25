"""One token further for many rows, through layers of Llama's kind, in fewer operations than transformers takes.

On a CPU most of a small model's step is not arithmetic but the calls that lead to it (docs/log.md). So queries, keys and values are one
product here, gate and up another, a norm is torch's own, queries and keys are normed and turned together, and no module is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm
from transformers import Cache

MODEL_TYPES = ("llama", "qwen2", "qwen3", "phi3")
LARGEST_JOINED = 2**20
"""Weights of a product that are copied together with others'. Above it the product takes far longer than its dispatch."""


@dataclass(frozen=True, slots=True)
class _Product:
    """Linear layers with the same input, their outputs side by side. Small ones are one matrix."""

    factors: list[tuple[Tensor, Tensor | None]]

    @classmethod
    def of(cls, *layers: nn.Linear) -> _Product:
        if len(layers) == 1 or sum(layer.weight.numel() for layer in layers) > LARGEST_JOINED:
            return cls([(layer.weight, layer.bias) for layer in layers])
        bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
        return cls([(torch.cat([layer.weight for layer in layers]), bias)])

    def __call__(self, states: Tensor) -> Tensor:
        outputs = [linear(states, weight, bias) for weight, bias in self.factors]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)


def _product(module: Any, joined: str, *apart: str) -> _Product:
    """Of layers that a model has as one, as Phi-3 does, or apart."""
    return _Product.of(*(getattr(module, name) for name in ([joined] if hasattr(module, joined) else apart)))


class _Norm:
    def __init__(self, norm: Any) -> None:
        self._weight, self._epsilon = norm.weight, norm.variance_epsilon

    def __call__(self, states: Tensor) -> Tensor:
        return rms_norm(states, self._weight.shape, self._weight, self._epsilon)


class _Attention:
    """Queries that share a key stand side by side, and the two products are plain ones.

    torch's own kernel multiplies for one head of one row at a time, which took 0.41 ms of a step where this takes 0.25 (docs/log.md).
    """

    def __init__(self, attention: Any) -> None:
        self._index, self._scale, self._width = attention.layer_idx, attention.scaling, attention.head_dim
        self._qkv = _product(attention, "qkv_proj", "q_proj", "k_proj", "v_proj")
        self._out = _Product.of(attention.o_proj)
        self._heads, self._shared = attention.config.num_attention_heads, attention.config.num_key_value_heads
        self._norm: tuple[Tensor, float] | None = None
        if hasattr(attention, "q_norm"):
            weights = attention.q_norm.weight.expand(self._heads, -1), attention.k_norm.weight.expand(self._shared, -1)
            self._norm = torch.cat(weights), attention.q_norm.variance_epsilon

    def __call__(self, states: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache) -> Tensor:
        """(N, D): what attention adds to the states."""
        N = len(states)
        qkv = self._qkv(states).view(N, -1, self._width)
        qk, value = qkv[:, : -self._shared], qkv[:, -self._shared :]
        if self._norm is not None:
            weight, epsilon = self._norm
            qk = rms_norm(qk, (self._width,), eps=epsilon).mul_(weight)
        cos, sin = turn
        turned = qk[..., : cos.shape[-1]]  # Phi-4-mini leaves a quarter of each as it is
        other = turned.roll(cos.shape[-1] // 2, -1).mul_(sin)
        turned.mul_(cos).add_(other)
        query, key = qk[:, : self._heads], qk[:, self._heads :]
        keys, values = cache.update(key[:, :, None], value[:, :, None], self._index)
        query = query.reshape(N, self._shared, -1, self._width)
        scores = torch.matmul(query.mul(self._scale), keys.transpose(-1, -2))
        out = torch.matmul((scores if mask is None else scores.add_(mask)).softmax(-1), values)
        return self._out(out.reshape(N, -1))


class _MLP:
    def __init__(self, mlp: Any) -> None:
        self._gate_up, self._down = _product(mlp, "gate_up_proj", "gate_proj", "up_proj"), _Product.of(mlp.down_proj)
        self._activation = mlp.act_fn if hasattr(mlp, "act_fn") else mlp.activation_fn

    def __call__(self, states: Tensor) -> Tensor:
        gate, up = self._gate_up(states).chunk(2, -1)
        return self._down(self._activation(gate).mul_(up))


class DecodeStep:
    """A model's layers as they are now: it is made anew when the weights have moved.

    Args:
        backbone: the model without its head.
        longest: tokens of the longest row that it will be asked for. No more than the model's `context`, beyond which longrope turns all by
            other factors.
    """

    def __init__(self, backbone: Any, *, longest: int) -> None:
        self._embed, self._last_norm = backbone.embed_tokens, _Norm(backbone.norm)
        self._attentions = [(_Norm(layer.input_layernorm), _Attention(layer.self_attn)) for layer in backbone.layers]
        self._mlps = [(_Norm(layer.post_attention_layernorm), _MLP(layer.mlp)) for layer in backbone.layers]
        positions = torch.arange(longest, device=self._embed.weight.device)
        cos, sin = backbone.rotary_emb(self._embed.weight, positions[None])
        sin[..., : sin.shape[-1] // 2].neg_()  # instead of half of each query and key
        self._cos_LD, self._sin_LD = cos[0], sin[0]

    @staticmethod
    def takes(backbone: Any) -> bool:
        """Whether a model is of this kind. Adapters are not: their layers are no plain linear ones."""
        return is_plain(backbone) and backbone.config._attn_implementation == "sdpa"

    def __call__(self, ids_N: Tensor, positions_N1: Tensor, mask: Tensor | None, cache: Cache) -> Tensor:
        """(N, D) states before the language-model head. The cache takes the new keys and values in.

        Args:
            ids_N: the new token of each row.
            positions_N1: its position.
            mask: (N, 1, 1, L), True where there is a token; None where there is no padding.
            cache: keys and values of the tokens before.
        """
        states = self._embed(ids_N)
        turn = self._cos_LD[positions_N1], self._sin_LD[positions_N1]
        if mask is not None:
            mask = torch.zeros_like(mask, dtype=states.dtype).masked_fill_(~mask, -torch.inf)
        for (norm, attention), (norm_of_mlp, mlp) in zip(self._attentions, self._mlps, strict=True):
            states.add_(attention(norm(states), turn, mask, cache))
            states.add_(mlp(norm_of_mlp(states)))
        return self._last_norm(states)


def is_plain(backbone: Any, is_linear: Callable[[nn.Module], bool] = lambda module: type(module) is nn.Linear) -> bool:
    """Whether its layers are of Llama's kind, and their products those of linear layers."""
    if backbone.config.model_type not in MODEL_TYPES:
        return False
    return all(is_linear(module) for name, module in backbone.layers.named_modules() if name.endswith("_proj"))


@contextmanager
def turns_held(model: nn.Module) -> Iterator[None]:
    """Inside, the frequencies of rotary positions stay as they are.

    Under longrope and dynamic scaling transformers looks at the longest position in each pass, which a recorded one cannot. Up to the
    model's `context` the frequencies are the same in all of them.
    """
    kinds: dict[Any, Any] = {module: module.rope_type for module in model.modules() if hasattr(module, "rope_type")}
    try:
        for module, kind in kinds.items():
            module.rope_type = "default" if isinstance(kind, str) else dict.fromkeys(kind, "default")
        yield
    finally:
        for module, kind in kinds.items():
            module.rope_type = kind
