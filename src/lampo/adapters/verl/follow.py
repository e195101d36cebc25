"""What verl writes while it trains -> the run directory: metrics under our names, rollouts, evaluations, checkpoints.

verl has a file of metrics, a line a step, and dumps of rollouts and of responses that are measured. It writes the line of a step last. No
verl in here.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...algo.estimate import Estimate, estimate_advantages
from ...config.schema import TrainConfig
from ...evaluation.heldout import measures
from ...learner.batch import collate
from ...learner.optimizer import learning_rate
from ...model.policy import load_policy
from ...model.pretrained import decode
from ...model.token_spans import TokenSpans
from ...store.checkpoints import checkpoint_folders, read_position
from ...train.run import Run
from ...train.step_record import rollout_record
from ...types import Group, LampoError, Problem, Reward, Rollout, Verdict
from ...view.console import Progress
from ...view.trackers import Trackers
from .translate import measured
from .unknown import UNKNOWN

METRICS = {
    "actor/loss": "loss/value",
    "actor/entropy": "loss/entropy",
    "actor/kl_loss": "loss/kl_ref",
    "actor/grad_norm": "optimizer/gradient_norm",
    "actor/perf/max_memory_allocated_gb": "memory/peak_gib",
    "timing_s/gen": "time/sample",
    "timing_s/update_actor": "time/update",
    "timing_s/step": "time/total",
}
"""verl's names and ours. What the rollouts tell is computed from them as in the native engine."""
KEPT = ("actor/", "perf/", "rollout_corr/", "timing_s/", "training/rollout_")
"""What of verl's other metrics is logged, as verl/NAME: the rest says again what ours say."""
SCORING = ("timing_s/old_log_prob", "timing_s/ref", "timing_s/adv")
"""Together our time/score."""
METRICS_FILE, ROLLOUTS, EVALUATIONS, CHECKPOINTS = "metrics.jsonl", "rollouts", "evaluations", "checkpoints"
"""In verl's folder."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the responses answer, by the number of the row in verl's files.

    Attributes:
        train: the problems of the steps, in their order.
        measured: the held-out problems, and those of benchmarks, each with what its measures are called.
        prompts: token ids of the former, by the problem's id.
    """

    train: Sequence[Problem]
    measured: Sequence[tuple[str, Problem]]
    prompts: Mapping[str, Tensor]


