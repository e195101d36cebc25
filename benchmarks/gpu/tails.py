"""Rollouts of one step at the paper's size: 512 rows of log-normal lengths, most of them short and a few as long as they may be.

    python benchmarks/gpu/tails.py [SHAPE] [--rows 512] [--longest 4096] [--mean 1000] [--prompt 200] [--others]

Random weights. A row ends where its uniform number, and so its token, is the last one. The bound is the bytes that must be read over the
bandwidth of a measured copy: for every token drawn its row's keys and values, and all weights in bfloat16 for each of the longest row's
tokens, as if all rows ran at once. `--others` measures the steps of other kinds of models too: all rows end in one column, under a dense
mask, and the next rows begin when all have ended.
"""

import lampo.process  # isort: skip  # noqa: F401  it must run before torch is imported

import argparse
from collections.abc import Sequence

import torch
from shapes import CUDA, SHAPES, build, ceilings, peak, random_prompts, reset_peak, seconds
from torch import Tensor

from lampo.model.memory import cached_bytes
from lampo.rollout.native import NativeSampler


class Tailed(NativeSampler):
    """Its rows have given lengths, whatever the model makes of them."""

    lengths: list[int]

    def _uniforms(self, num_rows: int, group_size: int, seed: int | Sequence[int]) -> Tensor:
        uniforms_NT = super()._uniforms(num_rows, group_size, seed) * 0.99
        last = torch.tensor(self.lengths, device=uniforms_NT.device) - 1
        uniforms_NT[torch.arange(num_rows, device=last.device), last] = 1 - 1e-12
        return uniforms_NT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", nargs="?", default="qwen3-1.7b", choices=SHAPES)
    for name, default in {"rows": 512, "longest": 4096, "mean": 1000, "prompt": 200}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--others", action="store_true")
    options = parser.parse_args()
    policy = build(options.shape, "mixed")
    policy.end_ids = [policy.head.out_features - 1]
    spread = torch.empty(options.rows).log_normal_(0, 0.8, generator=torch.Generator().manual_seed(5))
    lengths = (spread * options.mean / spread.mean()).int().clamp(1, options.longest).tolist()
    prompts = random_prompts(options.rows // 8, options.prompt)
    each = cached_bytes(policy.core.config, torch.bfloat16.itemsize)
    held = sum(length * (len(prompts[row // 8]) + length / 2) for row, length in enumerate(lengths)) * each
    bound = (held + 2 * policy.core.num_parameters() * max(lengths)) / ceilings()[0]
    print(f"{sum(lengths):,} tokens, the longest row {max(lengths):,}: bound {bound:.1f} s", flush=True)
    print("| steps | seconds | tokens/s | share of the bound | peak, GiB |\n| --- | ---: | ---: | ---: | ---: |")
    flash = policy.steps_by_flash(options.prompt + options.longest)
    for name, own in [("as it is", flash), *([("one column for all", False)] if options.others else [])]:
        policy.__dict__["_steps_by_flash"] = own
        sampler = Tailed(policy, temperature=1.0, max_new_tokens=options.longest, rows_at_once=options.rows, tell=print)
        sampler.lengths = [min(length, 8) for length in lengths]
        sampler.sample(prompts, 8, seed=0)  # compiles
        sampler.lengths = lengths
        reset_peak()
        start = seconds()
        groups = sampler.sample(prompts, 8, seed=0)
        took = seconds() - start
        drawn = [len(rollout.completion_ids) for group in groups for rollout in group]
        assert drawn == lengths
        print(f"| {name} | {took:.1f} | {sum(drawn) / took:,.0f} | {bound / took:.0%} | {peak():.1f} |", flush=True)
    if not CUDA:
        print("On a CPU this only shows that it runs.")


if __name__ == "__main__":
    main()
