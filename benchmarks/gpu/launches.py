"""What a layer launches, reads and writes in an update on CUDA: our own beside transformers', counted on a CPU without a GPU.

    python benchmarks/gpu/launches.py qwen3-1.7b [--lora 16]

Each operation of torch that makes or changes numbers is a launch, and so is each of our kernels, which are in torch here. Kilobytes are all
that these read and write for a token, products left out: what grows with the tokens. Both are what one more layer makes, forward and
backward, under `mixed` and with packed rows. Beside them stands what a layer keeps of a token for the backward pass.
"""

from __future__ import annotations

import lampo.process  # isort: skip  it must run before torch is imported

import argparse
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
from shapes import SHAPES
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

import lampo.model
from lampo.config.schema import LoraOptions, ModelOptions
from lampo.learner.batch import Row, pad
from lampo.model import flash_layer, varlen_attention
from lampo.model.packing import Packing
from lampo.model.policy import Policy
from lampo.types import MicroBatch
from tests.helpers import decode_kernels, flash, update_kernels
from tests.helpers.kept import kept_storages

VIEWS = {
    *(
        "view",
        "t",
        "transpose",
        "unsqueeze",
        "squeeze",
        "split",
        "split_with_sizes",
        "slice",
        "select",
        "expand",
        "detach",
    ),
    *(
        "alias",
        "as_strided",
        "_unsafe_view",
        "_reshape_alias",
        "lift_fresh",
        "empty",
        "empty_like",
        "new_empty",
        "permute",
    ),
}
PRODUCTS = {"mm", "addmm", "bmm"}
KERNELS = {
    "decode_kernels": (decode_kernels, ["add_norm", "gate"]),
    "update_kernels": (update_kernels, ["norm_back", "turn_rows", "turn_back", "gate_back", "score", "score_back"]),
}


class Counter(TorchDispatchMode):
    """Launches, and bytes of all but products."""

    def __init__(self) -> None:
        super().__init__()
        self.launches, self.moved = 0, 0

    def __torch_dispatch__(self, operation: Any, types: Any, given: tuple[Any, ...] = (), named: Any = None) -> Any:
        out = operation(*given, **(named or {}))
        name = operation.overloadpacket.__name__
        if name not in VIEWS:
            self.count((given, named, out), product=name in PRODUCTS)
        return out

    def count(self, tensors: Any, *, product: bool = False) -> None:
        """One launch that reads and writes these."""
        self.launches += 1
        if not product:
            self.moved += sum(each.numel() * each.itemsize for each in tree_leaves(tensors) if isinstance(each, Tensor))


counters: list[Counter] = []


def counted(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel in torch that counts as one launch, whatever its operations are."""

    def call(*given: Any, **named: Any) -> Any:
        with _disable_current_modes():
            out = kernel(*given, **named)
        for counter in counters:
            counter.count((given, named, out))
        return out

    return call


def stand_in() -> None:
    """Our kernels and torch's flash attention, in torch and counted."""
    for name, (helper, kernels) in KERNELS.items():
        module: Any = ModuleType(name)
        for each in kernels:
            setattr(module, each, counted(getattr(helper, each)))
        sys.modules[f"lampo.model.{name}"] = module
        setattr(lampo.model, name, module)
    varlen_attention.KERNEL, varlen_attention.KERNEL_BACKWARD = counted(flash.forward), counted(flash.backward)

    def attend(self: Packing, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Any:
        return varlen_attention.VarlenAttention.apply(query, key, value, self, scale)

    Packing.attend = attend


def make_batch(tokens: int) -> MicroBatch:
    """Two groups of two rows."""
    prompts = [torch.randint(3, 13, (tokens // 8,)) for _ in range(2)]
    lengths = [tokens // 8, tokens // 4]
    return pad(
        [
            Row(prompt, torch.randint(3, 13, (length,)), torch.zeros(length), 1.0, group)
            for group, prompt in enumerate(prompts)
            for length in lengths
        ]
    )


def learn(shape: str, layers: int, tokens: int, rank: int, *, own: bool, checkpointing: bool) -> tuple[int, int, int]:
    """Launches, bytes moved, and bytes kept between both passes, of one micro-batch."""
    config = SHAPES[shape] | {"num_hidden_layers": layers, "vocab_size": 64}
    options = ModelOptions(
        config=config,
        characters="0123456789",
        device="cpu",
        dtype="mixed",
        gradient_checkpointing=checkpointing,
        lora=LoraOptions(rank=rank) if rank else None,
    )
    policy = Policy.load(options, seed=0)
    policy.__dict__["layout"] = "packed"
    if own:
        flash_layer.make_flash(policy.backbone)
    batch = make_batch(tokens)
    with kept_storages(policy.model) as kept:
        value = policy.token_logprobs(batch, temperature=1.0)[0].sum()
    value.backward()  # outside, since kernels in torch keep tensors there
    counters[:] = [Counter()]
    with counters[0]:
        policy.token_logprobs(batch, temperature=1.0)[0].sum().backward()
    return counters[0].launches, counters[0].moved, sum(kept.values())


def a_layer(shape: str, rank: int, few: int, many: int, **way: bool) -> Iterator[float]:
    """Launches a layer; and kilobytes a layer and token, moved and kept."""
    found = {(layers, tokens): learn(shape, layers, tokens, rank, **way) for layers in (1, 2) for tokens in (few, many)}
    yield found[2, few][0] - found[1, few][0]
    for which in (1, 2):
        by_layer = [found[2, tokens][which] - found[1, tokens][which] for tokens in (few, many)]
        computed = [len(Packing.of(make_batch(tokens)).ids) for tokens in (few, many)]
        yield (by_layer[1] - by_layer[0]) / (computed[1] - computed[0]) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", nargs="?", default="qwen3-1.7b", choices=SHAPES)
    parser.add_argument("--lora", type=int, default=0, help="rank of adapters on all layers; 0: none")
    options = parser.parse_args()
    stand_in()
    print("| layers | checkpointing | launches | kB moved, a token | kB kept, a token |")
    print("| --- | --- | ---: | ---: | ---: |")
    for checkpointing in (False, True):
        for own in (False, True):
            launches, moved, kept = a_layer(options.shape, options.lora, 64, 128, own=own, checkpointing=checkpointing)
            names = "our own" if own else "transformers'", "yes" if checkpointing else "no"
            print(f"| {' | '.join(names)} | {launches:.0f} | {moved:,.0f} | {kept:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
