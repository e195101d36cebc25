"""`lampo plan`: what a run would take on GPUs that need not be there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from ..config.load import load_config
from ..config.recipes import find_recipe
from ..config.schema import TrainConfig
from ..types import LampoError
from .cards import ENGINES, MOST_GPUS, Range, card_named
from .cost import evaluations
from .lengths import kept_lengths
from .plan import Plan, plan

MOST_EVALUATION = 0.1
"""Of a run's time that evaluation may take before the plan says so."""


def print_plan(
    recipe: Path,
    settings: Sequence[str],
    *,
    gpus: int,
    gpu: str,
    length: float | None,
    lengths: Path | None,
    prompt: int | None,
) -> list[Plan]:
    """Print the plan of a recipe on each engine.

    Raises:
        LampoError: the recipe does not hold, or what it needs is not known.
    """
    if not 1 <= gpus <= MOST_GPUS:
        raise LampoError(f"--gpus {gpus}: plan for 1 to {MOST_GPUS}.")
    if length is not None and lengths is not None:
        raise LampoError("--length is an assumed mean, and --lengths takes real ones from a run: give one of them.")
    memory = card_named(gpu).memory
    if gpu.lower() == "cpu" and gpus > 1:
        raise LampoError(f"--gpus {gpus}: --gpu cpu stands for two processor cores, and has no GPUs.")
    config = load_config(find_recipe(recipe), settings)
    if length is not None and not 1 <= length <= config.sampling.max_new_tokens:
        raise LampoError(f"--length {length:g}: a response has 1 to {config.sampling.max_new_tokens:,} tokens.")
    real = None if lengths is None else kept_lengths(lengths)
    engines = ("native",) if gpu.lower() == "cpu" else ENGINES if gpus == 1 else ENGINES[1:]
    plans = [plan(config, engine, gpus, gpu, length=length, lengths=real, prompt=prompt) for engine in engines]
    console = Console()
    for line in _opening(config, plans[0], gpus, gpu, given=length is not None, real=lengths):
        console.out(line, highlight=False)
    console.print(_table(plans, memory))
    for line in [*_warnings(config, plans, gpus, memory), *_sources(gpu)]:
        console.out(line, highlight=False)
    return plans


def _opening(config: TrainConfig, first: Plan, gpus: int, gpu: str, *, given: bool, real: Path | None) -> list[str]:
    sampling, length = config.sampling, first.length
    counted = _counted(evaluations(config))
    source = f"of {real}" if real else "given" if given else f"assumed, {length.fast:,.0f} to {length.slow:,.0f}"
    by_vllm = first.engine == "native" and sampling.engine == "vllm"
    machine = "two processor cores" if gpu.lower() == "cpu" else f"{gpus} x {gpu.lower()}"
    return [
        f"{config.run.name} on {machine}: {config.training.steps:,} steps x "
        f"{sampling.problems_per_step} problems x {sampling.group_size} rollouts",
        f"responses: {length.likely:,.0f} tokens on average ({source}), at most {sampling.max_new_tokens:,}, "
        f"and {first.cut:.0%} are cut",
        f"evaluations: {counted} responses",
        *(["native: vLLM draws the responses (sampling.engine)"] if by_vllm else []),
        "likely [fast, slow]. Seconds are of one step. Waiting is for its longest responses.",
    ]


def _counted(responses: Sequence[int]) -> str:
    """Evaluations that follow each other and are alike are written once: 1,319 + 9 x 256 + 1,319."""
    runs = [(len(list(same)), count) for count, same in groupby(responses)]
    return " + ".join(f"{times} x {count:,}" if times > 1 else f"{count:,}" for times, count in runs)


def _sources(gpu: str) -> list[str]:
    """Where the numbers come from."""
    last = "arithmetic: the rest. docs/plan.md has the error of each term."
    if gpu.lower() == "cpu":
        return ["measured: native runs on two shared cores", "assumed: lengths of responses", last]
    others = "" if gpu.lower() == "h200" else ", and that other GPUs reach the same share of their makers' numbers"
    return [
        "measured: native sampling and update, on one H200",
        f"assumed: vLLM, TRL and verl, lengths of responses, networks{others}",
        last,
    ]


def _table(plans: Sequence[Plan], memory: float) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for each in plans:
        table.add_column(each.engine, justify="right", no_wrap=True)
    seconds = {
        "rollouts, s": "rollouts",
        "- waiting, s": "stragglers",
        "verdicts, s": "verifier",
        "update, s": "update",
        "weights, s": "transfer",
        "a step, s": "step",
    }
    for title, name in seconds.items():
        table.add_row(title, *(_range(getattr(each, name)) for each in plans), end_section=name == "step")
    if any(each.warmstart.slow for each in plans):
        table.add_row("warm start, min", *(_range(each.warmstart, 60) for each in plans))
    table.add_row("first eval., min", *(_range(each.evaluations[0], 60) for each in plans))
    table.add_row("evaluation, %", *(_range(each.evaluation_share, 0.01) for each in plans))
    table.add_row("the run, h", *(_range(each.hours) for each in plans), end_section=True)
    table.add_row(f"GiB of {memory / 2**30:.0f}", *(_range(each.memory, 2**30) for each in plans))
    table.add_row("most time", *(each.bottleneck for each in plans))
    return table


def _warnings(config: TrainConfig, plans: Sequence[Plan], gpus: int, memory: float) -> list[str]:
    lines = []
    if any(each.evaluation_share.likely > MOST_EVALUATION for each in plans):
        first = evaluations(config)[0]
        lines.append(
            f"Evaluation takes more than a tenth of the run: {first:,} responses before the first step. Lower "
            "evaluation.final_problems, evaluation.samples or evaluation.benchmarks, or measure afterwards with lampo eval."
        )
    for each in plans:
        if each.memory.likely > memory:
            largest = max(each.parts, key=lambda part: each.parts[part])
            size, name = each.parts[largest] / 2**30, largest.removeprefix("sampling: ").removeprefix("update: ")
            lines.append(f"{each.engine} does not fit. Its largest part is {name}: {size:.0f} GiB.")
    if close := [each.engine for each in plans if each.memory.likely <= memory < each.memory.slow]:
        lines.append(f"{' and '.join(close)} may not fit: take one step first, with --set training.steps=1.")
    rows = config.sampling.problems_per_step * config.sampling.group_size
    if gpus > 1:
        lines.append("The native engine has one GPU.")
    if gpus > rows:
        lines.append(f"A step has {rows} rollouts, so {gpus - rows} GPUs have none.")
    return lines


def _range(value: Range, unit: float = 1.0) -> str:
    fast, likely, slow = (_number(each / unit) for each in (value.fast, value.likely, value.slow))
    return likely if fast == slow else f"{likely} [{fast}, {slow}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
