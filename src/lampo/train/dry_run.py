"""`lampo train RECIPE --dry-run`: what a run would do, and what it would need, without its weights and without a step."""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from ..algo.registry import ProcessRewardOptions
from ..config.schema import TrainConfig
from ..learner.budget import activation_bytes, layer_width, tokens_per_microbatch
from ..model.context import Context, context_of
from ..model.flash_step import FlashStep
from ..model.logprobs import tokens_of_chunk
from ..model.memory import cached_bytes, memory_of, rows_that_fit
from ..model.policy import choose_device, choose_dtype, with_lora
from ..model.pretrained import empty_model
from ..model.prompts import encode_prompts
from ..plan.cost import evaluations
from ..process import prepare
from ..rollout.decoder import room_for
from ..rollout.slabs import places_for, rows_at_once
from ..verify import VerifierPool
from ..view.trackers import refuse_unusable
from .checks import Problems, check_problems, check_prompts, load_problems

Translate = Callable[[TrainConfig, int, Any], Sequence[str]]
IN_SAMPLING = ", in sampling"
"""What the names of parts end with that are given back before the update."""
PROMPTS_MEASURED = 1000
"""Prompts whose length is taken, evenly spread over the training problems."""


@dataclass(frozen=True, slots=True)
class Need:
    """Memory that one part of a run takes at its peak.

    Attributes:
        part: what it is.
        num_bytes: how much.
        arithmetic: how that was counted.
    """

    part: str
    num_bytes: float
    arithmetic: str


@dataclass(slots=True)
class Reader:
    """The tokenizer and context of a model whose weights are not loaded."""

    tokenizer: Any
    context: Context


def dry_run(config: TrainConfig, console: Console | None = None, translate: Translate | None = None) -> list[Need]:
    """Check data, prompts and answers, count tokens and memory, and print it all. Nothing is trained, and no run directory made.

    Of a model on the hub only its configuration and tokenizer are read.

    Args:
        config: the recipe.
        console: where it is printed.
        translate: of another engine: the recipe, the tokens of its longest prompt and its model without weights -> lines of the
            engine's own configuration. They stand where the memory of the native engine would.

    Returns:
        the parts of the memory at its peak; none for another engine.

    Raises:
        LampoError: what would stop the run before its first step.
    """
    console = console or Console()
    prepare(config)
    refuse_unusable(config.run.trackers)
    problems = load_problems(config)
    with VerifierPool() as pool:
        num_checked = check_problems(config, problems, pool, lambda text: console.out(text, highlight=False))
    model, tokenizer = empty_model(config.model)
    reader = Reader(tokenizer, context_of(model.config))
    check_prompts(config, problems, reader, lambda text: console.out(text, highlight=False))
    lengths = prompt_lengths(config, problems, reader)
    needs = [] if translate is not None else memory(config, model, max(lengths))
    for line in _what_would_run(config, problems, lengths, num_checked, reader):
        console.out(line, highlight=False)
    if translate is not None:
        for line in translate(config, max(lengths), model):
            console.out(line, highlight=False)
    else:
        console.print(_table(needs))
        console.out(_room(config, needs), highlight=False)
    console.out("Nothing was trained.", highlight=False)
    return needs


