"""Mixture-of-Thoughts (open-r1, 2025): traces of a reasoning model in mathematics, science and code; LamPO's training data.

It has no column of answers: they are taken from the traces. So they are a model's answers, filtered by its makers for
mathematics, and not checked by us.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field

from ..types import LampoError, Problem, Verifier
from ..verify import ChoiceOptions, CodeOptions, MathOptions, committed_answer, committed_text
from ..verify.code_tests import UnusableTests, from_input_output
from .base import Task, TaskOptions
from .dropped import Dropped
from .files import prompt_key, require_columns
from .hub import rows_of
from .split import is_heldout

_EXAMPLE = re.compile(r"```input\n(.*?)```\s*```output\n(.*?)```", re.DOTALL)
_LETTER = re.compile(r"(?:\\text\s*\{)?\s*\(?([A-J])\)?\.?\s*\}?")


class MixtureOfThoughtsOptions(TaskOptions):
    """Mixture-of-Thoughts: 350,000 problems in mathematics, science and code, with a reasoning model's traces."""

    name: Literal["mixture_of_thoughts"] = "mixture_of_thoughts"
    """Selects this task."""
    path: str = "open-r1/Mixture-of-Thoughts"
    """Data set on the Hugging Face hub; it is streamed, and only as far as it is needed."""
    config: Literal["all", "math", "code", "science"] = "all"
    """Its configuration."""
    file: str | None = None
    """Local file (.jsonl or .parquet) in the same format, instead of the hub."""
    num_train: int = Field(default=20_000, gt=0)
    """Problems to train on; fewer if there are not so many."""
    num_heldout: int = Field(default=500, gt=0)
    """Problems to measure on, from the twentieth part that a hash of the prompt holds out."""

    def load(self) -> Task:
        """Read the problems; the whole trace, thought and solution, is the reference.

        Raises:
            LampoError: the hub cannot be reached, a column is missing, or no row has an answer that can be checked.
        """
        advice = "Without a network, set task.file to a local .jsonl or .parquet file with a column `messages`."
        source = self.file or f"{self.path} ({self.config})"
        dropped = Dropped(source)
        train: list[Problem] = []
        heldout: list[Problem] = []
        num_rows = 0
        for number, row in rows_of(self.file, self.path, self.config, "train", advice=advice, stream=True):
            if num_rows == 0:
                require_columns([(number, row)], ("messages",), source)
            if len(train) >= self.num_train and len(heldout) >= self.num_heldout:
                break
            num_rows += 1
            problem = _problem(row, f"mixture_of_thoughts/{self.config}/{number}", dropped)
            if problem is not None:
                held = is_heldout(prompt_key(problem.prompt), 0.05)
                side, room = (heldout, self.num_heldout) if held else (train, self.num_train)
                if len(side) < room:
                    side.append(problem)
        dropped.report(num_rows)
        if not train and not heldout:
            raise LampoError(f"{source}: none of its {num_rows} rows has an answer that can be checked.")
        return Task(train, heldout)


def _problem(row: dict[str, Any], name: str, dropped: Dropped) -> Problem | None:
    said = {message.get("role"): message.get("content") for message in row.get("messages") or []}
    prompt, trace = said.get("user"), said.get("assistant")
    if not prompt or not trace:
        dropped.add("without a question or a trace")
        return None
    found = _code(prompt, trace) if "```" in committed_text(trace) and _EXAMPLE.search(prompt) else _boxed(trace)
    if found is None:
        dropped.add("without an answer that can be checked")
        return None
    answer, verifier = found
    return Problem(name, prompt.strip(), answer, reference=trace, verifier=verifier)


def _boxed(trace: str) -> tuple[str, Verifier] | None:
    """The answer that the trace commits to: a letter alone is a choice, anything else in a box mathematics."""
    if "boxed" not in committed_text(trace):
        return None
    answer = committed_answer(trace)
    if answer is None:
        return None
    letter = _LETTER.fullmatch(answer)
    return (letter[1], ChoiceOptions()) if letter else (answer, MathOptions())


def _code(prompt: str, trace: str) -> tuple[str, Verifier] | None:
    """The examples in the statement as tests: all that the data set has of them."""
    examples = _EXAMPLE.findall(prompt)
    try:
        tests = from_input_output({"inputs": [given for given, _ in examples], "outputs": [out for _, out in examples]})
    except UnusableTests:
        return None
    return tests.dump(), CodeOptions()
