"""Sampling groups of completions: ours, ours with every kernel launched by the processor, transformers' `generate` and continuous batching.

    python benchmarks/sampler.py [RECIPE] [--work uniform tails ends] [--prompts 8] [--group-size 8] [--prompt 60] [--completion 64]
        [--mean 32] [--rows ROWS] [--repeats 3] [--threads 1] [--continuous]

The model, its device and its precision are those of the recipe; without one, SmolLM2-135M's shape with random weights, on a GPU where there
is one. Prompts are random, between half of their length and all of it.

    uniform: lengths drawn beforehand, between 3/4 and 4/4 of `--completion` (forced.py)
    tails:   the same, log-normal, median 1/8 of `--completion`, cut there
    ends:    a completion ends after a token of which there are so many that the mean length without a limit is `--mean`

`--rows` is how many of the rows have a place at once. Unset, all have one. Where they are fewer, a row that has ended gives its place to
the next, and beside it stands the way without: the next begin when all have ended.

The contenders take turns; the times are medians, for one token of a completion. On a CPU the matrix products of our steps stand beside
them, alone. Ours also returns the log-probabilities; how far they are
from those that learning computes is printed. Continuous batching needs minutes on a CPU, so there it takes part with `--continuous` only,
and only where completions end by themselves.
"""

import lampo.process  # isort: skip  # noqa: F401  it must run before torch is imported

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from forced import draw_lengths, forced_generate, forced_sampler
from shape import CHARACTERS, SHAPE
from torch import Tensor
from transformers import ContinuousBatchingConfig, GenerationConfig

from lampo.config.load import load_config
from lampo.config.schema import ModelOptions
from lampo.learner.batch import Row, pad
from lampo.model.policy import Policy
from lampo.rollout import decoder, native
from lampo.rollout.decoder import left_pad
from lampo.rollout.native import NativeSampler
from lampo.types import LampoError, Rollout


