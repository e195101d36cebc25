"""Which change would bring sampling nearer to what the card can do: each alone and together, at one shape.

    python benchmarks/gpu/levers.py qwen3-1.7b [--rows 512] [--tokens 96] [--prompt 200] [--length 2048]

The levers of sampling are not in the program yet. Each is written here as the few lines that it would be:

    blocks      a token is drawn from float64 sums of blocks of 256 probabilities, not from a float64 copy of all of them
    room        storage of keys and values grows by 64 positions at most, so that less of what attention reads is empty
    compiled    torch.compile fuses the kernels of norms and of feed-forward parts, under the same recording. A whole step does not compile:
                on a CPU inductor ends in an error of its own where the cache is written

The attention of a decode step stands alone, at `--rows` rows whose lengths are spread as those of responses are: as it is, under a dense
mask with every row as wide as the longest, and by torch's flash kernel, which reads the keys that a row has (`seqused_k`), with grouped
queries. If the second is as fast as the bytes allow, rows need no common column, and the next can begin on CUDA too where one has ended.

Tables last. Predicted of the 23.8 ms that a step of 512 rows of Qwen3-1.7B took on 2026-11-27: blocks -2 ms, room -2 ms, compiled -4 ms,
and attention that reads what is there -5 ms.
"""

import lampo.process  # isort: skip  # noqa: F401  it must run before torch is imported

import argparse
import contextlib
import time
from collections.abc import Iterator
from unittest.mock import patch

import torch
from shapes import CUDA, DEVICE, SHAPES, build, peak, random_prompts, reset_peak, seconds
from torch import Tensor

from lampo.model.policy import Policy
from lampo.rollout import decoder, native
from lampo.rollout.native import NativeSampler

BLOCK = 256


@contextlib.contextmanager
def told(table: list[str], name: str) -> Iterator[None]:
    """What does not work on this card is a line of the table, and does not cost the others their time."""
    try:
        yield
    except Exception as error:
        table.append(f"| {name} | {type(error).__name__}: {str(error)[:100]} |".replace("\n", " "))
        if CUDA:
            torch.cuda.empty_cache()


def draw_in_blocks(logprobs_NV: Tensor, uniforms_N: Tensor) -> Tensor:
    """As `lampo.rollout.native.draw`: first the block that the threshold falls into, then the token in it."""
    size = min(BLOCK, logprobs_NV.shape[-1])
    padded = torch.nn.functional.pad(logprobs_NV, (0, -logprobs_NV.shape[-1] % size), value=-torch.inf)
    probabilities_NKB = padded.exp().unflatten(-1, (-1, size))
    sums_NK = probabilities_NKB.sum(-1, dtype=uniforms_N.dtype).cumsum(-1)
    rows, total = torch.arange(len(uniforms_N), device=uniforms_N.device), sums_NK[:, -1]
    # below the end of what is searched, and not below its beginning: a token of probability 0 is never drawn
    threshold_N1 = torch.minimum(uniforms_N * total, torch.nextafter(total, torch.zeros_like(total)))[:, None]
    block_N = torch.searchsorted(sums_NK, threshold_N1, right=True).squeeze(-1)
    before_N1 = torch.where(block_N > 0, sums_NK[rows, block_N - 1], 0.0)[:, None]
    inner_NB = before_N1 + probabilities_NKB[rows, block_N].to(uniforms_N.dtype).cumsum(-1)
    end_N1 = torch.nextafter(inner_NB[:, -1:], torch.zeros_like(threshold_N1))
    threshold_N1 = torch.maximum(torch.minimum(threshold_N1, end_N1), before_N1)
    return block_N * size + torch.searchsorted(inner_NB, threshold_N1, right=True).squeeze(-1)


