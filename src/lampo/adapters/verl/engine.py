"""The engine `verl`: a recipe through verl's own main, with the run directory of `lampo train`.

This process reads and checks the problems, warms up, translates the recipe, starts verl and follows what it writes. verl samples, judges,
updates, measures and saves, in Ray's processes on one machine or several.

RUN/verl/
  train.parquet, test.parquet   the problems of the steps in their order, and those to measure on
  tokenizer/                    with the chat template that makes the recipe's prompts
  metrics.jsonl, rollouts/, evaluations/   what verl writes, until it is taken in
  checkpoints/                  verl's own, to go on from
RUN/engine.log                  what verl and Ray say
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from ...config.schema import TrainConfig
from ...interrupt import Interrupt, when_parent_ends
from ...model.context import context_of
from ...model.policy import load_policy
from ...model.pretrained import empty_model, encode_beginning, resolve_path
from ...model.prompts import encode_prompts
from ...store.files import find_corruption, write_folder
from ...tasks.split import subset
from ...train.checks import check_prompts, load_problems
from ...train.dry_run import Reader
from ...train.dry_run import dry_run as check
from ...train.engines import missing
from ...train.loop import warm_start
from ...train.run import Run
from ...train.session import Stopped, checked_problems, evaluate_policy, opened_session, tell_warm_start
from ...types import LampoError, Problem
from ...verify import VerifierPool
from ...view.console import Progress
from ...view.trackers import open_trackers
from . import translate
from .dump import STOP
from .follow import CHECKPOINTS, EVALUATIONS, METRICS_FILE, ROLLOUTS, Asked, Follower, on_cpu
from .parquet import row, write_problems

LOG = "engine.log"
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_END = 20.0
"""verl and Ray get so long to end after Ctrl-C, before they are killed."""
LAST_WORDS = 4
"""Lines of verl's that are told where it named no error."""
PLAIN = (
    "{% for message in messages %}{% if not loop.first %}{{ '\\n\\n' }}{% endif %}{{ message['content'] }}{% endfor %}"
)
"""A chat template that adds nothing, for prompts without one: verl always has a template."""
_ERROR = re.compile(r"\b((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception)): (.+)")


def refuse(config: TrainConfig) -> None:
    """See `Engine.refuse`."""
    translate.refuse(config)
    if importlib.util.find_spec("verl") is None:
        raise missing("verl", "verl")


def dry_run(config: TrainConfig) -> object:
    """See `Engine.dry_run`. verl need not be there."""
    translate.refuse(config)
    return check(config, translate=_lines)


def _lines(config: TrainConfig, longest_prompt: int, model: Any) -> list[str]:
    folder = Path(config.run.folder, config.run.name, "verl")
    start = config.model.path if _is_as_it_lies(config) else str(folder.parent / "reference")
    told = translate.settings(config, folder, model=str(start), longest_prompt=longest_prompt)
    machines = f"{config.run.nodes} machines" if config.run.nodes > 1 else "one machine"
    lines = [
        f"engine: verl on Ray, {config.run.processes} processes on {machines}",
        "options of verl.trainer.main_ppo:",
    ]
    lines += [f"  {option}" for option in translate.command_options(config, told)]
    if importlib.util.find_spec("verl") is None:
        lines.append("verl is not installed here: pip install 'lampo[train,verl]'")
    return lines


def train(run: Run, progress: Progress) -> None:
    """See `Engine.train`."""
    refuse(run.config)
    if run.config.training.steps == 0:
        _only_measure(run, progress)
        return
    follows, warmed_up = run, False
    if run.steps("warmstart", run.config.warmstart.steps):
        _warm_up(run, progress)  # it lets go of the run
        torch.cuda.empty_cache()
        follows, warmed_up = Run.join(run.path, writes=True), True
    try:
        with ExitStack() as stack:
            stack.callback(follows.close)
            _reinforce(follows, progress, stack, checked=warmed_up)
    finally:
        if follows is not run:
            run.read_again()


def _only_measure(run: Run, progress: Progress) -> None:
    """A run without reinforcement learning is the native engine's: a warm start for others, or a measurement."""
    with opened_session(run, progress) as session:
        warm_start(session)
        evaluate_policy(session, 0)


def _warm_up(run: Run, progress: Progress) -> None:
    with opened_session(run, progress, tracked=False) as session:
        warm_start(session)