class AllTogether(decoder.Decoder):
    """The next rows begin when all have ended."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.takes_in = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, nargs="?")
    defaults = {"prompts": 8, "group-size": 8, "prompt": 60, "completion": 64, "mean": 32, "repeats": 3, "threads": 1}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rows", type=int)
    works = ["uniform", "tails", "ends"]
    parser.add_argument("--work", nargs="+", choices=works, default=works)
    parser.add_argument("--continuous", action="store_true", help="on a CPU too")
    options = parser.parse_args()
    options.rows = options.prompts * options.group_size if options.rows is None else options.rows
    if min(getattr(options, name.replace("-", "_")) for name in ("rows", *defaults)) < 1:
        parser.error("every number must be at least 1")
    torch.set_num_threads(options.threads)
    model = ModelOptions(config=SHAPE, characters=CHARACTERS)
    if options.recipe is not None:
        try:
            model = load_config(options.recipe).model
        except LampoError as error:
            parser.error(str(error))
    policy = Policy.load(model, seed=0)
    generator = torch.Generator().manual_seed(0)
    prompts: list[Tensor] = []
    for _ in range(options.prompts):
        length = int(torch.randint(options.prompt // 2, options.prompt + 1, (), generator=generator))
        prompts.append(torch.randint(3, 13, (length,), generator=generator))
    print(
        f"{policy.device}, {options.prompts} x {options.group_size} rows, {options.rows} at once, up to {options.completion} tokens"
    )
    print("| work | contender | microseconds a token | processor | ours / it: seconds | processor |")
    print("| --- | --- | ---: | ---: | ---: | ---: |", flush=True)
    differences = [f"{work} {measure(work, policy, prompts, generator, options):.2g}" for work in options.work]
    print(f"\nlargest difference from the log-probs of learning: {', '.join(differences)}")


def measure(
    work: str, policy: Policy, prompts: list[Tensor], generator: torch.Generator, options: argparse.Namespace
) -> float:
    """Print the lines of one kind of work; returns how far our log-probs are from those of learning."""
    T, G = options.completion, options.group_size
    forced = work != "ends"
    policy.end_ids = [2] if forced else list(range(0, policy.head.out_features, options.mean))
    lengths = draw_lengths(work, options.prompts * G, T, generator)
    sampler = NativeSampler(policy, temperature=1.0, max_new_tokens=T, rows_at_once=options.rows)
    rollouts: list[Rollout] = []

    def ours(seed: int) -> int:
        with forced_sampler(lengths, 2, 3) if forced else contextlib.nullcontext():
            rollouts[:] = [rollout for group in sampler.sample(prompts, G, seed=seed) for rollout in group]
        return sum(len(rollout.completion_ids) for rollout in rollouts)

    def all_together(seed: int) -> int:
        with patch.object(native, "Decoder", AllTogether):
            return ours(seed)

    def one_by_one(seed: int) -> int:
        really = decoder.recordable
        decoder.recordable = lambda *_: False
        try:
            return ours(seed)
        finally:
            decoder.recordable = really

    common: dict[str, Any] = {
        "do_sample": True,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "max_new_tokens": T,
        "eos_token_id": policy.end_ids,
        "pad_token_id": policy.tokenizer.pad_token_id,
    }

    @torch.no_grad()
    def generate(seed: int) -> int:
        torch.manual_seed(seed)
        ids, mask = (tensor.to(policy.device) for tensor in left_pad(prompts, policy.tokenizer.pad_token_id))
        settings = GenerationConfig(num_return_sequences=G, **common)
        with policy.precision():
            drawn = (
                forced_generate(
                    policy.model, lengths, 2, 3, generation_config=settings, input_ids=ids, attention_mask=mask
                )
                if forced
                else policy.model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
            )[:, ids.shape[1] :]
        ended = torch.isin(drawn, torch.tensor(policy.end_ids, device=policy.device)).int()
        return int((ended.cumsum(-1) - ended == 0).sum())

    @torch.no_grad()
    def continuous(seed: int) -> int:
        settings = GenerationConfig(**common)
        with policy.precision():
            drawn = policy.core.generate_batch(
                [prompt.tolist() for prompt in prompts for _ in range(G)],
                generation_config=settings,
                continuous_batching_config=ContinuousBatchingConfig(return_logprobs=True, seed=seed),
            )
        return sum(len(each.generated_tokens) for each in drawn.values())

    @torch.no_grad()
    def products(seed: int) -> int:
        """The matrix products of the same steps and nothing else: what no sampler that multiplies as torch does can go below."""
        layers = [module for module in policy.core.modules() if isinstance(module, torch.nn.Linear)]
        ends = lengths if forced else torch.tensor([len(rollout.completion_ids) for rollout in rollouts])
        for rows in [int((ends > t).sum()) for t in range(int(ends.max()))]:
            states = {width: torch.ones(rows, width) for width in {layer.in_features for layer in layers}}
            for layer in layers:
                layer(states[layer.in_features])
        return int(ends.sum())

    contenders: dict[str, Callable[[int], int]] = {"ours": ours}
    if policy.device.type == "cuda":
        contenders["ours, launched one by one"] = one_by_one
    else:
        contenders["products alone"] = products
    if options.rows < options.prompts * G:
        contenders["ours, the next when all have ended"] = all_together
    contenders["transformers' generate"] = generate
    if not forced and (options.continuous or policy.device.type == "cuda"):
        contenders["transformers' continuous batching"] = continuous

    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    difference = 0.0
    for repeat in range(options.repeats + 1):
        for name, contender in contenders.items():
            start, start_processor = time.perf_counter(), time.process_time()
            num_tokens = contender(repeat)
            if policy.device.type == "cuda":
                torch.cuda.synchronize()
            took = time.perf_counter() - start, time.process_time() - start_processor
            if repeat > 0:  # the first one warms up
                times[name].append((took[0] / num_tokens, took[1] / num_tokens))
            if name == "ours" and repeat == 0:
                difference = largest_difference(policy, rollouts)
            assert not forced or num_tokens == int(lengths.sum())
    for name, each in times.items():
        medians = [statistics.median(time[i] for time in each) for i in (0, 1)]
        ratios = [statistics.median(o[i] / t[i] for o, t in zip(times["ours"], each, strict=True)) for i in (0, 1)]
        cells = [work, name, *(f"{1e6 * median:.1f}" for median in medians), *(f"{ratio:.2f}" for ratio in ratios)]
        print(f"| {' | '.join(cells)} |", flush=True)
    return difference


@torch.no_grad()
def largest_difference(policy: Policy, rollouts: list[Rollout]) -> float:
    largest = 0.0
    for start in range(0, len(rollouts), 32):
        part = [Row(each.prompt_ids, each.completion_ids, each.logprobs, 0.0) for each in rollouts[start : start + 32]]
        batch = pad(part).to(policy.device)
        logprobs_NT, _ = policy.token_logprobs(batch, temperature=1.0)
        largest = max(largest, float((logprobs_NT - batch.old_logprobs_NT)[batch.mask_NT].abs().max()))
    return largest


if __name__ == "__main__":
    main()
