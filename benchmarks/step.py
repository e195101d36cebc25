"""Whole steps of training: ours, and those of TRL's GRPOTrainer. Sampling, rewards, advantages, update, log.

    python benchmarks/step.py [--models quickstart 10m] [--work uniform tails] [--repeats 3] [--threads 1] [--profile]

Ours is `lampo train` with the method lampo and default settings, the trainer is TRL's own `train()` with its default settings in float32,
with gradient checkpointing (its default) and without. Each contender has a process of its own. They take turns, a step each; the first
step warms up. Same model, same prompts, the same rewards. Each draws its completions, of lengths that were drawn beforehand (forced.py):

    uniform: completions between 3/4 and 4/4 of the limit, every group with a spread of rewards
    tails:   log-normal lengths, median 1/8 of the limit, cut at the limit, every other group without a spread

Models have random weights. Times are medians, processor seconds those of the whole process. Needs the extra trl. --profile prints where
the time of our last step went.
"""

import lampo.process  # isort: skip  # noqa: F401  it must run before torch is imported

import argparse
import cProfile
import functools
import json
import multiprocessing
import pstats
import statistics
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from forced import draw_lengths, forced_generate, forced_sampler
from learner import ROWS_AT_ONCE, SIZES, Size

from lampo.config.load import parse_config
from lampo.config.schema import TrainConfig
from lampo.model.policy import Policy

STEPS = 50
"""More than are ever asked for."""


def spread(completion: str, answer: str) -> float:
    """The reward: of some groups constant, of the others any number. As good as random, and the same for both."""
    return 1.0 if answer == "0" else zlib.crc32(completion.encode()) % 1000 / 1000


