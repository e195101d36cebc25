"""Token log-probabilities from hidden states: ours against the plain softmax, checkpointed chunks and torch's own chunked loss.

    python benchmarks/logprobs.py [--tokens 2048] [--vocabulary 49152] [--width 576] [--repeats 3]

Each contender runs forward and backward in a process of its own, on one thread, in turn; times are medians, memory is what the
process grew by at its peak. Ours also returns entropies, as do the first two; torch's does not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lampo.model.logprobs import LOGITS_PER_CHUNK, linear_logprobs


def plain(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logprobs = (states @ weight.T).log_softmax(-1)
    with torch.no_grad():
        _entropy = -(logprobs.exp() * logprobs).sum(-1)
    return logprobs.gather(-1, targets[:, None]).squeeze(-1)


def checkpointed(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    chunk = LOGITS_PER_CHUNK // len(weight)
    parts = zip(states.split(chunk), targets.split(chunk), strict=True)
    pieces = [checkpoint(plain, part, weight, part_targets, use_reentrant=False) for part, part_targets in parts]
    return torch.cat(pieces)  # pyright: ignore[reportArgumentType]


def torch_chunked(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    options = torch.nn.LinearCrossEntropyOptions()  # torch 2.13 and later
    return -torch.nn.functional.linear_cross_entropy(states, weight, targets, reduction="none", options=options)


def ours(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return linear_logprobs(states, weight, None, targets)[0]


CONTENDERS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "ours": ours,
    "plain softmax": plain,
    "checkpointed chunks": checkpointed,
    "torch linear_cross_entropy": torch_chunked,
}


def measure(name: str, tokens: int, vocabulary: int, width: int, results: multiprocessing.SimpleQueue) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    states = torch.randn(tokens, width, requires_grad=True)
    weight = (torch.randn(vocabulary, width) * width**-0.5).requires_grad_()
    targets, upstream = torch.randint(0, vocabulary, (tokens,)), torch.randn(tokens)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    logprobs = CONTENDERS[name](states, weight, targets)
    (logprobs * upstream).sum().backward()
    seconds = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    assert weight.grad is not None
    results.put((seconds, grown, float(logprobs.detach().double().sum()), float(weight.grad.double().norm())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("tokens", 2048), ("vocabulary", 49152), ("width", 576), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    names = [name for name in CONTENDERS if "torch" not in name or hasattr(torch.nn, "LinearCrossEntropyOptions")]
    context = multiprocessing.get_context("spawn")
    runs: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in names}
    for _ in range(options.repeats):
        for name in names:
            results = context.SimpleQueue()
            arguments = (name, options.tokens, options.vocabulary, options.width, results)
            process = context.Process(target=measure, args=arguments)
            process.start()
            runs[name].append(results.get())
            process.join()
    reference = runs["plain softmax"][0]
    base = statistics.median(seconds for seconds, *_ in runs["ours"])
    print(f"{'':28}{'seconds':>9}{'x ours':>8}{'GiB':>7}   relative error of value, gradient norm")
    for name in names:
        seconds = statistics.median(run[0] for run in runs[name])
        errors = [abs(runs[name][0][i] / reference[i] - 1) for i in (2, 3)]
        print(f"{name:28}{seconds:9.2f}{seconds / base:8.2f}{runs[name][0][1]:7.2f}   {errors[0]:.1e}, {errors[1]:.1e}")


if __name__ == "__main__":
    main()
