"""The plan's terms beside what was measured. docs/plan.md has the same table: a change of a constant changes both."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lampo.config.load import load_config
from lampo.plan.cards import CARDS, rates
from lampo.plan.cost import (
    Machine,
    Work,
    decode_step,
    memory_parts,
    most_columns,
    peak,
    rollout_seconds,
    share_of,
    slots_of,
    transfer_seconds,
    update_seconds,
)
from lampo.plan.lengths import assumed_lengths, in_order_of_asking
from lampo.plan.shape import KNOWN, Shape, shape_of

ROOT = Path(__file__).parents[3]
SMOLLM2, QWEN = KNOWN["SmolLM2-135M-Instruct"], KNOWN["Qwen/Qwen3-1.7B"]
LLAMA_8B = Shape(32, 4096, 14336, 32, 8, 128, 128_256, tied=False)


class Padded(Work):
    """As it was measured: before rows were packed on a GPU."""

    packs = False  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]


def work(
    recipe: str,
    *settings: str,
    prompt: int,
    shape: Shape | None = None,
    longest: int = 0,
    on_cpu: bool = False,
    kind: type[Work] = Padded,
) -> Work:
    config = load_config(ROOT / "recipes" / f"{recipe}.yaml", list(settings))
    return (Work if on_cpu else kind)(shape or shape_of(config.model), config, prompt, max(prompt, longest), on_cpu)


def shapes(shape: Shape, *settings: str) -> Work:
    """benchmarks/gpu/shapes.py: prompts of 100 to 200 tokens, 128 new ones."""
    return work("qwen3-1.7b-gsm8k", "sampling.max_new_tokens=128", *settings, prompt=150, shape=shape, longest=200)


GSM8K = work(
    "smollm2-135m-gsm8k",
    *("sampling.problems_per_step=96", "sampling.max_new_tokens=200", "sampling.rows_at_once=1536"),
    "training.tokens_per_microbatch=8192",
    prompt=110,
    longest=200,
)
WORDS = work(
    "smollm2-135m-arithmetic",
    *("sampling.problems_per_step=32", "sampling.rows_at_once=1024", "training.tokens_per_microbatch=4096"),
    *("evaluation.final_problems=1000", "evaluation.final_samples=4"),
    prompt=30,
    longest=40,
)
ON_CPU = work("smollm2-135m-arithmetic", prompt=30, longest=40, on_cpu=True)
GSM8K_ON_CPU = work(
    "smollm2-135m-gsm8k",
    *("sampling.problems_per_step=4", "sampling.max_new_tokens=200", "training.tokens_per_microbatch=2048"),
    prompt=110,
    longest=200,
    on_cpu=True,
)
QUICKSTART = work("quickstart", prompt=12, on_cpu=True)
WITH_ITS_BUDGET = work("quickstart", "training.tokens_per_microbatch=16384", prompt=12, on_cpu=True)
NEMO = work(
    "qwen3-1.7b-gsm8k",
    *("sampling.group_size=32", "sampling.max_new_tokens=4096", "loss.kl_coefficient=0.01"),
    "training.tokens_per_microbatch=4096",
    prompt=150,
    shape=LLAMA_8B,
    longest=200,
)


def decoding(asked: Work, rows: int) -> Callable[[Machine], float]:
    """Between 32 and 128 tokens behind the prompt: 80 on average."""
    return lambda machine: 1e3 * decode_step(asked, machine, rows, rows * (150 + 80))


def sampling(asked: Work, count: int, mean: float, slots: int) -> Callable[[Machine], float]:
    lengths = in_order_of_asking(assumed_lengths(count, mean, asked.config.sampling.max_new_tokens))
    return lambda machine: rollout_seconds(asked, machine, lengths, slots)


def updating(asked: Work, count: int, mean: float) -> Callable[[Machine], float]:
    lengths = assumed_lengths(count, mean, asked.config.sampling.max_new_tokens)
    return lambda machine: update_seconds(asked, machine, lengths)


def long_rows(shape: Shape) -> Callable[[Machine], float]:
    asked = work("qwen3-1.7b-gsm8k", "training.tokens_per_microbatch=8192", prompt=200, shape=shape)
    return lambda machine: update_seconds(asked, machine, [1848] * 16)


def rows_of_one_length(machine: Machine) -> float:
    """Nothing is padded and nothing shared, so that torch's flash kernels run as they do for packed rows."""
    asked = work("qwen3-1.7b-gsm8k", "training.tokens_per_microbatch=8192", prompt=0, shape=QWEN, kind=Work)
    return update_seconds(asked, machine, [2048] * 16)


