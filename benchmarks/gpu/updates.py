"""Real tokens a second of an update, packed against padded, on responses with a long tail and on ones of one length.

    python benchmarks/gpu/updates.py qwen3-1.7b [--groups 4] [--prompt 200] [--length 2048] [--budget 8192]

Groups of 8 with one prompt, random weights, dtype `mixed`. Long tails are log-normal lengths up to `--length`. Each way splits the same
rows into micro-batches of the same budget, as training does. Real tokens are those of all rows, with their prompts, without padding.
Computed / real is below 1 where prompts are shared. Padded is `rows` under gradient checkpointing and `shared` without.

Layers are our own in few kernels, transformers', or transformers' with parts fused by torch.compile or by Liger. Beside all but our own the
head's log-probabilities are by torch's operations, as they were before.

Each gradient is compared with the first of the same rows. On the first line this is the same way again: what rounding alone makes. Before
the table stands what the program chose, and how long it tried; the 20 slowest kernels of one update of `--budget` tokens; and the smallest
shape with a few short rows of every kind, packed beside padded.

Found for Qwen3-1.7B on an H200 with transformers' layers: ../RESULTS.md. Predicted of our own, by `launches.py` and at 4 TB/s and 782
TFLOP/s: 19 microseconds a computed token without checkpointing and 23 with it, where transformers' take 38, beside 0.06 and 0.08 s a
micro-batch, where theirs takes 0.2, if that is launches. So 55,000 and 45,000 real tokens a second on long tails at 32,768, where 24,628
were found. Torch.compile and Liger lie between, for they leave casts and residual sums as they are.
"""

import lampo.process  # isort: skip  # noqa: F401  it must run before torch is imported

import argparse
import time
from collections import Counter
from dataclasses import dataclass
from importlib import import_module

import torch
from shapes import CUDA, SHAPES, build, peak, random_prompts, reset_peak, seconds
from torch import Tensor

from lampo.learner.batch import Batch, Row, pad
from lampo.model import flash_layer
from lampo.model.packing import Packing
from lampo.model.policy import Layout, Policy
from lampo.types import MicroBatch

GROUP, SPREAD = 8, 0.6
HEADER = [
    "| responses | checkpointing | rows | layers | micro-batches | computed / real | real tokens/s | peak, GiB | gradient |",
    "| --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: |",
]


@dataclass(frozen=True)
class Case:
    """One row of the table: which responses, with checkpointing or without, packed or padded, whose layers, the budget as a multiple."""

    responses: str
    checkpointing: bool
    packed: bool
    layers: str = "own"
    times_budget: int = 1

    @property
    def layout(self) -> Layout:
        """What the model computes for a micro-batch."""
        return "packed" if self.packed else "rows" if self.checkpointing else "shared"


CASES = [
    Case("long tail", True, True),
    Case("long tail", True, True, "transformers"),
    Case("long tail", False, True),
    Case("long tail", False, True, "transformers"),
    Case("long tail", True, True, "own", 4),
    Case("long tail", True, True, "transformers", 4),
    Case("long tail", False, True, "own", 4),
    Case("one length", False, True, "own", 4),
    Case("one length", True, True, "own", 4),
    Case("one length", True, False, "transformers"),
    Case("long tail", True, True, "compiled", 4),
    Case("long tail", True, True, "liger", 4),
]


