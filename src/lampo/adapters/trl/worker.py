"""python -m lampo.adapters.trl.worker RUN: one of the processes that torchrun starts for a run. The first one writes its directory."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import torch

from ... import process as environment  # noqa: F401
from ...config.load import load_config
from ...learner.budget import tokens_per_microbatch
from ...learner.optimizer import Optimizer
from ...model.policy import load_policy
from ...process import prepare
from ...train.checks import load_problems
from ...train.run import Run
from ...train.session import open_session, tell_warm_start
from ...types import LampoError
from ...verify import VerifierPool
from ...view.console import Progress
from .engine import FAILURE, make_trainer, old_names, reinforce


def main() -> None:
    """Take part in the run."""
    path, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    prepare(load_config(path / "config.yaml"))
    try:
        _write(path) if rank == 0 else _follow(path)
    except LampoError as error:
        print(error, file=sys.stderr)
        if rank == 0:
            (path / FAILURE).write_text(str(error), encoding="utf-8")
        sys.exit(1)


def _write(path: Path) -> None:
    with ExitStack() as stack:
        run = Run.join(path, writes=True)
        stack.callback(run.close)
        progress = stack.enter_context(Progress(path.name))
        session = open_session(run, progress, stack)
        tell_warm_start(run, session.trackers)
        reinforce(session)


def _follow(path: Path) -> None:
    """As the first process does, without writing: TRL gathers what the others sample."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run = Run.join(path, writes=False)
    config = run.config
    if not run.steps("train", config.training.steps):
        return
    task = load_problems(config).task
    policy = load_policy(config, run.weights)
    chosen = run.choice("training.tokens_per_microbatch") or tokens_per_microbatch(policy.model, config)
    optimizer = Optimizer(policy, config.optimizer, config.training.steps)
    run.restore(optimizer, "train")
    with VerifierPool() as pool, old_names():
        make_trainer(run, policy, pool, task.train, optimizer, chosen).train()


if __name__ == "__main__":
    main()
