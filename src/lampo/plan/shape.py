"""The size of a model, from its configuration alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.schema import ModelOptions
from ..types import LampoError


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder with a gated MLP and grouped-query attention: Qwen, Llama, Phi-3 and their like.

    Attributes:
        layers: how many.
        hidden: width of the hidden state.
        inner: width of the MLP.
        heads: query heads of a layer.
        kv_heads: key and value heads of a layer.
        head_dim: width of a head.
        vocabulary: words.
        tied: whether embedding and head are one matrix.
        head_norms: whether queries and keys are normalised, as in Qwen3.
    """

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    head_norms: bool = False

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.in_layers + (1 if self.tied else 2) * self.vocabulary * self.hidden + self.hidden

    @property
    def in_layers(self) -> int:
        """Weights of all layers."""
        attention = 2 * self.hidden * (self.heads + self.kv_heads) * self.head_dim + 2 * self.head_dim * self.head_norms
        return self.layers * (attention + 3 * self.hidden * self.inner + 2 * self.hidden)

    @property
    def multiplied(self) -> int:
        """Weights that each token is multiplied with: all but the embedding."""
        return self.parameters - (0 if self.tied else self.vocabulary * self.hidden)

    def adapters(self, rank: int) -> int:
        """Weights of low-rank adapters of that rank on every linear layer: rank x (width in + width out) each."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * (self.hidden + queries) + 2 * (self.hidden + keys)
        return self.layers * rank * (attention + 3 * (self.hidden + self.inner))

    def cached(self) -> int:
        """Bytes of the keys and values of a token, in bfloat16."""
        return 2 * self.layers * self.kv_heads * self.head_dim * 2


def _qwen3(layers: int, hidden: int, inner: int, heads: int) -> Shape:
    return Shape(layers, hidden, inner, heads, 8, 128, 151_936, tied=True, head_norms=True)


KNOWN: dict[str, Shape] = {
    "Qwen/Qwen3-0.6B": _qwen3(28, 1024, 3072, 16),
    "Qwen/Qwen3-1.7B": _qwen3(28, 2048, 6144, 16),
    "Qwen/Qwen3-4B": _qwen3(36, 2560, 9728, 32),
    "microsoft/Phi-4-mini-instruct": Shape(32, 3072, 8192, 24, 8, 128, 200_064, tied=True),
    "SmolLM2-135M-Instruct": Shape(30, 576, 1536, 9, 3, 64, 49_152, tied=True),
}
"""The models of the recipes and of the first recipe of the documentation, which may be planned for without a network."""


def shape_of(options: ModelOptions) -> Shape:
    """The shape of a recipe's model. Of a hub name, what this table or the local cache of the hub has.

    Raises:
        LampoError: there is no configuration to read, or it is not of a model of this kind.
    """
    if options.config is not None:
        return _read(options.config, "model.config", len(options.characters or "") + 3)
    path = options.path or ""
    for name, shape in KNOWN.items():
        if name == path or (path.endswith(".gguf") and Path(path).name.startswith(name)):
            return shape
    for file in (Path(path) / "config.json", Path(path) / "model" / "config.json", _in_cache(path)):
        if file is not None and file.is_file():
            try:
                return _read(json.loads(file.read_text(encoding="utf-8")), str(file), 0)
            except ValueError as error:
                raise LampoError(f"Cannot read {file}: {error}.") from None
    raise LampoError(
        f"The shape of the model {path} is not known. Give model.path a folder with its config.json, or put that file "
        f"into the hub's cache with: hf download {path} config.json"
    )


def _in_cache(name: str) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:  # it comes with the extra `train`
        return None
    try:
        found = try_to_load_from_cache(name, "config.json")
    except ValueError:  # a path that is no hub name
        return None
    return Path(found) if isinstance(found, str) else None


def _read(config: Mapping[str, Any], source: str, vocabulary: int) -> Shape:
    text = config.get("text_config") or config
    if any("expert" in key and text[key] for key in text):
        raise LampoError(f"{source} is of a model with experts, and lampo plan knows dense ones only.")
    try:
        heads, hidden = int(text["num_attention_heads"]), int(text["hidden_size"])
        return Shape(
            layers=int(text["num_hidden_layers"]),
            hidden=hidden,
            inner=int(text["intermediate_size"]),
            heads=heads,
            kv_heads=int(text.get("num_key_value_heads") or heads),
            head_dim=int(text.get("head_dim") or (128 if text.get("model_type") == "qwen3" else hidden // heads)),
            vocabulary=int(text.get("vocab_size") or vocabulary),
            tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
            head_norms=text.get("model_type") == "qwen3",
        )
    except KeyError as error:
        raise LampoError(f"{source} does not say {error.args[0]}, which lampo plan needs.") from None