def make_rows(prompts: list[Tensor], longest: int, responses: str) -> Batch:
    """Groups of 8; half as many where all are as long as the longest."""
    generator = torch.Generator().manual_seed(2)
    prompts = prompts if responses == "long tail" else prompts[: (len(prompts) + 1) // 2]
    spread = torch.empty(len(prompts), GROUP).log_normal_(0, SPREAD, generator=generator) / 4
    rows = []
    for group, prompt in enumerate(prompts):
        most = longest - len(prompt)
        for share in spread[group].tolist():
            length = max(1, int(min(share, 1.0) * most)) if responses == "long tail" else most
            completion = torch.randint(3, 13, (length,), generator=generator)
            advantage = float(torch.randn((), generator=generator))
            rows.append(Row(prompt, completion, torch.zeros(length), advantage, group))
    return Batch.numbered(rows)


def backward(policy: Policy, parts: list[MicroBatch]) -> None:
    policy.model.zero_grad()
    for part in parts:
        part = part.to(policy.device)
        logprobs_NT, _ = policy.token_logprobs(part, temperature=1.0)
        (logprobs_NT * part.advantages_NT).sum().backward()


def some_of_the_gradient(policy: Policy) -> Tensor:
    """A copy, so that no gradient is kept beside the next one."""
    return torch.cat([each.grad.flatten()[:10_000].float() for each in policy.trainable_parameters().values()])  # pyright: ignore[reportOptionalMemberAccess]


def checkpoint(policy: Policy, on: bool) -> None:
    for module in policy.core.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = on


def give(policy: Policy, layers: str) -> None:
    """The layers of a case, and the head's log-probabilities that go with them. A CPU has transformers' for our own."""
    is_own = type(policy.backbone.layers[0]).__name__.startswith("Flash")
    if is_own and layers != "own":
        flash_layer.unmake_flash(policy.backbone)
    own = layers == "own" and CUDA
    if own and not is_own:
        flash_layer.make_flash(policy.backbone)
    policy.__dict__["_kernels_of_scores"] = import_module("lampo.model.update_kernels") if own else None
    parts = [part for part in policy.core.modules() if type(part).__name__.endswith(("RMSNorm", "MLP"))]
    for part in parts:
        part._compiled_call_impl = None
        if layers == "compiled":
            part.compile(dynamic=True)
    if layers == "liger":
        from liger_kernel.transformers import monkey_patch  # pip install liger-kernel  # pyright: ignore[reportMissingImports]

        apply = getattr(monkey_patch, f"apply_liger_kernel_to_{policy.core.config.model_type}")
        off = {"cross_entropy": False, "fused_linear_cross_entropy": False}
        apply(rope=True, rms_norm=True, swiglu=True, model=policy.core, **off)


def measure(policy: Policy, case: Case, batch: Batch, budget: int, first: dict[str, Tensor]) -> str:
    checkpoint(policy, case.checkpointing)
    policy.layout = case.layout
    parts = batch.split(case.times_budget * budget, layout=case.layout)
    computed, times, distance = count(policy, parts), list[float](), 0.0
    try:
        give(policy, case.layers)
        backward(policy, parts)  # compiles what is to be compiled
        reset_peak()
        for _ in range(2):
            start = seconds()
            backward(policy, parts)
            times.append(seconds() - start)
            found = some_of_the_gradient(policy)
            begun = first.setdefault(case.responses, found)
            distance = float((found - begun).norm() / begun.norm())
    except Exception as error:  # a line of the table, so that the other ways still run
        return f"| {case.responses} | {case.layout} | {case.layers} | {type(error).__name__}: {str(error)[:200]} |".replace(
            "\n", " "
        )
    real = sum(map(len, batch.rows))
    name = f"{case.responses} | {'yes' if case.checkpointing else 'no'} | {'packed' if case.packed else 'padded'} | {case.layers}"
    return (
        f"| {name} | {len(parts)} of {case.times_budget * budget:,} | {computed / real:.2f} | {real / min(times):,.0f} "
        f"| {peak():.1f} | {distance:.1e} |"
    )


def count(policy: Policy, parts: list[MicroBatch]) -> int:
    """Tokens that the model computes, padding included."""
    if policy.layout == "packed":
        return sum(len(Packing.of(part).ids) for part in parts)
    computed = 0
    for part in parts:
        prompts = len({*part.first_ids_N.tolist()}) * int(part.prompt_lengths.max())
        rows, shared = part.input_ids.numel(), prompts + part.mask_NT.numel()
        computed += min(rows, shared) if policy.layout == "shared" else rows
    return computed


def few_tokens(shape: str = "tiny") -> list[str]:
    """How far packed rows are from padded ones where segments are short, missing or alone: log-probs, and the gradient's distance."""
    policy = build(shape, "mixed")
    checkpoint(policy, False)
    lines = [
        "| prompts, and the tokens behind each | largest difference of a log-prob | gradient |",
        "| --- | ---: | ---: |",
    ]
    generator = torch.Generator().manual_seed(4)
    for kinds in (
        [(9, [3, 5, 1]), (12, [2]), (1, [30, 2]), (20, [1, 1])],
        [(9, [2, 1]), (4, [1, 2])],
        [(5, [1, 1])],
        [(7, [9])],
    ):
        rows = []
        for group, (length, completions) in enumerate(kinds):
            prompt, *behind = (torch.randint(3, 13, (each,), generator=generator) for each in (length, *completions))
            rows += [Row(prompt, each, torch.zeros(len(each)), 1.0 - 0.3 * len(each), group) for each in behind]
        part = pad(rows).to(policy.device)
        found = []
        for layout in ("packed", "rows"):
            policy.layout = layout
            backward(policy, [part])
            found.append((policy.frozen_logprobs(part, temperature=1.0), some_of_the_gradient(policy)))
        (packed_NT, packed), (rows_NT, padded) = found
        distance = float((packed - padded).norm() / padded.norm())
        lines.append(f"| {kinds} | {float((packed_NT - rows_NT).abs().max()):.1e} | {distance:.1e} |")
    return lines


def slowest_kernels(policy: Policy, batch: Batch, budget: int, most: int = 20) -> list[str]:
    """Of one update of a micro-batch, packed, under checkpointing. On a CPU its slowest operations."""
    checkpoint(policy, True)
    policy.layout = "packed"
    part = batch.split(budget, layout="packed")[:1]
    backward(policy, part)
    seconds()
    kind = torch.profiler.ProfilerActivity.CUDA if CUDA else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[kind]) as seen:
        start = seconds()
        backward(policy, part)
        took = 1e6 * (seconds() - start)
    spent, calls = Counter[str](), Counter[str]()
    for event in seen.key_averages():
        if CUDA and event.device_type.name == "CPU":  # the launch, not the kernel
            continue
        spent[event.key] += event.self_device_time_total if CUDA else event.self_cpu_time_total
        calls[event.key] += event.count
    busy = sum(spent.values())
    lines = [f"one update of {count(policy, part):,} tokens: {took / 1e3:.0f} ms, kernels {busy / 1e3:.0f} ms"]
    lines += ["| ms | share | calls | kernel |", "| ---: | ---: | ---: | --- |"]
    for name, time_us in spent.most_common(most):
        lines.append(f"| {time_us / 1e3:.1f} | {time_us / busy:.1%} | {calls[name]} | {name[:150].replace('|', '/')} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", nargs="?", default="qwen3-1.7b", choices=SHAPES)
    for name, default in {"groups": 4, "prompt": 200, "length": 2048, "budget": 8192}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    began = time.perf_counter()
    policy = build(options.shape, "mixed")
    prompts = random_prompts(options.groups, options.prompt)
    reset_peak()
    start, lying = seconds(), peak()
    chosen = f"{policy.layout}, {type(policy.backbone.layers[0]).__name__}"
    print(
        f"# {start - began:.0f} s. The program chose {chosen}, in {seconds() - start:.2f} s and {peak() - lying:.2f} GiB",
        *policy.slower,
        sep="\n# ",
        flush=True,
    )
    print(
        "\n".join(slowest_kernels(policy, make_rows(prompts, options.length, "long tail"), options.budget)), flush=True
    )
    print(f"# {time.perf_counter() - began:.0f} s", flush=True)
    print("\n".join(few_tokens()), flush=True)  # before Liger changes what models are made of
    print("\n".join(HEADER), flush=True)
    first: dict[str, Tensor] = {}
    for case in CASES:
        batch = make_rows(prompts, options.length, case.responses)
        print(measure(policy, case, batch, options.budget, first), flush=True)
        policy.model.zero_grad()
        if CUDA:
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