def _reinforce(run: Run, progress: Progress, stack: ExitStack, *, checked: bool) -> None:
    config, folder = run.config, (run.path / "verl").absolute()
    steps = run.steps("train", config.training.steps)
    if not steps:
        return
    resume_from = None if steps.start == 1 else _checkpoint(run, folder, steps.start - 1)
    try:
        asked, tokenizer, longest = _write_inputs(run, folder, progress, checked=checked)
        start = _start(run)
    except LampoError:
        run.give_up()
        raise
    told = translate.settings(config, folder, model=start, longest_prompt=longest, resume_from=resume_from)
    _clear(folder, keep_checkpoints=resume_from is not None)
    trackers = open_trackers(config.run.trackers, run.path, run.path.name, config.model_dump(mode="json"))
    stack.callback(trackers.finish)
    tell_warm_start(run, trackers)
    progress.stage("verl", total=config.training.steps, done=steps.start - 1)
    follower = Follower(run, folder, asked, tokenizer, progress, trackers)
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *translate.command_options(config, told)]
    _follow(command, run, folder, follower, progress)


def _write_inputs(run: Run, folder: Path, progress: Progress, *, checked: bool) -> tuple[Asked, Any, int]:
    """verl's data and tokenizer, checked. Returns what is asked, the recipe's tokenizer, and the tokens of the longest prompt."""
    config, evaluation = run.config, run.config.evaluation
    folder.mkdir(exist_ok=True)
    with VerifierPool() as pool:
        problems = load_problems(config) if checked else checked_problems(run, progress, pool)
    model, tokenizer = empty_model(config.model)
    reader = Reader(tokenizer, context_of(model.config))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    if not checked:
        check_prompts(config, problems, reader, progress.note)
    count = config.sampling.problems_per_step
    train = [
        problem
        for step in range(1, config.training.steps + 1)
        for problem in run.problems(problems.task.train, step, count, "train")
    ]
    number = translate.measured(evaluation, "problems")
    measured = [("", problem) for problem in subset(problems.task.heldout, number, evaluation.skip)]
    measured += [(f"{name}/", each) for name, all_ in problems.benchmarks.items() for each in subset(all_, number)]
    write_problems(config, train, folder, "train")
    write_problems(config, [problem for _, problem in measured], folder, "test")
    distinct = {problem.id: problem for problem in train}
    served = _write_tokenizer(config, reader, folder / "tokenizer")
    prompts = _same_prompts(config, reader, served, list(distinct.values()))
    others = _same_prompts(config, reader, served, [problem for _, problem in measured])
    longest = max(map(len, [*prompts, *others]))
    return Asked(train, measured, dict(zip(distinct, prompts, strict=True))), tokenizer, longest


def _write_tokenizer(config: TrainConfig, reader: Reader, folder: Path) -> Any:
    """The tokenizer with a chat template that makes the recipe's prompts, as verl reads it."""
    tokenizer = reader.tokenizer
    tokenizer.save_pretrained(folder)
    served: Any = AutoTokenizer.from_pretrained(folder)
    if config.prompt.chat is False or tokenizer.chat_template is None:
        begins = encode_beginning(tokenizer, "x")[:1] == [tokenizer.bos_token_id]
        served.chat_template = (tokenizer.bos_token if begins else "") + PLAIN
        served.save_pretrained(folder)
    return served


def _same_prompts(config: TrainConfig, reader: Reader, served: Any, problems: Sequence[Problem]) -> list[torch.Tensor]:
    """The tokens of the prompts.

    Raises:
        LampoError: verl would make others.
    """
    encoded = encode_prompts(problems, reader, config.prompt)
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, **config.prompt.chat_options}
    for problem, wanted in zip(problems, encoded, strict=True):
        messages = row(config, problem, 0, "train")["prompt"]
        if served.apply_chat_template(messages, **options)["input_ids"] != wanted.tolist():
            raise LampoError(
                f"verl would make other tokens of the prompt of problem {problem.id!r} than the recipe does. Give the tokenizer a chat "
                "template, or take another engine."
            )
    return encoded


def _is_as_it_lies(config: TrainConfig) -> bool:
    """Whether verl can load `model.path` itself."""
    path = config.model.path
    return (
        config.warmstart.steps == 0
        and path is not None
        and not path.endswith(".gguf")
        and not path.startswith("package:")
    )


