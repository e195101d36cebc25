"""The user's own reward: a Python function, named by where it is imported from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from ..options import OWN_PATH, call_own, load_function, refuse_unnamed_options
from ..types import LampoError, Problem
from .reward import Responses, RewardOptions


class PythonReward(RewardOptions):
    """Your own function f(completion, answer, **fields) -> number, or None for unknown.

    `fields` are what it names of prompt, reference, problem_id, verdict, num_tokens, the other columns of your file, and `options`.
    It runs where training runs, not in a worker: a reward that may hang belongs into a verifier.
    """

    none_is_unknown: ClassVar[bool] = True

    name: Literal["python"] = "python"
    """Selects this reward. "python:module.function" is short for it and its `function`."""
    function: str = Field(pattern=OWN_PATH)
    """Where the function is imported from: module.function."""
    batch: bool = False
    """Call it once with the lists of all responses to a problem, as f(completions, answers, **fields). It returns a list."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function. Other keys of the section are put here too."""

    @property
    def title(self) -> str:
        """What it is called: the function's own name, unless it has a label."""
        return self.label or self.function.rpartition(".")[2]

    def values(self, responses: Responses) -> list[float | None]:
        """See `RewardOptions.values`."""
        function, what, problem = (
            load_function(self.function, "the reward"),
            f"The reward {self.function}",
            responses.problem,
        )
        same = {"prompt": problem.prompt, "reference": problem.reference, "problem_id": problem.id, **problem.fields}
        each = {"verdict": responses.verdicts_G, "num_tokens": responses.num_tokens_G}
        G = len(responses.texts_G)
        if self.batch:
            given = {"completions": list(responses.texts_G), "answers": [problem.answer] * G}
            offered = {key: [value] * G for key, value in same.items()} | {key: list(row) for key, row in each.items()}
            said = call_own(function, what, given, offered | self.options)
            if not isinstance(said, Sequence) or len(said) != G:
                raise LampoError(f"{what} returned {said!r:.80}. With `batch` it must return a list of {G} numbers.")
        else:
            said = []
            for index, text in enumerate(responses.texts_G):
                offered = same | {key: row[index] for key, row in each.items() if row}
                given = {"completion": text, "answer": problem.answer}
                said.append(call_own(function, what, given, offered | self.options))
        return [self._number(value) for value in said]

    def prepare(self, problems: Sequence[Problem]) -> None:
        """See `RewardOptions.prepare`: the function is imported, and its options are looked at."""
        function = load_function(self.function, "the reward")
        refuse_unnamed_options(function, self.options, f"The reward {self.function}")

    def _number(self, value: Any) -> float | None:
        if value is None:
            return None
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise LampoError(
                f"The reward {self.function} returned {value!r:.80}. It must return a number, or None for unknown."
            ) from None
        if not math.isfinite(number):
            raise LampoError(
                f"The reward {self.function} returned {number}. It must return a finite number, or None for unknown."
            )
        return number