def published(machine: Machine) -> float:
    lengths = share_of(assumed_lengths(2048, 910, 4096), machine.gpus)
    drawn = rollout_seconds(NEMO, machine, lengths, slots_of(NEMO, machine, len(lengths)))
    return drawn + update_seconds(NEMO, machine, lengths) + transfer_seconds(NEMO, machine)


@dataclass(frozen=True)
class Check:
    """What was measured, in the unit of the documentation, and by how much the plan misses it, in percent."""

    what: str
    measured: float
    planned: Callable[[Machine], float]
    error: int
    within: bool = True
    gpu: str = "h200"
    at_once: int = 1
    engine: Any = "native"
    gpus: int = 1


CHECKS = [
    # benchmarks/RESULTS.md, 2026-11-27: milliseconds of a decode step
    Check("SmolLM2, 64 rows, mixed", 5.45, decoding(shapes(SMOLLM2), 64), -1),
    Check("SmolLM2, 512 rows, mixed", 9.35, decoding(shapes(SMOLLM2), 512), -9),
    Check("SmolLM2, 64 rows, bfloat16", 5.83, decoding(shapes(SMOLLM2, "model.dtype=bfloat16"), 64), -9),
    Check("SmolLM2, 512 rows, bfloat16", 9.36, decoding(shapes(SMOLLM2, "model.dtype=bfloat16"), 512), -9),
    Check("Qwen3-1.7B, 64 rows, mixed", 9.60, decoding(shapes(QWEN), 64), -11),
    Check("Qwen3-1.7B, 512 rows, mixed", 23.81, decoding(shapes(QWEN), 512), +4),
    Check("Qwen3-1.7B, 64 rows, bfloat16", 8.60, decoding(shapes(QWEN, "model.dtype=bfloat16"), 64), -11),
    # the same: seconds of an update of 16 rows of 2,048 tokens
    Check("SmolLM2, update", 1.15, long_rows(SMOLLM2), -8),
    Check("Qwen3-1.7B, update", 2.38, long_rows(QWEN), +23),
    Check("Qwen3-1.7B, update without a mask", 1.744, rows_of_one_length, -2),
    # docs/log.md, GSM8K on a GPU: six runs at once
    Check("GSM8K, sampling", 5.3, sampling(GSM8K, 768, 83, 768), -14, at_once=6),
    Check("GSM8K, update", 5.6, updating(GSM8K, 768, 83), -51, within=False, at_once=6),
    Check("GSM8K, evaluation", 14.5, sampling(GSM8K, 1319, 97, 1319), -50, within=False, at_once=6),
    # docs/results/word_arithmetic: twelve runs at once, 47 s of 40 steps
    Check("words, sampling", 0.68, sampling(WORDS, 256, 12, 256), +26, at_once=12),
    Check("words, update", 0.44, updating(WORDS, 256, 12), -25, at_once=12),
    # docs/log.md, two shared cores
    Check("SmolLM2 on CPU, sampling", 9.45, sampling(ON_CPU, 128, 15, 128), +2, gpu="cpu"),
    Check("SmolLM2 on CPU, update", 14.97, updating(ON_CPU, 128, 15), +38, gpu="cpu"),
    Check("GSM8K on CPU, sampling", 29, sampling(GSM8K_ON_CPU, 32, 115, 32), -3, gpu="cpu"),
    Check("GSM8K on CPU, update", 38, updating(GSM8K_ON_CPU, 32, 115), -5, gpu="cpu"),
    Check("quickstart, sampling", 0.40, sampling(QUICKSTART, 128, 32.6, 128), -46, gpu="cpu"),
    Check("quickstart, update", 0.40, updating(QUICKSTART, 128, 32.6), -19, gpu="cpu"),
    # NeMo RL 0.4, its page of performance: GRPO of Llama-3.1-8B, 2,048 rollouts of 1,060 tokens, on 16 H100
    Check("another trainer with vLLM, a step", 97.7, published, +4, gpu="h100", engine="verl", gpus=16),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.what)