@contextlib.contextmanager
def levers(policy: Policy, names: set[str]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if "blocks" in names:
            stack.enter_context(patch.object(native, "draw", draw_in_blocks))
        if "room" in names:
            stack.enter_context(
                patch.object(decoder, "room_for", lambda length, longest: length + min(length // 2, 64))
            )
        if "compiled" in names:
            for part in policy.core.modules():
                if type(part).__name__.endswith(("RMSNorm", "MLP")):
                    part.compile(dynamic=True)
                    stack.callback(setattr, part, "_compiled_call_impl", None)
        yield


def sampling(policy: Policy, options: argparse.Namespace) -> list[str]:
    prompts = random_prompts(max(1, options.rows // 8), options.prompt)

    def sample(tokens: int) -> tuple[float, list[int]]:
        sampler = NativeSampler(policy, temperature=1.0, max_new_tokens=tokens, rows_at_once=options.rows)
        start = seconds()
        groups = sampler.sample(prompts, min(options.rows, 8), seed=0)
        return seconds() - start, [
            token for group in groups for each in group for token in each.completion_ids.tolist()
        ]

    table = [
        "| levers | ms a step | times as it is | same tokens | first call, s | peak, GiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    asis, before = 0.0, []
    for names in ([], ["blocks"], ["room"], ["compiled"], ["blocks", "room", "compiled"]):
        with levers(policy, set(names)):
            reset_peak()
            name = " + ".join(names) or "as it is"
            with told(table, name):
                warm, _ = sample(4)
                short, _ = sample(options.tokens // 4)
                long, tokens = sample(options.tokens)
                step = (long - short) / (options.tokens - options.tokens // 4)
                asis, before = asis or step, before or tokens
                same = sum(map(int.__eq__, tokens, before)) / len(before)
                table.append(
                    f"| {name} | {1e3 * step:.2f} | {step / asis:.2f} | {same:.1%} | {warm:.1f} | {peak():.1f} |"
                )
        print(table[-1], flush=True)
    return table


def attention(shape: str, options: argparse.Namespace) -> list[str]:
    """One layer's attention in a decode step. The bound is one read of the keys and values that are there."""
    config = SHAPES[shape]
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    width = config.get("head_dim", config["hidden_size"] // heads)
    generator = torch.Generator().manual_seed(3)
    spread = torch.empty(options.rows).log_normal_(0, 0.6, generator=generator) / 4
    lengths = (spread.clamp(max=1) * options.length).int().clamp(min=1).to(DEVICE)
    rows, longest = options.rows, int(lengths.max())

    def states(*shape: int) -> Tensor:
        return torch.randn(shape, device=DEVICE, dtype=torch.bfloat16 if CUDA else torch.float32)

    query, keys, values = (
        states(rows, heads, width),
        states(rows, longest, shared, width),
        states(rows, longest, shared, width),
    )
    # rows end in one column, as `Decoder` has them; for the flash kernel they begin in one
    columns = torch.arange(longest, device=DEVICE)
    mask = (columns >= longest - lengths[:, None])[:, None, None]
    ends = torch.arange(rows + 1, device=DEVICE, dtype=torch.int32)

    def as_it_is() -> Tensor:
        ours, theirs = keys.transpose(1, 2), values.transpose(1, 2)
        ours, theirs = (each.repeat_interleave(heads // shared, 1) for each in (ours, theirs))
        return torch.nn.functional.scaled_dot_product_attention(query[:, :, None], ours, theirs, mask)[:, :, 0]

    def grouped() -> Tensor:
        beside = query.view(rows, shared, heads // shared, width)
        ours, theirs = keys.transpose(1, 2), values.transpose(1, 2)
        return torch.nn.functional.scaled_dot_product_attention(beside, ours, theirs, mask).flatten(1, 2)

    def flash() -> Tensor:
        flat = keys.flatten(0, 1), values.flatten(0, 1)
        begins = ends * longest
        return torch.ops.aten._flash_attention_forward(
            query, *flat, ends, begins, 1, longest, 0.0, False, False, seqused_k=lengths
        )[0]

    bound = 2 * int(lengths.sum()) * shared * width * keys.element_size()
    table = ["| attention of a layer | ms | GB/s of the keys and values that are there |", "| --- | ---: | ---: |"]
    kept: dict[str, Tensor] = {}
    for name, way in {"as it is": as_it_is, "grouped queries": grouped, "flash, seqused_k": flash}.items():
        with told(table, name):
            times = []
            for _ in range(12):
                start = seconds()
                kept[name] = way()
                times.append(seconds() - start)
            took = sorted(times)[len(times) // 2]
            table.append(f"| {name} | {1e3 * took:.3f} | {bound / took / 1e9:,.0f} |")
    if "grouped queries" in kept:
        difference = (kept["grouped queries"] - as_it_is()).abs().max()
        table.append(f"| largest difference of grouped queries | {float(difference):.2g} | |")
    if "flash, seqused_k" in kept:  # the same keys, where a row's last one is in the last column
        shifts = [longest - int(length) for length in lengths]
        keys, values = (
            torch.stack([each.roll(shift, 0) for each, shift in zip(states, shifts, strict=True)])
            for states in (keys, values)
        )
        difference = (kept["flash, seqused_k"] - as_it_is()).abs().max()
        table.append(f"| largest difference of flash | {float(difference):.2g} | |")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", nargs="?", default="qwen3-1.7b", choices=SHAPES)
    for name, default in {"rows": 512, "tokens": 96, "prompt": 200, "length": 2048}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    began = time.perf_counter()
    tables = [sampling(build(options.shape, "mixed"), options)]
    print(f"# {time.perf_counter() - began:.0f} s", flush=True)
    tables.append(attention(options.shape, options))
    print("\n".join(tables[-1]), flush=True)
    print("\n" + "\n\n".join("\n".join(table) for table in tables))


if __name__ == "__main__":
    main()