class Follower:
    """Reads what is new in verl's folder, and writes it into the run directory."""

    def __init__(
        self, run: Run, folder: Path, asked: Asked, tokenizer: Any, progress: Progress, trackers: Trackers
    ) -> None:
        self._run, self._config = run, run.config
        self._folder = folder
        self._asked = asked
        self._tokenizer = tokenizer
        self._progress = progress
        self._trackers = trackers
        self._spans = TokenSpans(partial(decode, tokenizer), len(tokenizer))
        self._read_bytes = 0
        self._begun = False
        self.step = run.position.step if run.position.stage == "train" else 0

    def poll(self) -> None:
        """Take in what verl has written since.

        Raises:
            LampoError: it cannot be used.
        """
        file = self._folder / METRICS_FILE
        if not file.is_file():
            return
        with file.open("rb") as stream:
            stream.seek(self._read_bytes)
            for line in stream:
                if not line.endswith(b"\n"):  # verl is writing it
                    return
                self._read_bytes += len(line)
                told = json.loads(line)
                self._take(told["step"], told["data"])

    def _take(self, step: int, told: Mapping[str, Any]) -> None:
        if not self._begun:
            self._begun = True
            title = self._config.method or self._config.advantage.title
            self._progress.stage(title, total=self._config.training.steps, done=self.step)
        if step > 0:
            self._write_step(step, told)
            self.step = step
        if (dump := self._folder / EVALUATIONS / f"{step}.jsonl").is_file():
            self._write_evaluation(step, _rows(dump), told.get("timing_s/testing"))
            dump.unlink()
        if (saved := self._folder / CHECKPOINTS / f"global_step_{step}").is_dir():
            self._keep_checkpoint(step, saved)

    def _write_step(self, step: int, told: Mapping[str, Any]) -> None:
        dump = self._folder / ROLLOUTS / f"{step}.jsonl"
        groups_P, estimate = self._groups(_rows(dump))
        self._run.save_groups(step, groups_P, estimate, self._spans)
        dump.unlink()
        batch = collate(groups_P, estimate.token_advantages, keep_all=False)
        record = rollout_record(groups_P, batch) | estimate.statistics | translated(told)
        steps, options = self._config.training.steps, self._config.optimizer
        record["optimizer/learning_rate"] = learning_rate(step, steps, options)  # verl logs that of the next step
        if record.get("time/total"):
            record["time/tokens_per_s"] = record["rollouts/tokens"] / record["time/total"]
        line = self._run.log("train", step, record)
        self._progress.step(step, line)
        self._trackers.log(line, step)
        if "actor/grad_norm" in told and told["actor/grad_norm"] is None:
            self._progress.note(f"The gradient of step {step} is not finite. verl left the weights as they were.")

    def _groups(self, rows: Iterable[Mapping[str, Any]]) -> tuple[list[Group], Estimate]:
        """The rollouts of a step in the order of its problems, with the advantages that verl used."""
        by_problem: dict[int, list[Mapping[str, Any]]] = {}
        for row in rows:
            if not row["padding"]:
                by_problem.setdefault(int(row["row"]), []).append(row)
        if not by_problem:
            raise LampoError("verl has written down no rollouts of a step.")
        ordered = [(self._asked.train[number], by_problem[number]) for number in sorted(by_problem)]
        groups_P = [self._group(problem, rows_G) for problem, rows_G in ordered]
        rows_N = [row for _, rows_G in ordered for row in rows_G]
        estimate = estimate_advantages(groups_P, self._config.advantage)
        used_N = torch.tensor([row["advantage"] for row in rows_N])
        by_token_N = None
        if any(row["advantages"] is not None for row in rows_N):
            by_token_N = tuple(
                torch.tensor(row["advantages"] or [row["advantage"]] * len(row["token_ids"])) for row in rows_N
            )
        return groups_P, replace(estimate, advantages_N=used_N, by_token_N=by_token_N)

    def _group(self, problem: Problem, rows_G: Sequence[Mapping[str, Any]]) -> Group:
        return Group(
            problem,
            tuple(self._rollout(problem, row) for row in rows_G),
            tuple(map(_verdict, rows_G)),
            tuple(_reward(row) for row in rows_G),
        )

    def _rollout(self, problem: Problem, row: Mapping[str, Any]) -> Rollout:
        ids = row["token_ids"]
        finished = len(ids) < self._config.sampling.max_new_tokens or ids[-1] == self._tokenizer.eos_token_id
        return Rollout(
            self._asked.prompts[problem.id],
            torch.tensor(ids, dtype=torch.int64),
            torch.tensor(row["old_log_probs"]),
            finished,
            decode(self._tokenizer, ids),
        )

    def _write_evaluation(self, step: int, rows: Iterable[Mapping[str, Any]], seconds: float | None) -> None:
        by_measure: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
        for row in rows:
            prefix, problem = self._asked.measured[int(row["row"])]
            by_measure.setdefault(prefix, {}).setdefault(problem.id, []).append(row)
        record: dict[str, Any] = {}
        for prefix, by_problem in by_measure.items():
            record |= evaluation_record(by_problem, self._config, f"evaluation/{prefix}")
        if seconds is not None:
            record["time/total"] = seconds
        line = self._run.log("evaluation", step, record)
        self._progress.evaluation(line)
        self._trackers.log(line, step)

    def _keep_checkpoint(self, step: int, saved: Path) -> None:
        """verl's whole model in our form. The shards stay with verl, for it to go on from."""
        model = saved / "actor" / "huggingface"
        policy = load_policy(on_cpu(self._config), model)
        policy.tokenizer = self._tokenizer  # verl's has the chat template that it was given
        self._run.save("train", step, policy, None)
        for weights in model.glob("*.safetensors*"):
            weights.unlink()
        kept = {read_position(path).step for path in checkpoint_folders(self._run.path / "checkpoints")}
        for other in self._folder.glob(f"{CHECKPOINTS}/global_step_*"):
            if (number := int(other.name.rpartition("_")[2])) < step and number not in kept:
                shutil.rmtree(other)


def translated(told: Mapping[str, Any]) -> dict[str, float]:
    """What verl logged, under our names, and what has none as verl/NAME."""
    numbers = {name: float(value) for name, value in told.items() if isinstance(value, int | float)}
    record = {ours: numbers.pop(name) for name, ours in METRICS.items() if name in numbers}
    record["time/score"] = sum(numbers.pop(name, 0.0) for name in SCORING)
    return record | {f"verl/{name}": value for name, value in numbers.items() if name.startswith(KEPT)}


def evaluation_record(
    by_problem: Mapping[str, Sequence[Mapping[str, Any]]], config: TrainConfig, prefix: str
) -> dict[str, Any]:
    """The measures of responses that verl sampled and we judged. verl tells their lengths alone: one of the greatest counts as cut."""
    rows_PG = list(by_problem.values())
    lengths_N = [row["length"] for rows_G in rows_PG for row in rows_G]
    return measures(
        list(by_problem),
        [[_verdict(row) for row in rows_G] for rows_G in rows_PG],
        lengths_N,
        [length < config.sampling.max_new_tokens for length in lengths_N],
        samples=measured(config.evaluation, "samples"),
        prefix=prefix,
    )


def on_cpu(config: TrainConfig) -> TrainConfig:
    """The recipe for a process beside the engine, which has the GPUs."""
    return config.model_copy(update={"model": config.model.model_copy(update={"device": "cpu"})})


def _verdict(row: Mapping[str, Any]) -> Verdict:
    return Verdict(row["verdict"], row["pred"] or None, row["detail"])


def _reward(row: Mapping[str, Any]) -> Reward:
    absent = row["absent"].split()
    parts = {
        title: None if title in absent else value
        for name, value in row.items()
        if (title := name.removeprefix("reward/")) != name
    }
    return Reward(parts, math.nan if row["score"] == UNKNOWN else row["score"])


def _rows(dump: Path) -> Iterator[dict[str, Any]]:
    try:
        with dump.open(encoding="utf-8") as stream:
            yield from map(json.loads, stream)
    except FileNotFoundError:
        raise LampoError(f"verl has not written {dump}, which it was asked for.") from None
