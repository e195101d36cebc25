"""Which change would bring sampling nearer to what the card can do: each alone and together, at one shape.

    python benchmarks/gpu/levers.py qwen3-1.7b [--rows 512] [--tokens 96] [--prompt 200] [--length 2048]

Sampling is measured as it is, and by the steps that models of other kinds take: recorded too, all rows ending in one column, attention
under a dense mask. Attention of a decode step also stands alone, at `--rows` rows whose lengths are spread as those of responses are:
under that mask, by torch's flash kernel, and by our own with more or fewer keys read together and ahead, or a row's keys by several
programs.

Tables last. Found on an H200: ../RESULTS.md. Predicted of what is missing: with 8 rows and fewer, four or more programs a row take a
third of the time, which is a second of each thousand steps of a long tail.
"""

import lampo.process  # isort: skip  # noqa: F401  it must run before torch is imported

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from shapes import CUDA, DEVICE, SHAPES, build, peak, random_prompts, reset_peak, seconds
from torch import Tensor

from lampo.model.policy import Policy
from lampo.rollout.native import NativeSampler


@contextlib.contextmanager
def told(table: list[str], name: str) -> Iterator[None]:
    """What does not work on this card is a line of the table, and does not cost the others their time."""
    try:
        yield
    except Exception as error:
        table.append(f"| {name} | {type(error).__name__}: {str(error)[:100]} |".replace("\n", " "))
        if CUDA:
            torch.cuda.empty_cache()


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
        "| steps | ms a step | times as it is | same tokens | first call, s | peak, GiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    asis, before = 0.0, []
    for name, own in (("as it is", policy.steps_by_flash(options.tokens)), ("one column for all, dense mask", False)):
        policy.__dict__["_steps_by_flash"] = own
        reset_peak()
        with told(table, name):
            warm, _ = sample(4)
            short, _ = sample(options.tokens // 4)
            long, tokens = sample(options.tokens)
            step = (long - short) / (options.tokens - options.tokens // 4)
            asis, before = asis or step, before or tokens
            same = sum(map(int.__eq__, tokens, before)) / len(before)
            table.append(f"| {name} | {1e3 * step:.2f} | {step / asis:.2f} | {same:.1%} | {warm:.1f} | {peak():.1f} |")
        print(table[-1], flush=True)
    return table


def attention(shape: str, options: argparse.Namespace) -> list[str]:
    """One layer's attention in a decode step. The bound is one read of the keys and values that are there."""
    table = [
        "| attention of a layer | rows | keys | ms | GB/s of keys and values | difference |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for rows, length in (
        (options.rows, options.length),
        (options.rows, options.length // 4),
        (8, options.length),
        (1, options.length),
    ):
        num_keys, size, ways = ways_of_attention(shape, rows, length)
        expected: Tensor | None = None
        for name, way in ways.items():
            with told(table, name):
                out = way()
                expected = out if expected is None else expected
                times = []
                for _ in range(12):
                    start = seconds()
                    way()
                    times.append(seconds() - start)
                took = sorted(times)[len(times) // 2]
                difference = float((out - expected).abs().max())
                speed = num_keys * size / took / 1e9
                table.append(f"| {name} | {rows} | {num_keys:,} | {1e3 * took:.3f} | {speed:,.0f} | {difference:.1g} |")
            print(table[-1], flush=True)
    return table


def ways_of_attention(shape: str, rows: int, length: int) -> tuple[int, int, dict[str, Callable[[], Tensor]]]:
    """How many keys there are, the bytes of one and its value, and the ways by name."""
    lengths, query, keys, values = decoding(shape, rows, length)
    begins = torch.arange(0, rows * length, length, device=DEVICE, dtype=torch.int32)
    scale, ends = query.shape[-1] ** -0.5, torch.arange(rows + 1, device=DEVICE, dtype=torch.int32)
    mask = (torch.arange(length, device=DEVICE) <= lengths[:, None])[:, None, None]

    def dense() -> Tensor:
        held = (each.unflatten(0, (rows, length)).transpose(1, 2) for each in (keys, values))
        key, value = (each.repeat_interleave(query.shape[1] // keys.shape[1], 1) for each in held)
        return torch.nn.functional.scaled_dot_product_attention(query[:, :, None], key, value, mask)[:, :, 0]

    def flash() -> Tensor:
        kernel, settings = torch.ops.aten._flash_attention_forward, {"scale": scale, "seqused_k": lengths + 1}
        return kernel(query, keys, values, ends, ends * length, 1, length, 0.0, False, False, **settings)[0]

    ways: dict[str, Callable[[], Tensor]] = {"dense mask": dense, "torch's flash": flash}
    for together, ahead in ((64, 2), (64, 3), (32, 3), (128, 2)):
        ways[f"own, {together} keys, {ahead} ahead"] = partial(
            own_attention, together, ahead, query, keys, values, begins, lengths, scale
        )
    for splits in (4, 16):
        ways[f"own, each row's keys by {splits} programs"] = partial(
            split_attention, splits, query, keys, values, begins, lengths, scale
        )
    size = 2 * keys.shape[1] * keys.shape[2] * keys.element_size()
    return int(lengths.sum()) + rows, size, ways


def decoding(shape: str, rows: int, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lengths of rows (N,), their queries (N, H, D), and storage of keys and values (N * length, K, D)."""
    config = SHAPES[shape]
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    width = config.get("head_dim", config["hidden_size"] // heads)
    generator = torch.Generator().manual_seed(3)
    spread = torch.empty(rows).log_normal_(0, 0.6, generator=generator) / 4
    lengths = (spread.clamp(max=1) * (length - 1)).int().clamp(min=1).to(DEVICE)

    def states(*shape: int) -> Tensor:
        return torch.randn(shape, device=DEVICE, dtype=torch.bfloat16 if CUDA else torch.float32)

    return (
        lengths,
        states(rows, heads, width),
        states(rows * length, shared, width),
        states(rows * length, shared, width),
    )


def split_attention(splits: int, *arguments: Any) -> Tensor:
    from split_attention import attend

    return attend(*arguments, splits=splits)


def own_attention(together: int, ahead: int, *arguments: Any) -> Tensor:
    from lampo.model import decode_kernels

    with patch.multiple(decode_kernels, KEYS_AT_ONCE=together, READ_AHEAD=ahead):
        return decode_kernels.attend(*arguments)


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
