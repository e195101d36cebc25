"""One token further for many rows on CUDA, in few kernels, over keys and values that lie where each row has its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .decode_step import is_plain


@dataclass(frozen=True, slots=True)
class RowKeys:
    """Keys and values of rows, each row's one after the other from where it begins.

    Attributes:
        keys: (layers, P, K, D) of all rows, in bfloat16.
        values: likewise.
        begins: (N,) where those of each row begin, int32.
        lengths: (N,) how many it has, int32. A step adds to them what `grows` says.
        grows: (N,) 1, or 0 for a row that has ended.
    """

    keys: Tensor
    values: Tensor
    begins: Tensor
    lengths: Tensor
    grows: Tensor


class _Layer:
    """A layer's weights in bfloat16, those with the same input as one matrix."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.norms = [
            (norm.weight, norm.variance_epsilon) for norm in (layer.input_layernorm, layer.post_attention_layernorm)
        ]
        self.qkv = _joined(attention, "qkv_proj", "q_proj", "k_proj", "v_proj")
        self.out = _joined(attention, "o_proj")
        self.gate_up = _joined(mlp, "gate_up_proj", "gate_proj", "up_proj")
        self.down = _joined(mlp, "down_proj")
        self.scale, self.width = attention.scaling, attention.head_dim
        self.norm: tuple[Tensor, float] | None = None
        if hasattr(attention, "q_norm"):
            weights = torch.stack([attention.q_norm.weight, attention.k_norm.weight])
            self.norm = weights, attention.q_norm.variance_epsilon


def _joined(module: Any, joined: str, *apart: str) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a layer that a model has as one, as Phi-3 does, or apart."""
    layers = [getattr(module, name) for name in ([joined] if hasattr(module, joined) else apart)]
    weight = torch.cat([_weight(layer).to(torch.bfloat16) for layer in layers])
    biases = [getattr(layer, "base_layer", layer).bias for layer in layers]
    return weight, None if biases[0] is None else torch.cat([bias.to(torch.bfloat16) for bias in biases])


def _weight(layer: Any) -> Tensor:
    """Of a linear layer, with what PEFT's adapters add to it."""
    if type(layer) is nn.Linear:
        return layer.weight
    weight = layer.base_layer.weight.float()
    for name in layer.active_adapters:
        weight = weight + layer.get_delta_weight(name).float()
    return weight


def is_linear(layer: Any) -> bool:
    """Whether a layer is a linear one, or one with plain adapters."""
    if type(layer) is nn.Linear:
        return True
    return type(getattr(layer, "base_layer", None)) is nn.Linear and getattr(layer, "lora_variant", None) == {}


class FlashStep:
    """Layers of Llama's kind as they are now, in ten kernels each: it is made anew when the weights have moved.

    Its weights are copies in bfloat16, adapters added. What a layer adds up stays in the precision in which the model adds it up.

    Attributes:
        heads_of_keys: how many heads keys have, and how wide each is.

    Args:
        backbone: the model without its head.
        longest: tokens of the longest row that it will be asked for, no more than the model's `context`.
    """

    def __init__(self, backbone: Any, *, longest: int) -> None:
        self._embed: nn.Embedding = backbone.embed_tokens
        with torch.autocast(self._embed.weight.device.type, enabled=False):
            self._layers = [_Layer(layer) for layer in backbone.layers]
        self.heads_of_keys = backbone.config.num_key_value_heads, self._layers[0].width
        self._last_norm = backbone.norm.weight, backbone.norm.variance_epsilon
        positions = torch.arange(longest, device=self._embed.weight.device)
        cos, sin = backbone.rotary_emb(self._embed.weight[:1].float(), positions[None])  # of which only the type counts
        sin[..., : sin.shape[-1] // 2].neg_()  # instead of half of each query and key
        self._turns = cos[0].contiguous(), sin[0].contiguous()

    @staticmethod
    def takes(backbone: Any) -> bool:
        """Whether a model is of this kind."""
        config = backbone.config
        return is_plain(backbone, is_linear) and config._attn_implementation == "sdpa" and config.hidden_act == "silu"

    def __call__(self, ids_N: Tensor, rows: RowKeys) -> Tensor:
        """(N, D) states before the language-model head. The rows take the new keys and values in, and are longer by one.

        Args:
            ids_N: the new token of each row.
            rows: keys and values of the tokens before, with places for one more each.
        """
        from .decode_kernels import add_norm, attend, gate, turn  # triton is there only where CUDA is

        with torch.autocast(ids_N.device.type, enabled=False):
            states, added = self._embed(ids_N), None
            places = rows.begins, rows.lengths
            for index, layer in enumerate(self._layers):
                held = rows.keys[index], rows.values[index]
                qkv = linear(add_norm(states, added, *layer.norms[0]), *layer.qkv)
                query = turn(qkv.view(len(ids_N), -1, layer.width), *held, *places, self._turns, layer.norm)
                out = attend(query, *held, *places, layer.scale)
                added = linear(out.flatten(1), *layer.out)
                added = linear(gate(linear(add_norm(states, added, *layer.norms[1]), *layer.gate_up)), *layer.down)
            hidden = add_norm(states, added, *self._last_norm)
            rows.lengths.add_(rows.grows)
            return hidden

    def states_after(self, ids_NT: Tensor) -> Tensor:
        """(N, D) states after the last token of rows of one length, from the first token on, one step each."""
        N, T = ids_NT.shape
        shape = len(self._layers), N * T, *self.heads_of_keys
        keys, values = (torch.zeros(shape, dtype=torch.bfloat16, device=ids_NT.device) for _ in range(2))
        begins = torch.arange(0, N * T, T, dtype=torch.int32, device=ids_NT.device)
        rows = RowKeys(keys, values, begins, torch.zeros_like(begins), torch.ones_like(begins))
        return [self(ids_N, rows) for ids_N in ids_NT.T][-1]
