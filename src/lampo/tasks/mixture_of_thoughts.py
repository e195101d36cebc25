"""Mixture-of-Thoughts (open-r1, 2025): traces of a reasoning model in mathematics, science and code. LamPO's training data.

It has no column of answers and no tests: the answers are taken from the traces, so they are a model's answers that we
have not checked, and the tests of a program are the examples in its statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pydantic import Field

from ..types import LampoError, Problem, Verifier
from ..verify import ChoiceOptions, CodeOptions, MathOptions, committed_answer, committed_text
from ..verify.code.tests import UnusableTests, from_input_output
from ..verify.math.latex import is_readable
from .columns import require_columns
from .dropped import Dropped
from .files import Row, iterate_rows
from .hub import rows_of
from .split import alternate, split_candidates
from .task import Task, TaskOptions

Domain = Literal["math", "science", "code"]

SOURCES: dict[str, Domain] = {
    "open-r1/codeforces-cots": "code",
    "nvidia/Llama-Nemotron-Post-Training-Dataset": "science",
}
"""Where rows come from, by their column `source`. All others are mathematics."""

HELDOUT_FRACTION = 0.05

_EXAMPLE = re.compile(r"```input\n(.*?)```\s*```output\n(.*?)```", re.DOTALL)
_WORD = re.compile(r"(?<!\\)\b[A-Za-z]{2,}\b")
_LETTER = re.compile(r"(?:\\text\s*\{)?\s*\(?([A-J])\)?\.?\s*\}?")


class MixtureOfThoughtsOptions(TaskOptions):
    """Mixture-of-Thoughts: 350,000 problems in mathematics, science and code, with a reasoning model's traces."""

    name: Literal["mixture_of_thoughts"] = "mixture_of_thoughts"
    """Selects this task."""
    path: str = "open-r1/Mixture-of-Thoughts"
    """Data set on the Hugging Face hub. It is streamed, and only as far as it is needed."""
    domains: list[Domain] = Field(default=["math", "science"], min_length=1)
    """Which of its domains, row by row in turn: math, science, code. The last needs the sandbox."""
    file: str | None = None
    """Local data in the same format, instead of the hub: CSV, JSONL, Parquet, or a dataset folder. The column `source` tells the domain."""
    num_train: int = Field(default=20_000, gt=0)
    """Problems to train on, or fewer if there are not so many."""
    num_heldout: int = Field(default=500, gt=0)
    """Problems to measure on, from the twentieth part that a hash of the prompt holds out."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Leave out rows whose trace is longer, by the data set's own count (column `num_tokens`). Unset: none."""
    max_prompt_characters: int | None = Field(default=None, gt=0)
    """Leave out longer questions. Unset: none."""

    def load(self) -> Task:
        """Read the problems. The whole trace, thought and solution, is the reference.

        Raises:
            LampoError: the hub cannot be reached, a column is missing, or no row has an answer that can be checked.
        """
        source = self.file or self.path
        dropped = Dropped(source)
        rows = dropped.watch(self._rows())
        keyed = dropped.once(self._problems(rows, source, dropped))
        train, heldout = split_candidates(keyed, self.num_train, self.num_heldout, HELDOUT_FRACTION)
        dropped.report()
        if not train and not heldout:
            raise LampoError(f"{source}: none of its {dropped.num_rows} rows has an answer that can be checked.")
        return Task(train, heldout)

    def _rows(self) -> Iterator[tuple[Domain, Row]]:
        if self.file is not None:
            for row in iterate_rows(self.file, ("train",)):
                yield SOURCES.get(row[1].get("source", ""), "math"), row
            return
        advice = "Without a network, set task.file to a local file (JSONL, Parquet) with a column `messages`."

        def stream(domain: Domain) -> Iterator[tuple[Domain, Row]]:
            for row in rows_of(None, self.path, domain, "train", advice=advice, stream=True):
                yield domain, row

        yield from alternate(map(stream, dict.fromkeys(self.domains)))

    def _problems(self, rows: Iterable[tuple[Domain, Row]], source: str, dropped: Dropped) -> Iterator[Problem]:
        columns = ("messages",) if self.max_tokens is None else ("messages", "num_tokens")
        checked: set[Domain] = set()
        for domain, (number, row) in rows:
            if domain not in checked:
                require_columns([(number, row)], dict.fromkeys(columns, ""), source)
                checked.add(domain)
            if domain not in self.domains:
                dropped.add(f"about {domain}")
            elif self.max_tokens is not None and (row["num_tokens"] or 0) > self.max_tokens:
                dropped.add("with a trace that is too long")
            else:
                try:
                    problem = _problem(row, domain, number)
                except _Unusable as reason:
                    dropped.add(str(reason))
                    continue
                if self.max_prompt_characters is not None and len(problem.prompt) > self.max_prompt_characters:
                    dropped.add("with a question that is too long")
                else:
                    yield problem


class _Unusable(Exception):
    """Why a row cannot be used."""


def _problem(row: dict[str, Any], domain: Domain, number: int) -> Problem:
    said = {message.get("role"): message.get("content") for message in row["messages"] or []}
    prompt, trace = (said.get("user") or "").strip(), said.get("assistant") or ""
    if not prompt or not trace:
        raise _Unusable("without a question or a trace")
    answer, verifier = _tests(prompt, trace) if domain == "code" else _boxed(prompt, trace)
    return Problem(f"mixture_of_thoughts/{domain}/{number}", prompt, answer, reference=trace, verifier=verifier)


def _boxed(prompt: str, trace: str) -> tuple[str, Verifier]:
    """The last box of a trace: a letter that the question offers is a choice, anything else mathematics.

    A sentence is left out, for another that says the same would be taken for wrong. So is what `math` cannot read.
    """
    answer = committed_answer(trace) if "boxed" in committed_text(trace) else None
    if answer is None:
        raise _Unusable("without an answer in a box")
    letter = _LETTER.fullmatch(answer)
    if letter and re.search(rf"(?<![A-Za-z]){letter[1]}\s*[.):}}]", prompt):
        return letter[1], ChoiceOptions()
    if len(_WORD.findall(answer)) > 3:
        raise _Unusable("with an answer in words")
    verifier = MathOptions()
    verdict = verifier.at_once(verifier.answer_text(answer), answer)
    # the same text is right even where it cannot be read
    if verdict is None or verdict.status != "right" or not is_readable(answer):
        raise _Unusable("with an answer that cannot be read")
    return answer, verifier


def _tests(prompt: str, trace: str) -> tuple[str, Verifier]:
    """The examples in the statement of a program as its tests: all that the data set has of them."""
    if "C++" in prompt or "```cpp" in trace:
        raise _Unusable("asking for C++")
    examples = _EXAMPLE.findall(prompt)
    try:
        tests = from_input_output({"inputs": [given for given, _ in examples], "outputs": [out for _, out in examples]})
    except UnusableTests:
        raise _Unusable("without examples to test a program with") from None
    return tests.dump(), CodeOptions()
