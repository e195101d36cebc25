"""Programming problems with tests: open-r1's verifiable coding problems, TACO and APPS, PRIME's Eurus."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from ..types import LampoError, Problem
from ..verify import CodeOptions
from ..verify.code.tests import ProgramTests, UnusableTests, from_input_output, from_verification_info
from .dropped import Dropped
from .hub import rows_of
from .split import split_candidates
from .task import Task, TaskOptions

Row = Mapping[str, Any]
HELDOUT_FRACTION = 0.05
MOST_TESTS = 20
"""Tests of a problem that are used, the first ones. Each costs one run of the program."""


class CodeTaskOptions(TaskOptions):
    """Programming problems with tests, in the formats of open-r1, TACO, APPS and PRIME's Eurus. Needs the sandbox."""

    name: Literal["code"] = "code"
    """Selects this task."""
    path: str = "open-r1/verifiable-coding-problems-python"
    """Data set on the Hugging Face hub. It is streamed, and only as far as it is needed."""
    file: str | None = None
    """Local data in one of these formats, instead of the hub: JSONL, Parquet, or a dataset folder."""
    num_train: int = Field(default=10_000, gt=0)
    """Problems to train on, or fewer if there are not so many."""
    num_heldout: int = Field(default=200, gt=0)
    """Problems to measure on, from the twentieth part that a hash of the prompt holds out."""

    def load(self) -> Task:
        """Read the problems. A solution, where there is one, is the reference.

        Raises:
            LampoError: the hub cannot be reached, the format is not known, or no row can be used.
        """
        source = self.file or self.path
        dropped = Dropped(source)
        keyed = dropped.once(self._problems(source, dropped))
        train, heldout = split_candidates(keyed, self.num_train, self.num_heldout, HELDOUT_FRACTION)
        dropped.report()
        if not train and not heldout:
            raise LampoError(f"{source}: none of its {dropped.num_rows} rows can be used.")
        return Task(train, heldout)

    def _problems(self, source: str, dropped: Dropped) -> Iterator[Problem]:
        advice = "Without a network, set task.file to a local file (JSONL, Parquet) in one of the formats."
        rows = rows_of(self.file, self.path, None, "train", advice=advice, stream=True)
        for number, row in dropped.watch(rows):
            read = _reader(row)
            if read is None:
                raise LampoError(
                    f"{source}, row {number}: not in a format of programming problems that is known. It has the columns "
                    f"{', '.join(row)}. Known are verification_info (open-r1), input_output (TACO, APPS) and "
                    "reward_model (PRIME's Eurus)."
                )
            try:
                prompt, reference, tests = read(row)
            except UnusableTests as error:
                dropped.add(f"because {error}")
                continue
            if not prompt:
                dropped.add("without a question")
                continue
            answer = _shortened(tests, MOST_TESTS).dump()
            yield Problem(f"code/{number}", prompt, answer, reference, verifier=CodeOptions())


def _reader(row: Row) -> Callable[[Row], tuple[str, str | None, ProgramTests]] | None:
    if "verification_info" in row:
        return _open_r1
    if "input_output" in row:
        return _taco
    return _eurus if "reward_model" in row else None


def _open_r1(row: Row) -> tuple[str, str | None, ProgramTests]:
    prompt = row.get("problem_statement") or row.get("problem") or ""
    return prompt.strip(), row.get("gold_standard_solution") or None, from_verification_info(row["verification_info"])


def _taco(row: Row) -> tuple[str, str | None, ProgramTests]:
    prompt = "\n\n".join(filter(None, [(row.get("question") or "").strip(), (row.get("starter_code") or "").strip()]))
    return prompt, _first_solution(row.get("solutions")), from_input_output(row["input_output"] or "")


def _first_solution(solutions: str | list[str] | None) -> str | None:
    """The first of TACO's and APPS's solutions, which are a JSON list.

    >>> _first_solution('["print(1)", "print(2 - 1)"]')
    'print(1)'
    """
    try:
        found = json.loads(solutions) if isinstance(solutions, str) else solutions
    except ValueError:
        return None
    return found[0] if isinstance(found, list) and found else None


def _eurus(row: Row) -> tuple[str, str | None, ProgramTests]:
    if row.get("ability") not in (None, "code"):
        raise UnusableTests("not about code")
    said = {message.get("role"): message.get("content") for message in row.get("prompt") or []}
    return (said.get("user") or "").strip(), None, from_input_output(row["reward_model"].get("ground_truth") or "")


def _shortened(tests: ProgramTests, limit: int) -> ProgramTests:
    return tests.model_copy(
        update={"inputs": tests.inputs[:limit], "outputs": tests.outputs[:limit], "tests": tests.tests[:limit]}
    )