class Work:
    """What is to be done: prompts with their answers, and the lengths of each step."""

    def __init__(self, size: Size, work: str) -> None:
        generator = torch.Generator().manual_seed(0)
        characters = size.model["characters"]
        if len(characters) > 100:
            self.characters = characters
        else:
            self.characters = "0123456789"
        self.rows: list[dict[str, str]] = []
        for number in range(STEPS * size.groups):
            length = size.prompt - int(torch.randint(size.prompt // 2, (), generator=generator))
            picked = torch.randint(len(self.characters), (length,), generator=generator).tolist()
            has_spread = work == "uniform" or number % 2 == 0
            self.rows.append(
                {"prompt": "".join(self.characters[each] for each in picked), "answer": str(int(has_spread))}
            )
        self.lengths = [draw_lengths(work, size.groups * size.group_size, size.limit, generator) for _ in range(STEPS)]


def configuration(size: Size, folder: Path) -> TrainConfig:
    """The recipe of ours."""
    values = {
        "run": {"name": "step", "folder": str(folder / "runs"), "threads": torch.get_num_threads()},
        "model": size.model | {"device": "cpu"},
        "task": {"name": "files", "train": str(folder / "train.jsonl"), "heldout": str(folder / "heldout.jsonl")},
        "verifier": {"name": "exact"},
        "rewards": [{"name": "python", "function": f"{__name__}.spread"}],
        "sampling": {
            "problems_per_step": size.groups,
            "group_size": size.group_size,
            "max_new_tokens": size.limit,
        },
        "method": "lampo",
        "training": {"steps": STEPS},
        "evaluation": {"problems": 1, "every": STEPS},
        "warmstart": {"steps": 0},
    }
    return parse_config(values, "step.py")


@contextmanager
def timed(turns: Connection, profile: bool = False) -> Iterator[None]:
    """One step: begins when it is asked for, and tells its seconds and its processor's."""
    if turns.recv() == "end":
        sys.exit()
    profiler = cProfile.Profile() if profile else None
    begin, begin_processor = time.perf_counter(), time.process_time()
    if profiler:
        profiler.enable()
    yield
    if profiler:
        profiler.disable()
    told = time.perf_counter() - begin, time.process_time() - begin_processor
    if profiler:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(45)
    turns.send(told)


def ours(size: Size, work: Work, folder: Path, turns: Connection, profile: bool) -> None:
    """`lampo train`, without its command line."""
    from lampo.train import loop
    from lampo.train.run import Run
    from lampo.view.console import Progress

    for name, rows in {"train": work.rows, "heldout": [{"prompt": work.characters[0], "answer": "1"}]}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = configuration(size, folder)
    sample_groups, log = loop.sample_groups, loop.log
    within: list[Any] = []

    def begin(session: Any, step: int, stopwatch: Any) -> Any:
        within.append(timed(turns, profile and step == 3))
        within[-1].__enter__()
        end_id = session.policy.end_ids[0]
        assert session.policy.end_ids == [end_id]
        stopwatch.__init__()
        with forced_sampler(work.lengths[step - 1], end_id, end_id + 3):
            groups, rejected = sample_groups(session, step, stopwatch)
        lengths = [len(rollout.completion_ids) for group in groups for rollout in group.rollouts_G]
        assert lengths == work.lengths[step - 1].tolist()
        return groups, rejected

    def end(session: Any, stage: Any, step: int, record: dict[str, float]) -> None:
        log(session, stage, step, record)
        within.pop().__exit__(None, None, None)

    quiet = redirect_stdout(StringIO())
    with (
        patch.object(loop, "sample_groups", begin),
        patch.object(loop, "log", end),
        quiet,
        Progress("step") as progress,
    ):
        loop.train(Run.create(config), progress)


def trl(size: Size, work: Work, folder: Path, turns: Connection, checkpointing: bool) -> None:
    """A real GRPOTrainer's `train()`."""
    warnings.simplefilter("ignore", FutureWarning)  # its own, of names that transformers changes
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    config = parse_config(
        {"run": {"name": "step"}, "model": size.model | {"device": "cpu"}, "task": {"name": "arithmetic"}}, "step.py"
    )
    policy = Policy.load(config.model, seed=0)
    arguments = GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        per_device_train_batch_size=ROWS_AT_ONCE,
        gradient_accumulation_steps=size.groups * size.group_size // ROWS_AT_ONCE,
        num_generations=size.group_size,
        max_completion_length=size.limit,
        gradient_checkpointing=checkpointing,
        shuffle_dataset=False,
        max_steps=STEPS,
    )

    class Turns(TrainerCallback):
        within: Any = None

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.within = timed(turns)
            self.within.__enter__()

        def on_log(self, *_: Any, **__: Any) -> None:  # the last thing in a step
            self.within.__exit__(None, None, None)

    seen: list[list[int]] = []

    def reward(completions: list[str], answer: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        seen.append([len(each) for each in completion_ids])
        assert seen[-1] == work.lengths[len(seen) - 1].tolist()
        return [spread(*each) for each in zip(completions, answer, strict=True)]

    trainer = GRPOTrainer(
        model=policy.model,
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_list(work.rows),
        processing_class=policy.tokenizer,
        callbacks=[Turns()],
    )
    end_id = policy.end_ids[0]

    @functools.wraps(policy.model.generate)
    def generate(**inputs: Any) -> torch.Tensor:
        return forced_generate(policy.model, work.lengths[len(seen)], end_id, end_id + 3, **inputs)

    policy.model.generate = generate
    with redirect_stdout(StringIO()):  # its log
        trainer.train()


CONTENDERS: dict[str, Callable[[Size, Work, Path, Connection, bool], None]] = {
    "ours": ours,
    "TRL": lambda *given: trl(*given[:4], checkpointing=True),
    "TRL, no checkpointing": lambda *given: trl(*given[:4], checkpointing=False),
}


def work_in_turn(name: str, model: str, work: str, threads: int, profile: bool, turns: Connection) -> None:
    """One contender's process."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        CONTENDERS[name](SIZES[model], Work(SIZES[model], work), Path(folder), turns, profile)


def measure(model: str, work: str, options: argparse.Namespace) -> list[str]:
    """The lines of the table for one model and one kind of work."""
    context = multiprocessing.get_context("spawn")
    turns, processes = {}, []
    for name in CONTENDERS:
        turns[name], far = context.Pipe()
        arguments = (name, model, work, options.threads, options.profile, far)
        process = context.Process(target=work_in_turn, args=arguments, daemon=True)
        process.start()
        far.close()
        processes.append(process)
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(1 + options.repeats):
        for name, turn in turns.items():
            turn.send("step")
            runs[name].append(turn.recv())
    for turn, process in zip(turns.values(), processes, strict=True):
        turn.send("end")
        process.join()
    lines = []
    for name, times in runs.items():
        seconds = [statistics.median(each[i] for each in times[1:]) for i in (0, 1)]
        ratios = [
            statistics.median(o[i] / t[i] for o, t in zip(runs["ours"][1:], times[1:], strict=True)) for i in (0, 1)
        ]
        cells = [model, work, name, *(f"{each:.2f}" for each in seconds)]
        cells += ["", ""] if name == "ours" else [f"{each:.2f}" for each in ratios]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=["quickstart", "10m"], default=["quickstart", "10m"])
    parser.add_argument("--work", nargs="+", choices=["uniform", "tails"], default=["uniform", "tails"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    if min(options.repeats, options.threads) < 1:
        parser.error("every number must be at least 1")
    print("| model | work | contender | seconds a step | processor seconds | ours / it: seconds | processor |")
    print("|---|---|---|---:|---:|---:|---:|", flush=True)
    for model in options.models:
        for work in options.work:
            print("\n".join(measure(model, work, options)), flush=True)


if __name__ == "__main__":
    main()
