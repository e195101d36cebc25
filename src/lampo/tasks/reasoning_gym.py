"""Reasoning Gym (arXiv 2505.24760): generated problems of a hundred kinds, each with a scorer. Needs the extra `reasoning-gym`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from ..types import LampoError, Problem
from ..verify.reasoning_gym import ReasoningGymOptions, dump_entry, library
from .dropped import Dropped
from .split import HELDOUT_FRACTION, alternate, split_candidates, stable_hash
from .task import Task, TaskOptions


class ReasoningGymTaskOptions(TaskOptions):
    """Reasoning Gym: generated puzzles of a hundred kinds, each with its own scorer. Needs the extra reasoning-gym."""

    name: Literal["reasoning_gym"] = "reasoning_gym"
    """Selects this task."""
    datasets: dict[str, dict[str, Any]] = Field(default={"leg_counting": {}}, min_length=1)
    """Its data sets, in equal shares: the name of each, and its own settings, such as {chain_sum: {max_terms: 3}}."""
    num_train: int = Field(default=2000, gt=0)
    """Problems to train on, or fewer if there are not so many different ones."""
    num_heldout: int = Field(default=200, gt=0)
    """Problems to measure on, from the tenth that a hash of the question holds out."""
    demonstrate_answers: bool = False
    """Let the warm start imitate the bare answers, for want of worked solutions."""
    seed: int = 0
    """Chooses the problems."""

    def load(self) -> Task:
        """Generate the problems. A question that comes twice is taken once, so no question is on both sides.

        Raises:
            LampoError: the library is missing, has no such data set, or refuses its settings.
        """
        dropped = Dropped("reasoning_gym")
        wanted = max(self.num_train / (1 - HELDOUT_FRACTION), self.num_heldout / HELDOUT_FRACTION)
        size = int(1.2 * wanted / len(self.datasets)) + 20
        streams = [self._problems(name, config, size, dropped) for name, config in self.datasets.items()]
        train, heldout = split_candidates(dropped.once(alternate(streams)), self.num_train, self.num_heldout)
        dropped.report()
        return Task(train, heldout)

    def _problems(self, name: str, config: dict[str, Any], size: int, dropped: Dropped) -> Iterator[Problem]:
        try:
            seed = stable_hash(f"{self.seed} {name}") % 2**31
            entries = library().create_dataset(name, **{"seed": seed, "size": size, **config})
        except LampoError:
            raise
        except Exception as error:  # the library checks its settings with asserts, and with errors of many kinds
            raise LampoError(f"reasoning-gym cannot make its data set {name!r} with {config}: {error}") from None
        for number in dropped.watch(range(len(entries))):
            entry = entries[number]
            if entry["answer"] == "":  # no scorer takes an empty answer for right
                dropped.add("with an empty answer")
                continue
            try:
                answer = dump_entry(name, entry)
            except ValueError:
                dropped.add("that cannot be written down")
                continue
            verifier, question = ReasoningGymOptions(), entry["question"].strip()
            shown = verifier.answer_text(answer) if self.demonstrate_answers else None
            yield Problem(f"{name}/{number}", question, answer, demonstration=shown, verifier=verifier)
