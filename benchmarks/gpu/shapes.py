"""Sampler and update at the shapes of the paper's models and SmolLM2-135M, random weights: how far they are from what the card can do.

    python benchmarks/gpu/shapes.py [SHAPE ...] [--rows 64 512] [--tokens 128] [--prompt 200] [--length 2048] [--profile]

One table for decoding and one for the update, last. A decode step must read every weight once, in bfloat16, and every key and value: these
bytes over the bandwidth of a measured copy are the bound. An update must do 6 operations for each weight and token: these over the rate of
a measured bfloat16 product are its bound. `--profile` prints the kernels of a decode step by their time.
"""

import lampo.process  # isort: skip  # noqa: F401  it must run before torch is imported

import argparse
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lampo.config.schema import ModelOptions
from lampo.learner.batch import Row, pad
from lampo.model.policy import Policy
from lampo.rollout.native import NativeSampler
from lampo.types import Rollout

sys.path.insert(0, str(Path(__file__).parents[1]))
from shape import SHAPE

QWEN3: dict[str, Any] = {
    "model_type": "qwen3",
    "head_dim": 128,
    "rope_theta": 1e6,
    "vocab_size": 151_936,
    "tie_word_embeddings": True,
}
PHI4: dict[str, Any] = {
    "model_type": "phi3",
    "max_position_embeddings": 131_072,
    "original_max_position_embeddings": 4096,
    "sliding_window": 262_144,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "partial_rotary_factor": 0.75,
        "short_factor": [1.0] * 48,
        "long_factor": [8.0] * 48,  # not its own, but no row here passes 4,096 tokens
    },
    "vocab_size": 200_064,
    "tie_word_embeddings": True,
}
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 512,
    },
    "tiny-phi": PHI4
    | {
        "hidden_size": 256,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 512,
    },
    "smollm2-135m": SHAPE,
    "qwen3-1.7b": QWEN3
    | {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
    },
    "qwen3-4b": QWEN3
    | {
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "phi-4-mini": PHI4
    | {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
    },
}
Dtype = Literal["mixed", "bfloat16"]
DTYPES: tuple[Dtype, ...] = ("mixed", "bfloat16")
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "shapes", nargs="*", default=["smollm2-135m", "qwen3-1.7b"], metavar="SHAPE", help=", ".join(SHAPES)
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 512])
    for name, default in {"tokens": 128, "prompt": 200, "length": 2048, "update-rows": 16}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    bandwidth, rate = ceilings()
    card = torch.cuda.get_device_name() if CUDA else "CPU"
    print(f"{card}, torch {torch.__version__}: {bandwidth / 1e12:.3g} TB/s, {rate / 1e12:.3g} TFLOP/s")
    decoding = [
        "| shape | dtype | rows | ms a step | tokens/s | bound, ms | share of it | peak, GiB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    updates = [
        "| shape | rows x tokens | seconds | tokens/s | share of the rate | peak, GiB | sampler - learner |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for shape in options.shapes:
        for dtype in DTYPES:
            policy = build(shape, dtype)
            print(f"# {time.perf_counter() - began:.0f} s: {shape}, {dtype}", flush=True)
            for rows in options.rows:
                decoding.append(decode(policy, shape, dtype, rows, options, bandwidth))
                print(decoding[-1], flush=True)
            if dtype == "mixed":
                updates.append(update(policy, shape, options, rate))
                print(updates[-1], flush=True)
            del policy
            gc.collect()
            if CUDA:
                torch.cuda.empty_cache()
    print("\n".join(["", *decoding, "", *updates]))


def build(shape: str, dtype: Dtype) -> Policy:
    options = ModelOptions(
        config=SHAPES[shape], characters="0123456789", dtype=dtype, device=DEVICE.type, gradient_checkpointing=True
    )
    with DEVICE:  # random numbers for 1.7 billion weights take the processor long
        policy = Policy.load(options, seed=0)
    policy.end_ids = [policy.head.out_features]  # no row ends early
    return policy


def decode(policy: Policy, shape: str, dtype: Dtype, rows: int, options: argparse.Namespace, bandwidth: float) -> str:
    """Time of a step between two lengths, so that neither the prompts nor the recording count."""
    prompts = random_prompts(max(1, rows // 8), options.prompt)
    group = min(rows, 8)

    def sample(tokens: int) -> float:
        sampler = NativeSampler(policy, temperature=1.0, max_new_tokens=tokens, rows_at_once=rows)
        start = seconds()
        sampler.sample(prompts, group, seed=0)
        return seconds() - start

    try:
        reset_peak()
        sample(4)
        short, long = sample(options.tokens // 4), sample(options.tokens)
        if options.profile and rows == options.rows[-1]:
            profile(lambda: sample(16))
    except torch.OutOfMemoryError as error:
        return f"| {shape} | {dtype} | {rows} | out of memory: {str(error)[:60]} |"
    step = (long - short) / (options.tokens - options.tokens // 4)
    config = policy.core.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cached = (
        4
        * config.num_hidden_layers
        * config.num_key_value_heads
        * head
        * rows
        * (options.prompt * 0.75 + options.tokens * 0.6)
    )
    bound = (2 * policy.core.num_parameters() + cached) / bandwidth
    return f"| {shape} | {dtype} | {rows} | {1e3 * step:.2f} | {rows / step:,.0f} | {1e3 * bound:.2f} | {bound / step:.0%} | {peak():.1f} |"


def update(policy: Policy, shape: str, options: argparse.Namespace, rate: float) -> str:
    """Forward and backward passes over rows that the policy has drawn, at their real length."""
    rows, tokens = options.update_rows, options.length - options.prompt
    prompts = random_prompts(rows, options.prompt)
    short = NativeSampler(policy, temperature=1.0, max_new_tokens=min(tokens, 64), rows_at_once=rows)
    drawn = [group[0] for group in short.sample(prompts, 1, seed=1)]
    gap = learner_gap(policy, drawn)
    generator = torch.Generator().manual_seed(2)
    long = [torch.randint(3, 13, (tokens,), generator=generator) for _ in range(rows)]
    batch = [Row(prompt, ids, torch.zeros(tokens), 1.0) for prompt, ids in zip(prompts, long, strict=True)]
    reset_peak()
    times = []
    try:
        for _ in range(3):
            start = seconds()
            for at in range(0, rows, 4):  # 8,192 tokens at the default length
                part = pad(batch[at : at + 4]).to(policy.device)
                logprobs, _ = policy.token_logprobs(part, temperature=1.0)
                (logprobs * part.advantages_NT).sum().backward()
            policy.model.zero_grad()
            times.append(seconds() - start)
    except torch.OutOfMemoryError as error:
        return f"| {shape} | {rows} x {options.length} | out of memory: {str(error)[:60]} |"
    num_tokens = sum(len(row) for row in batch)
    best = min(times)
    share = 6 * policy.core.num_parameters() * num_tokens / rate / best
    return f"| {shape} | {rows} x {options.length} | {best:.2f} | {num_tokens / best:,.0f} | {share:.0%} | {peak():.1f} | {gap} |"


@torch.no_grad()
def learner_gap(policy: Policy, rollouts: list[Rollout]) -> str:
    """Mean and largest difference of a token's log-prob between sampling and learning."""
    batch = pad([Row(each.prompt_ids, each.completion_ids, each.logprobs, 0.0) for each in rollouts]).to(policy.device)
    logprobs_NT, _ = policy.token_logprobs(batch, temperature=1.0)
    gaps = (logprobs_NT - batch.old_logprobs_NT)[batch.mask_NT].abs()
    return f"{float(gaps.mean()):.2g}, at most {float(gaps.max()):.2g}"


def random_prompts(count: int, longest: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(longest // 2, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(3, 13, (length,), generator=generator) for length in lengths]


def ceilings() -> tuple[float, float]:
    """Bytes a second of a copy, read and written; operations a second of a bfloat16 product."""
    size, side = (2**31, 8192) if CUDA else (2**26, 512)
    source = torch.empty(size, dtype=torch.int8, device=DEVICE)
    target = torch.empty_like(source)
    bandwidth = 2 * size / fastest(lambda: target.copy_(source))
    left, right = (torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return bandwidth, 2 * side**3 / fastest(lambda: left @ right)


def fastest(call: Callable[[], object]) -> float:
    times = []
    for _ in range(8):
        start = seconds()
        call()
        times.append(seconds() - start)
    return min(times)


def profile(call: Callable[[], object]) -> None:
    kinds = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if CUDA else [])]
    with torch.profiler.profile(activities=kinds) as seen:
        call()
    print(
        seen.key_averages().table(
            sort_by="self_cuda_time_total" if CUDA else "self_cpu_time_total", row_limit=14, max_name_column_width=90
        )
    )


def seconds() -> float:
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


def reset_peak() -> None:
    if CUDA:
        torch.cuda.reset_peak_memory_stats()


def peak() -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if CUDA else 0.0


if __name__ == "__main__":
    main()
