"""From rows to problems: the columns that the recipe names, and errors that say which to name."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ..messages import joined, nearest
from ..options import Options
from ..types import LampoError, Problem
from .files import Row

logger = logging.getLogger("lampo")

MEANINGS = {
    "prompt": ("prompt", "question", "problem", "instruction", "query", "input"),
    "reference": ("reference", "solution", "rationale", "explanation", "reasoning", "working", "response"),
    "answer": ("answer", "gold", "target", "label", "final_answer", "ground_truth", "expected", "output", "solution"),
}
"""What public data sets call these columns. The likelier first. `solution` is a reference before it is an answer."""

ARGUMENTS = ("completion", "prompt", "answer", "reference")
"""What a reward function is given under these names, so no column of a row can be."""


class Columns(Options):
    """Which columns of a file hold what."""

    prompt: str = "prompt"
    """Column of the question, in plain text."""
    answer: str = "answer"
    """Column of the answer that the verifier compares with: text or a number."""
    reference: str | None = None
    """Column of a worked solution, for the ROUGE-L reward and the warm start. Unset: none."""


def to_problems(rows: Sequence[Row], columns: Columns, *, source: str, id_prefix: str) -> list[Problem]:
    """Rows with the named columns as problems, with the other columns as their fields.

    Rows without a prompt or an answer are dropped, counted and reported.

    Args:
        rows: the rows with their numbers.
        columns: names of the columns.
        source: what to call the file in messages.
        id_prefix: the problem's id is this, a slash and the row's number.

    Raises:
        LampoError: no rows, columns that no row has, a value of a type that cannot be a prompt or an answer, or no row left.
    """
    if not rows:
        raise LampoError(f"{source} is empty. It needs at least one row with a prompt and an answer.")
    named = {name: role for role, name in columns.model_dump().items() if name is not None}
    require_columns(rows, named, source)
    problems: list[Problem] = []
    for number, row in rows:
        prompt, answer, reference = (
            _text(row.get(name) if name else None, f"{source}, row {number}, column {name!r}")
            for name in (columns.prompt, columns.answer, columns.reference)
        )
        if prompt and answer:
            fields = {name: value for name, value in row.items() if name and name not in (*named, *ARGUMENTS)}
            problems.append(Problem(f"{id_prefix}/{number}", prompt, answer, reference or None, fields=fields))
    if not problems:
        raise LampoError(f"{source}: none of its {len(rows)} rows has both a prompt and an answer.")
    if num_dropped := len(rows) - len(problems):
        logger.warning("%s: left out %d of %d rows, without prompt or answer", source, num_dropped, len(rows))
    return problems


def drop_overlap(train: Sequence[Problem], heldout: Sequence[Problem], source: str) -> list[Problem]:
    """The training problems whose prompts are not held out as well. How many were left out is reported, if any are left."""
    measured = {prompt_key(problem.prompt) for problem in heldout}
    kept = [problem for problem in train if prompt_key(problem.prompt) not in measured]
    if (num_dropped := len(train) - len(kept)) and kept:  # the same file on both sides is a benchmark
        logger.warning("%s: left out %d training problems that are held out as well", source, num_dropped)
    return kept


def tell_contradictions(problems: Sequence[Problem], source: str) -> None:
    """Say how many prompts stand in several rows with different answers. A response cannot be right to all of them, and all are kept."""
    answers: dict[str, dict[str, str]] = {}
    for problem in problems:
        answers.setdefault(prompt_key(problem.prompt), {}).setdefault(problem.answer, problem.id)
    if found := [list(of.items()) for of in answers.values() if len(of) > 1]:
        (one, first), (other, second) = found[0][:2]
        logger.warning(
            "%s: prompts with several answers: %d, such as %s with %r and %s with %r. All are kept",
            source, len(found), first, one, second, other,
        )  # fmt: skip


def prompt_key(prompt: str) -> str:
    """The prompt with every run of white space as one space: what makes two problems the same."""
    return " ".join(prompt.split())


def _as_yaml(name: str) -> str:
    """A column's name as a recipe has it: in quotes where YAML would read it as another one, as with spaces at its ends."""
    return yaml.safe_dump([name], default_flow_style=True, allow_unicode=True, width=math.inf).strip()[1:-1]


def require_columns(rows: Sequence[Row], named: Mapping[str, str], source: str) -> None:
    """Refuse rows that lack columns.

    Args:
        rows: the rows with their numbers.
        named: the columns, each with its key in the task's `columns`; "" where the name cannot be chosen.
        source: what to call the file in messages.

    Raises:
        LampoError: names all that are missing, those there, and a guess for each.
    """
    present = list(dict.fromkeys(name for _, row in rows for name in row))
    missing = {name: role for name, role in named.items() if name not in present}
    if not missing:
        return
    guesses = _guesses(missing, [name for name in present if name not in named])
    lacking = joined(
        [f"{name!r}" + (f" (did you mean {guesses[name]!r}?)" if name in guesses else "") for name in missing]
    )
    columns = "column" if len(missing) == 1 else "columns"
    message = f"{source} has no {columns} {lacking}. It has: {', '.join(map(repr, present))}."
    chosen = ", ".join(
        f"{role}: {_as_yaml(guesses[name]) if name in guesses else '...'}" for name, role in missing.items() if role
    )
    raise LampoError(f"{message} Name them in the recipe: task: {{columns: {{{chosen}}}}}" if chosen else message)


def _guesses(missing: Mapping[str, str], free: list[str]) -> dict[str, str]:
    """For a missing column the one that is spelt most like it, else one that usually means the same. None is guessed twice.

    >>> _guesses({"prompt": "prompt", "answer": "answer", "why": "reference"}, ["Question", "gold", "solution"])
    {'prompt': 'Question', 'why': 'solution', 'answer': 'gold'}
    """
    guesses: dict[str, str] = {}
    for name, role in sorted(missing.items(), key=lambda item: [*MEANINGS, ""].index(item[1])):
        lower = {column.lower(): column for column in reversed(free)}
        alike = nearest(name, free) or next((lower[word] for word in MEANINGS.get(role, ()) if word in lower), None)
        if alike is not None:
            guesses[name] = alike
            free = [column for column in free if column != alike]
    return guesses


def _text(value: Any, location: str) -> str:
    """A column's value as text. Empty for null, NaN and white space."""
    match value:
        case None:
            return ""
        case str():
            return value if value.strip() else ""
        case bool():
            pass
        case int():
            return str(value)
        case float() if math.isnan(value):
            return ""
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
        case _:
            pass
    raise LampoError(f"{location}: holds a {type(value).__name__}, but text or a number is needed.")