def test_a_term_beside_its_measurement(check: Check) -> None:
    card = CARDS[check.gpu]
    ends = [
        check.planned(Machine(card, check.gpus, check.engine, each, check.at_once))
        for each in rates(check.engine, check.gpu)
    ]
    assert 100 * (ends[1] / check.measured - 1) == pytest.approx(check.error, abs=1)
    assert (min(ends) <= check.measured <= max(ends)) is check.within


def sampled(shape: Shape, rows: int, *settings: str) -> float:
    """Weights, and keys and values of this many rows."""
    asked = shapes(shape, f"sampling.rows_at_once={rows}", f"evaluation.final_problems={rows}", *settings)
    return of(asked, "weights", "weights in bfloat16", "sampling: keys and values")


def of(asked: Work, *parts: str, gpu: str = "h200") -> float:
    counted = memory_parts(asked, Machine(CARDS[gpu], 1, "native", rates("native", gpu)[1]))
    # when it was measured, the storage of keys and values still had room for half as many tokens again
    counted["sampling: keys and values"] *= asked.row_tokens * 3 // 2 / most_columns(asked.row_tokens)
    return sum(counted[part] for part in parts) if parts else peak(counted)


def updated(shape: Shape) -> float:
    asked = work(
        "qwen3-1.7b-gsm8k",
        *("sampling.max_new_tokens=1848", "training.tokens_per_microbatch=8192"),
        prompt=200,
        shape=shape,
    )
    return of(asked, "weights", "weights in bfloat16", "gradients", "update: activations", "update: logits")


@pytest.mark.parametrize(
    ("what", "gib", "planned", "error"),
    [
        ("Qwen3-1.7B, 64 rows, mixed", 12.9, sampled(QWEN, 64), +1),
        ("Qwen3-1.7B, 512 rows, mixed", 35.9, sampled(QWEN, 512), +2),
        ("Qwen3-1.7B, 64 rows, bfloat16", 6.5, sampled(QWEN, 64, "model.dtype=bfloat16"), +1),
        ("SmolLM2, 64 rows, mixed", 1.5, sampled(SMOLLM2, 64), -5),
        ("SmolLM2, 512 rows, mixed", 6.3, sampled(SMOLLM2, 512), -2),
        ("SmolLM2, 64 rows, bfloat16", 1.0, sampled(SMOLLM2, 64, "model.dtype=bfloat16"), -7),
        ("SmolLM2, 512 rows, bfloat16", 5.8, sampled(SMOLLM2, 512, "model.dtype=bfloat16"), -2),
        ("SmolLM2, update", 2.4, updated(SMOLLM2), -13),
        ("Qwen3-1.7B, update", 18.5, updated(QWEN), +2),
        ("GSM8K, peak of a run", 18, of(GSM8K), +4),
        ("words, peak of a run", 6.14, of(WORDS), -11),
        ("quickstart, peak of a run", 0.649, of(WITH_ITS_BUDGET, gpu="cpu"), -18),
    ],
)
def test_memory_beside_its_measurement(what: str, gib: float, planned: float, error: int) -> None:
    assert 100 * (planned / 2**30 / gib - 1) == pytest.approx(error, abs=1)