def _start(run: Run) -> str:
    """What verl loads: the model of the recipe where it can, else the policy that reinforcement learning starts from, in `reference`."""
    if _is_as_it_lies(run.config):
        path = resolve_path(str(run.config.model.path))
        return str(Path(path).absolute()) if Path(path).exists() else path
    folder = (run.path / "reference").absolute()
    if find_corruption(folder):
        if run.position.stage == "train":
            raise LampoError(
                f"{folder}, the policy that reinforcement learning started from, is damaged or gone. Put it back from a copy, or start a "
                "new run."
            )
        write_folder(folder, load_policy(on_cpu(run.config), run.weights).save)
    return str(folder)


def _checkpoint(run: Run, folder: Path, step: int) -> Path:
    """verl's checkpoint of a step.

    Raises:
        LampoError: it is not there, or of another number of processes.
    """
    path = folder / CHECKPOINTS / f"global_step_{step}"
    shape = path / "actor" / "fsdp_config.json"
    if not shape.is_file():
        raise LampoError(
            f"{path}, verl's checkpoint of step {step}, is not there. Put it back from a copy, or start a new run."
        )
    before, now = json.loads(shape.read_text())["world_size"], run.config.run.processes * run.config.run.nodes
    if before != now:
        raise LampoError(
            f"{path} is of {before} processes, and run.processes x run.nodes is {now}. verl goes on with as many as before."
        )
    return path


def _clear(folder: Path, *, keep_checkpoints: bool) -> None:
    """Take away what an earlier start has left behind."""
    (folder / METRICS_FILE).unlink(missing_ok=True)
    for name in (ROLLOUTS, EVALUATIONS, *(() if keep_checkpoints else (CHECKPOINTS,))):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()


def _environment(config: TrainConfig, folder: Path) -> dict[str, str]:
    """What verl's processes are told beside their options."""
    paths = [
        os.getcwd(),
        *(str(Path(each).absolute()) for each in config.run.imports),
        os.environ.get("PYTHONPATH", ""),
    ]
    return {
        "VERL_FILE_LOGGER_PATH": str((folder / METRICS_FILE).absolute()),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }


def _follow(command: list[str], run: Run, folder: Path, follower: Follower, progress: Progress) -> None:
    """Start verl and take in what it writes, until it ends.

    Raises:
        Stopped: after Ctrl-C, with a checkpoint of verl's.
        LampoError: verl failed, with what it said.
    """
    log, began = run.path / LOG, time.monotonic()
    given = _environment(run.config, folder)
    command += [
        f"++ray_kwargs.ray_init.runtime_env.env_vars.{name}={translate.hydra(value)}" for name, value in given.items()
    ]
    offset = log.stat().st_size if log.is_file() else 0
    told = f"Stopping after this step, with a checkpoint. {log} has what verl says."
    progress.note(f"verl is starting, which takes about a minute. What it says is in {log}.")
    with log.open("ab") as stream, Interrupt(told).watch() as interrupt:
        process = subprocess.Popen(
            command,
            env=os.environ | given,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=partial(when_parent_ends, signal.SIGINT),  # a killed run leaves no verl that writes on
        )
        try:
            while process.poll() is None:
                follower.poll()
                if interrupt.requested:
                    (folder / ROLLOUTS / STOP).touch()
                progress.within(f"step {follower.step + 1}, {time.monotonic() - began:.0f} s since the start")
                time.sleep(SECONDS_BETWEEN_LOOKS)
            follower.poll()
        finally:
            _end(process)
    if process.returncode == 0 and follower.step == run.config.training.steps:
        return
    if process.returncode == 0 and interrupt.requested:
        raise Stopped(f"Stopped after step {follower.step} of the train stage, with a checkpoint.")
    said = _what_went_wrong(log, offset)
    raise LampoError(
        f"verl ended after step {follower.step}, with status {process.returncode}. {said} All that it said is in {log}."
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End verl, which ends Ray, and kill what is left of its session."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _what_went_wrong(log: Path, offset: int) -> str:
    """The error in what verl said since: one of ours, for it says what to do, else the last one, else its last words."""
    with log.open("rb") as stream:
        stream.seek(offset)
        text = stream.read().decode(errors="replace")
    found = _ERROR.findall(text)
    ours = [told for kind, told in found if kind.endswith("LampoError")]
    others = [f"{kind}: {told}" for kind, told in found if not kind.startswith("ray.")]
    last = [line.strip() for line in text.splitlines() if line.strip()][-LAST_WORDS:]
    return next(iter([*ours, *reversed(others)]), " ".join(last) or "It said nothing.")
