"""The gradient of one step: ours, and that of the `_compute_loss` of TRL's GRPOTrainer, as both come.

    python benchmarks/learner.py [--models quickstart 10m smollm2] [--work uniform tails] [--repeats 3] [--threads 1] [--budget TOKENS]

Each contender has a process of its own, and they take turns. Ours is `lampo.train.loop.update` without its optimiser, at default settings.
TRL's is a real GRPOTrainer's own method on the batch that TRL would make of the same rollouts: all padded to the longest of the step, eight
rows at a time, with its fused head. It is measured with gradient checkpointing, which is its default, and without.

    uniform: completions between 3/4 and 4/4 of the limit, every group with a spread of rewards
    tails:   log-normal lengths, median 1/8 of the limit, cut at the limit, every other group without a spread

Models have random weights, prompts and completions random tokens. Memory is the peak of the process beyond its weights and gradients, in
its first round; times are medians of the others. All gradients must agree to 1e-4 of their norm. Needs the extra trl, and Linux.
"""

import lampo.process  # isort: skip  # noqa: F401  it must run before torch is imported

import argparse
import math
import multiprocessing
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from shape import CHARACTERS, SHAPE
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lampo.config.load import load_config, parse_config
from lampo.learner.batch import Batch, Row, collate, row_logprobs
from lampo.learner.budget import tokens_per_microbatch
from lampo.model.policy import Policy
from lampo.rollout.decoder import left_pad
from lampo.train.loop import update
from lampo.types import Group, Problem, Reward, Rollout, Verdict

ROWS_AT_ONCE = 8
"""TRL's default per_device_train_batch_size."""
MIB = 2**20


@dataclass(frozen=True)
class Size:
    """A model, and the work that it gets."""

    model: dict[str, Any]
    groups: int
    group_size: int
    prompt: int
    limit: int


QUICKSTART = load_config(Path(__file__).parents[1] / "recipes/quickstart.yaml").model
SIZES = {
    "quickstart": Size(
        {"config": QUICKSTART.config, "characters": QUICKSTART.characters}, groups=16, group_size=8, prompt=12, limit=96
    ),
    "10m": Size(
        {
            "config": {
                "model_type": "qwen3",
                "hidden_size": 320,
                "intermediate_size": 896,
                "num_hidden_layers": 8,
                "num_attention_heads": 5,
                "num_key_value_heads": 5,
                "head_dim": 64,
                "tie_word_embeddings": True,
                "max_position_embeddings": 2048,
            },
            "characters": "".join(map(chr, range(0x4E00, 0x4E00 + 4000))),
        },
        groups=4,
        group_size=8,
        prompt=40,
        limit=128,
    ),
    "smollm2": Size({"config": SHAPE, "characters": CHARACTERS}, groups=2, group_size=4, prompt=40, limit=96),
}