def prompt_lengths(config: TrainConfig, problems: Problems, reader: Reader) -> list[int]:
    """Tokens of some training prompts."""
    train = problems.task.train
    some = train[:: max(1, len(train) // PROMPTS_MEASURED)]
    return [len(prompt) for prompt in encode_prompts(some, reader, config.prompt)]


def memory(config: TrainConfig, model: Any, prompt_length: int) -> list[Need]:
    """The parts of a run's memory at its peak, of which sampling and update each hold their own.

    Args:
        config: the recipe.
        model: its model without weights, on the meta device.
        prompt_length: tokens of the longest prompt.
    """
    device = choose_device(config.model.device)
    dtype, autocast = choose_dtype(config.model, device)
    if config.model.lora is not None:
        model = with_lora(model, config.model.lora, 0, None)
    parameters = list(model.parameters())
    total = sum(parameter.numel() for parameter in parameters)
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    size = dtype.itemsize
    half = 2 if autocast else size  # of activations, keys and values
    needs = [
        Need("weights", total * size, f"{_count(total)} x {size} bytes ({_name(dtype)})"),
        Need("gradients", trainable * size, f"{_count(trainable)} x {size} bytes"),
        Need("AdamW's moments", 2 * trainable * size, f"2 x {_count(trainable)} x {size} bytes"),
    ]
    # where the policy is on a GPU they lie in main memory, and visit it while it holds no gradients
    kept = trainable if device.type == "cpu" else 0
    if config.loss.kl_coefficient > 0:
        needs.append(Need("reference, for the KL term", kept * size, f"{_count(kept)} x {size} bytes"))
    if isinstance(config.advantage, ProcessRewardOptions):
        needs.append(
            Need(
                "process reward model and its reference",
                (total + 3 * trainable + kept) * size,
                f"({_count(total)} + 3 x {_count(trainable)} + {_count(kept)}) x {size} bytes",
            )
        )
    text = model.config.get_text_config()
    rows = config.sampling.problems_per_step * config.sampling.group_size
    tokens = min(tokens_per_microbatch(model, config), rows * (prompt_length + config.sampling.max_new_tokens))
    needs += [
        _vllm(config, total, device, half)
        if config.sampling.engine == "vllm"
        else _cache(config, model, prompt_length, half),
        _activations(config, text, tokens, half),
        _logits(text, tokens, cuda=device.type == "cuda"),
    ]
    if device.type == "cuda" and half == 2 and config.sampling.engine == "native":
        needs.append(Need(f"copies of weights{IN_SAMPLING}", 2 * total, f"{_count(total)} x 2 bytes (bfloat16)"))
    if device.type == "cpu":
        libraries = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        needs.append(Need("the process itself", libraries, "measured now: Python, torch, transformers, the problems"))
    return needs


def _cache(config: TrainConfig, model: Any, prompt_length: int, size: int) -> Need:
    """Keys and values of the rows that are sampled at once. The evaluation may have more rows than a training step."""
    device = choose_device(config.model.device)
    dtype, _ = choose_dtype(config.model, device)
    sampling, evaluation = config.sampling, config.evaluation
    evaluated = max(
        evaluation.problems * evaluation.samples,
        (evaluation.final_problems or evaluation.problems) * (evaluation.final_samples or evaluation.samples),
    )
    wanted = max(sampling.problems_per_step * sampling.group_size, evaluated)
    longest = prompt_length + sampling.max_new_tokens
    each = cached_bytes(model.config.get_text_config(), size)
    if _steps_by_flash(config, model, longest):
        places = rows_that_fit(device, model, dtype.itemsize, each)
        fitting = rows_at_once(places, prompt_length, longest)
        rows = min(sampling.rows_at_once, wanted, fitting)
        held = places_for(rows, places, longest)
        return Need(
            f"keys and values{IN_SAMPLING}",
            held * each,
            f"{held:,} tokens x {each:,} bytes, of {rows:,} rows" + (", as many as fit" if rows == fitting else ""),
        )
    positions = room_for(longest, longest)
    fitting = rows_that_fit(device, model, dtype.itemsize, positions * each)
    rows = min(sampling.rows_at_once, wanted, fitting)
    return Need(
        f"keys and values{IN_SAMPLING}",
        rows * positions * each,
        f"{rows:,} rows x {positions:,} positions x {each:,} bytes" + (", as many as fit" if rows == fitting else ""),
    )


def _steps_by_flash(config: TrainConfig, model: Any, longest: int) -> bool:
    """Whether rows grow in places of their own, as far as a model without weights can tell (see `Policy.steps_by_flash`)."""
    device = choose_device(config.model.device)
    dtype, autocast = choose_dtype(config.model, device)
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    return (
        device.type == "cuda"
        and (autocast or dtype == torch.bfloat16)
        and config.model.attention in ("auto", "sdpa")
        and longest <= context_of(core.config).length
        and FlashStep.takes(getattr(core, core.base_model_prefix))
    )


def _vllm(config: TrainConfig, parameters: int, device: torch.device, size: int) -> Need:
    """vLLM's weights and cache, which a GPU holds in sampling alone."""
    options = config.sampling.vllm
    part = "vLLM, which never sleeps" if device.type == "cpu" else f"vLLM{IN_SAMPLING}"
    if (cache := options.cache_on(device.type)) is not None:
        return Need(
            part,
            parameters * size + cache * 2**30,
            f"{_count(parameters)} x {size} bytes + {cache:g} GiB (sampling.vllm.cache_gib)",
        )
    whole = memory_of(device)
    return Need(
        part, options.memory_share * whole, f"sampling.vllm.memory_share = {options.memory_share:g} x {_size(whole)}"
    )


def _activations(config: TrainConfig, text: Any, tokens: int, size: int) -> Need:
    """What layers keep for the backward pass."""
    layer = layer_width(text)
    layers = text.num_hidden_layers
    if config.model.gradient_checkpointing:
        return Need(
            "activations, in an update",
            tokens * activation_bytes(text, size, True),
            f"at most {tokens:,} tokens x ({layers} layers x {text.hidden_size:,} + {layer:,}) x {size} bytes",
        )
    return Need(
        "activations, in an update",
        tokens * activation_bytes(text, size, False),
        f"at most {tokens:,} tokens x {layers} layers x about {layer:,} x {size} bytes",
    )


def _logits(text: Any, tokens: int, *, cuda: bool) -> Need:
    tokens = min(tokens, tokens_of_chunk(text.vocab_size, cuda=cuda))
    return Need(
        "logits, in an update",
        2 * tokens * text.vocab_size * 4,
        f"2 x {tokens:,} tokens x {text.vocab_size:,} words x 4 bytes",
    )


def _what_would_run(
    config: TrainConfig, problems: Problems, lengths: Sequence[int], num_checked: int, reader: Reader
) -> list[str]:
    sampling, steps = config.sampling, config.training.steps
    rollouts = steps * sampling.problems_per_step * sampling.group_size
    heldout, measured = problems.task.heldout, evaluations(config, len(problems.task.heldout))
    responses = sum(measured)
    context = "no bound" if reader.context.length >= 2**31 else f"{reader.context.length:,}"
    lines = [
        f"problems: {len(problems.task.train):,} to train on, {len(heldout):,} held out. {num_checked:,} answers were verified "
        "against themselves",
        f"prompts: {sum(lengths) / len(lengths):.0f} tokens on average, {max(lengths):,} at most (of {len(lengths):,} looked at). "
        f"The model's context is {context}, and a response may have {sampling.max_new_tokens:,}",
        f"training: {steps:,} steps x {sampling.problems_per_step} problems x {sampling.group_size} rollouts = {rollouts:,} rollouts, "
        f"at most {rollouts * sampling.max_new_tokens:,} sampled tokens",
        f"evaluation: {len(measured)} times, {responses:,} responses, at most {responses * sampling.max_new_tokens:,} sampled tokens",
    ]
    if config.warmstart.steps:
        rows = config.warmstart.rows_per_step
        lines.append(f"warm start: {config.warmstart.steps:,} steps x {rows} solutions")
    if sampling.resample:
        lines.append(f"dynamic sampling may draw {1 + sampling.resample} times as many rollouts")
    return lines


def peak(needs: Sequence[Need]) -> float:
    """Bytes at the peak: keys and values, or vLLM, lie there in sampling, activations, gradients and logits in an update."""
    by_part = {need.part: need.num_bytes for need in needs}
    sampling = sum(by_part.pop(need.part) for need in needs if need.part.endswith(IN_SAMPLING))
    update = sum(by_part.pop(part) for part in ("activations, in an update", "logits, in an update", "gradients"))
    return sum(by_part.values()) + max(sampling, update)


def _table(needs: Sequence[Need]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("memory")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("how it is counted")
    for need in needs:
        table.add_row(need.part, _size(need.num_bytes), need.arithmetic)
    table.add_row("at its peak", _size(peak(needs)), "all but the smaller of sampling and update")
    return table


def _room(config: TrainConfig, needs: Sequence[Need]) -> str:
    device = choose_device(config.model.device)
    there = memory_of(device)
    needed = peak(needs)
    line = f"The device {device} has {_size(there)}, and the run needs about {_size(needed)}."
    if needed > there:
        line += (
            " That does not fit: lower sampling.rows_at_once or training.tokens_per_microbatch, set "
            "model.gradient_checkpointing, or train low-rank adapters (model.lora)."
        )
    return line


def _count(number: int) -> str:
    for unit, name in ((10**9, "billion"), (10**6, "million")):
        if number >= unit:
            return f"{number / unit:.2f} {name}"
    return f"{number:,}"


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.1f} MiB"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
