"""GPQA Diamond (arXiv 2311.12022): questions in science that experts wrote, with four options.

Its authors ask that no example be published in plain text, so that none gets into training data: the data set is gated,
nothing of it is in this project, and its canary string is kept in the id of every problem, so that it stands in every
record that is written of one.
"""

from __future__ import annotations

from typing import Any, Literal

from ..types import LampoError, Problem
from ..verify import ChoiceOptions, lettered
from .columns import require_columns
from .dropped import Dropped
from .hub import rows_of
from .task import Task, TaskOptions

QUESTION, RIGHT, RECORD, CANARY = "Question", "Correct Answer", "Record ID", "Canary String"
WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


class GpqaDiamondOptions(TaskOptions):
    """GPQA Diamond: 198 multiple-choice questions in science. Gated, see the hub page."""

    name: Literal["gpqa_diamond"] = "gpqa_diamond"
    """Selects this task."""
    path: str = "Idavidrein/gpqa"
    """Data set on the Hugging Face hub."""
    file: str | None = None
    """Local file in the same format (gpqa_diamond.csv), instead of the hub."""

    def load(self) -> Task:
        """Read the questions. The options stand in an order that the record's id decides, the same everywhere.

        Raises:
            LampoError: there is no access, or a column is missing.
        """
        advice = (
            "GPQA is gated: accept its terms on its page on the hub, then log in with `hf auth login` or set HF_TOKEN. "
            "Or point it to a local gpqa_diamond.csv: --data gpqa_diamond=FILE, or `file` of the task."
        )
        rows = list(rows_of(self.file, self.path, "gpqa_diamond", "train", advice=advice))
        source = self.file or self.path
        require_columns(rows, dict.fromkeys((QUESTION, RIGHT, *WRONG, RECORD, CANARY), ""), source)
        dropped = Dropped(source)
        problems = [problem for _, row in dropped.watch(rows) if (problem := _problem(row, dropped)) is not None]
        dropped.report()
        if not problems:
            raise LampoError(f"{source}: none of its {len(rows)} rows is a question with four options.")
        return Task([], problems)


def _problem(row: dict[str, Any], dropped: Dropped) -> Problem | None:
    texts = [" ".join(str(row.get(column) or "").split()) for column in (RIGHT, *WRONG)]
    question = str(row.get(QUESTION) or "").strip()
    if not question or not all(texts):
        dropped.add("without a question or an option")
        return None
    record = str(row[RECORD])
    options, answer = lettered(texts, 0, key=record)
    name = f"gpqa_diamond/{record} {row.get(CANARY) or ''}".strip()
    return Problem(name, f"{question}\n\n{options}", answer, verifier=ChoiceOptions())