def make_groups(size: Size, work: str) -> tuple[list[Group], Tensor]:
    """Rollouts with random tokens, and the advantage of each."""
    generator = torch.Generator().manual_seed(0)
    characters = 10 if "vocab_size" in size.model["config"] else len(size.model["characters"])

    def tokens(length: int) -> Tensor:
        return torch.randint(3, 3 + characters, (length,), generator=generator)

    groups, advantages = [], []
    for number in range(size.groups):
        prompt_ids = tokens(size.prompt - int(torch.randint(size.prompt // 2, (), generator=generator)))
        rollouts = []
        for _ in range(size.group_size):
            share = 0.75 + 0.25 * float(torch.rand((), generator=generator))
            if work == "tails":
                share = math.exp(float(torch.randn((), generator=generator))) / 8
            completion_ids = tokens(max(2, min(size.limit, round(share * size.limit))))
            rollouts.append(Rollout(prompt_ids, completion_ids, torch.zeros(len(completion_ids)), True, ""))
            spread = work == "uniform" or number % 2 == 0
            advantages.append(float(torch.randn((), generator=generator)) if spread else 0.0)
        rewards, verdicts = (Reward({}, 1.0),) * size.group_size, (Verdict("right"),) * size.group_size
        groups.append(Group(Problem(id=str(number), prompt="?", answer="1"), tuple(rollouts), verdicts, rewards))
    return groups, torch.tensor(advantages)


class NoStep:
    """In place of an optimiser: the gradients stay."""

    def step(self, step: int) -> dict[str, float]:
        return {}


def ours(size: Size, groups: list[Group], advantages: Tensor, budget: int | None) -> tuple[Policy, Callable[[], None]]:
    """Our update of these groups, from their collation on."""
    values = {
        "run": {"name": "learner"},
        "model": size.model | {"device": "cpu"},
        "task": {"name": "arithmetic"},
        "sampling": {"max_new_tokens": size.limit},
        "loss": {"aggregation": "token"},
        "training": {"tokens_per_microbatch": budget or "auto"},
    }
    config = parse_config(values, "learner.py")
    policy = Policy.load(config.model, seed=0)
    training = {"tokens_per_microbatch": tokens_per_microbatch(policy.model, config)}
    config = config.model_copy(update={"training": config.training.model_copy(update=training)})
    rows = [
        Row(each.prompt_ids, each.completion_ids, each.logprobs, 0.0) for group in groups for each in group.rollouts_G
    ]
    for row, logprobs_T in zip(rows, row_logprobs(policy, rows, 2048), strict=True):
        row.old_logprobs.copy_(logprobs_T)  # so that no ratio is far from 1

    def once() -> None:
        batch: Batch = collate(groups, advantages, keep_all=False)
        update(policy, NoStep(), batch, config, 1)  # pyright: ignore[reportArgumentType]

    return policy, once


def trl(size: Size, groups: list[Group], advantages: Tensor, checkpointing: bool) -> tuple[Policy, Callable[[], None]]:
    """A real trainer's `_compute_loss` of the same rollouts."""
    warnings.simplefilter("ignore", FutureWarning)  # its own, of names that transformers changes
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    config = parse_config(
        {"run": {"name": "learner"}, "model": size.model | {"device": "cpu"}, "task": {"name": "arithmetic"}},
        "learner.py",
    )
    policy = Policy.load(config.model, seed=0)
    rollouts = [rollout for group in groups for rollout in group.rollouts_G]
    num_parts = len(rollouts) // ROWS_AT_ONCE
    arguments = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        bf16=False,
        report_to=[],
        per_device_train_batch_size=ROWS_AT_ONCE,
        gradient_accumulation_steps=num_parts,
        num_generations=size.group_size,
        gradient_checkpointing=checkpointing,
    )
    trainer = GRPOTrainer(
        model=policy.model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": "1"}] * size.groups),
        processing_class=policy.tokenizer,
    )
    model = trainer.model
    assert model is not None
    if checkpointing:  # as its `train` does
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=arguments.gradient_checkpointing_kwargs)
    assert model.is_gradient_checkpointing == checkpointing
    model.train()
    trainer.current_gradient_accumulation_steps = num_parts

    def once() -> None:
        prompt_ids, prompt_mask = left_pad([rollout.prompt_ids for rollout in rollouts], 0)
        completions = [rollout.completion_ids for rollout in rollouts]
        completion_ids = pad_sequence(completions, batch_first=True)
        completion_mask = pad_sequence([torch.ones_like(each) for each in completions], batch_first=True)
        for start in range(0, len(rollouts), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            inputs = {
                "prompt_ids": prompt_ids[part],
                "prompt_mask": prompt_mask[part].long(),
                "completion_ids": completion_ids[part],
                "completion_mask": completion_mask[part],
                "advantages": advantages[part],
                "num_items_in_batch": completion_mask.sum(),
            }
            trainer._compute_loss(model, inputs).backward()

    return policy, once


CONTENDERS: dict[str, Callable[[Size, list[Group], Tensor, int | None], tuple[Policy, Callable[[], None]]]] = {
    "ours": ours,
    "TRL": lambda size, groups, advantages, _: trl(size, groups, advantages, True),
    "TRL, no checkpointing": lambda size, groups, advantages, _: trl(size, groups, advantages, False),
}


def peak_bytes() -> tuple[int, int]:
    """Resident memory of this process, now and at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    told = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return int(told["VmRSS"]) * 1024, int(told["VmHWM"]) * 1024


def work_in_turn(name: str, size: Size, work: str, options: argparse.Namespace, turns: Connection) -> None:
    """One contender's process: each message is a file for its gradients, or None; each answer its seconds, its processor's, its memory."""
    torch.set_num_threads(options.threads)
    groups, advantages = make_groups(size, work)
    policy, once = CONTENDERS[name](size, groups, advantages, options.budget)
    parameters = policy.trainable_parameters()
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter).fill_(0.0)
    turns.send(None)
    while (file := turns.recv()) != "end":
        for parameter in parameters.values():
            assert parameter.grad is not None
            parameter.grad.zero_()
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        before, _ = peak_bytes()
        begin, begin_processor = time.perf_counter(), time.process_time()
        once()
        seconds, processor = time.perf_counter() - begin, time.process_time() - begin_processor
        turns.send((seconds, processor, (peak_bytes()[1] - before) / MIB))
        if file is not None:
            save_file({name: parameter.grad.clone() for name, parameter in parameters.items()}, file)  # pyright: ignore[reportOptionalMemberAccess]
            turns.send(None)


def measure(model: str, work: str, options: argparse.Namespace) -> list[str]:
    """The lines of the table for one model and one kind of work."""
    size, context = SIZES[model], multiprocessing.get_context("spawn")
    turns, processes = {}, []
    for name in CONTENDERS:
        turns[name], far = context.Pipe()
        process = context.Process(target=work_in_turn, args=(name, size, work, options, far), daemon=True)
        process.start()
        far.close()
        processes.append(process)
        turns[name].recv()
    runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in CONTENDERS}
    gradients = {}
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(1 + options.repeats):
            for name, turn in turns.items():
                file = f"{folder}/{len(gradients)}" if round_ == 0 else None
                turn.send(file)
                runs[name].append(turn.recv())
                if file is not None:
                    turn.recv()
                    gradients[name] = load_file(file)
    for turn, process in zip(turns.values(), processes, strict=True):
        turn.send("end")
        process.join()
    worst = max(distance(gradients["ours"], gradient) for gradient in gradients.values())
    assert worst < 1e-4, f"{model}, {work}: the gradients are {worst:.1e} of their norm apart"
    lines = []
    for name, timed in runs.items():
        seconds, processor = (statistics.median(run[i] for run in timed[1:]) for i in (0, 1))
        ratios = [
            statistics.median(o[i] / t[i] for o, t in zip(runs["ours"][1:], timed[1:], strict=True)) for i in (0, 1)
        ]
        memory = timed[0][2]
        cells = [model, work, name, f"{seconds:.2f}", f"{processor:.2f}", f"{memory:.0f}"]
        cells += (
            [""] * 3
            if name == "ours"
            else [*(f"{ratio:.2f}" for ratio in ratios), f"{runs['ours'][0][2] / memory:.2f}"]
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """How far two gradients are apart, in units of the first one's norm."""
    apart = sum(float((one[name] - other[name]).double().square().sum()) for name in one)
    return math.sqrt(apart / sum(float(each.double().square().sum()) for each in one.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--work", nargs="+", choices=["uniform", "tails"], default=["uniform", "tails"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=int, help="training.tokens_per_microbatch of ours; unset: the default")
    options = parser.parse_args()
    if min(options.repeats, options.threads, options.budget or 1) < 1:
        parser.error("every number must be at least 1")
    print("| model | work | contender | seconds | processor seconds | MiB | ours / it: seconds | processor | memory |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|", flush=True)
    for model in options.models:
        for work in options.work:
            print("\n".join(measure(model, work, options)), flush=True)


if __name__ == "__main__":
    main()
