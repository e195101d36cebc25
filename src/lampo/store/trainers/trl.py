"""TRL's tables of completions: one Parquet file a logged step.

GRPOTrainer writes `completions/completions_00012.parquet` into its output_dir, with `log_completions=True`. The columns are step,
prompt, completion, one for each reward function, what reward functions logged besides, and advantage. There are no log-probs, no
weights of rewards and no total. Rows of a group stand together. Columns of a Parquet file are read one by one, so that the texts
of responses are read only for the group that is looked at.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from ...types import LampoError
from ..rollouts import NO_GROUP, Record, entry
from .dump import Row, StepRead, finite, named_rows, prompt_identity, record, shown, spoken, verdict_column

TABLE = re.compile(r"completions_(\d+)\.parquet")
KNOWN = ("step", "prompt", "completion", "advantage")
NO_ROW = (*NO_GROUP, ValueError)
EPSILON = 1e-4
"""What TRL adds to a standard deviation before it divides."""
NO_LOGPROBS = "TRL's table has no log-probs: LamPO's weights and advantages cannot be told."
UNWEIGHTED = (
    "TRL's table has no weights of rewards. The reward shown is the plain sum of {}, "
    "and TRL's advantages do not follow from it."
)
NO_REWARDS = "This table has no rewards."
NO_ADVANTAGES = "This table has no advantages."


class CompletionTables:
    """The tables of one run."""

    trainer = "TRL"

    def __init__(self, path: Path, folder: Path, only: str | None = None) -> None:
        self.path, self._folder, self._only = path, folder, only

    @classmethod
    def find(cls, path: Path) -> CompletionTables | None:
        """In TRL's output_dir, in its folder completions, or one table of it."""
        if TABLE.fullmatch(path.name) and path.is_file():
            return cls(path, path.parent, path.name)
        for folder in (path / "completions", path):
            tables = cls(path, folder)
            if tables.files():
                return tables
        return None

    def files(self) -> dict[int, Path]:
        """See `Dump.files`."""
        try:
            names = [(TABLE.fullmatch(file.name), file) for file in self._folder.iterdir()]
        except OSError:
            return {}
        found = {int(name[1]): file for name, file in names if name and self._only in (None, file.name)}
        return dict(sorted(found.items()))

    @cache  # noqa: B019 (a dump lives as long as the program)
    def verdict(self) -> str | None:
        """See `Dump.verdict`. It is asked of the first table that can be read."""
        for file in self.files().values():
            try:
                table = _Table(file)
                return verdict_column({name: table.numbers[name] for name in table.rewards})
            except LampoError:
                continue
        return None

    def read(self, step: int, file: Path) -> StepRead:
        """See `Dump.read`."""
        read = StepRead()
        try:
            table = _Table(file)
        except LampoError as error:
            read.complaints.append(str(error))
            return read
        for rows in table.groups:
            found = record(prompt_identity(table.prompts[rows[0]]), table.rows(rows), self.verdict())
            read.entries.append(entry(found))
            read.rows.append(rows)
        read.complaints += named_rows(file, "row", table.wrong)
        return read

    def group(self, step: int, file: Path, read: StepRead, number: int) -> Record:
        """See `Dump.group`."""
        rows = read.rows[number]
        table = _Table(file, with_texts=rows)
        if rows not in table.groups:
            raise LampoError(f"{file} has changed. Press r to read it anew.")
        notes = [NO_LOGPROBS]
        if not table.rewards:
            notes = [NO_REWARDS]
        elif not table.confirmed and len(table.rewards) > 1:
            notes.append(UNWEIGHTED.format(" and ".join(table.rewards)))
        if not any(value is not None for value in table.advantages):
            notes.append(NO_ADVANTAGES)
        return record(prompt_identity(table.prompts[rows[0]]), table.rows(rows), self.verdict(), notes)


class _Table:
    """One table: prompts and numbers, and the texts of some rows.

    Attributes:
        prompts: as text; None for a row that cannot be read.
        numbers: the columns of numbers.
        rewards: which of them are rewards. TRL writes these first, as floats, and then what reward functions logged.
        groups: the rows of each group.
        confirmed: whether TRL's advantages follow from the plain sum of the rewards.
        wrong: rows that cannot be read, counted from 1, and why.
    """

    def __init__(self, file: Path, with_texts: Sequence[int] = ()) -> None:
        self.wrong: list[tuple[int, str]] = []
        columns = _columns(file, texts=bool(with_texts))
        self._plain = {name: column for name, column in columns.items() if name not in KNOWN}
        self.prompts: list[Any] = [self._spoken(at, prompt) for at, prompt in enumerate(columns["prompt"])]
        self._texts = {at: _response(columns["completion"][at]) for at in with_texts}
        size = len(self.prompts)
        self.advantages = [finite(value) for value in columns.get("advantage", [None] * size)]
        self.numbers = {
            name: [finite(value) for value in column]
            for name, column in self._plain.items()
            if all(value is None or isinstance(value, (int, float)) for value in column)
        }
        self.groups = self._groups()
        floats: list[str] = []
        for name in self._plain:
            column = [value for value in self._plain[name] if value is not None]
            if name not in self.numbers or any(not isinstance(value, float) for value in column):
                break
            floats.append(name)
        counts = [count for count in range(len(floats), 0, -1) if self._follow_from(floats[:count])]
        self.confirmed = bool(counts)
        self.rewards = floats[: counts[0]] if counts else floats
        totals = self._totals(self.rewards)
        unscored = [at for at, total in enumerate(totals) if total is None and self.prompts[at] is not None]
        # an older TRL (1.0) trains on a response that nobody could judge as if its reward were 0
        self._counted_as_0 = {at for at in unscored if self.rewards and any(self.advantages[at] for at in unscored)}
        self.totals = [0.0 if at in self._counted_as_0 else total for at, total in enumerate(totals)]

    def rows(self, numbers: Sequence[int]) -> list[Row]:
        """Some rows."""
        return [self._row(at) for at in numbers]

    def _row(self, at: int) -> Row:
        others = {name: column[at] for name, column in self._plain.items() if name not in self.numbers}
        answer = next((str(others.pop(name)) for name in ("answer", "solution") if others.get(name)), None)
        text, missing = self._texts.get(at, ("", ""))
        said = [missing] if missing else []
        said += ["TRL counted it as 0"] if at in self._counted_as_0 else []
        said += [f"{name}: {shown(value)}" for name, value in others.items() if value is not None]
        return Row(
            prompt=self.prompts[at],
            text=text,
            answer=answer,
            numbers={name: column[at] for name, column in self.numbers.items()},
            total=self.totals[at],
            advantage=self.advantages[at],
            detail=" · ".join(said),
        )

    def _spoken(self, at: int, prompt: Any) -> str | None:
        try:
            return spoken(prompt)
        except NO_ROW as error:
            self.wrong.append((at + 1, f"no prompt ({error})"))
            return None

    def _groups(self) -> list[list[int]]:
        """Neighbours of one prompt. A run of a multiple of the usual size is several groups of one prompt."""
        runs = [
            list(rows)
            for prompt, rows in groupby(range(len(self.prompts)), key=self.prompts.__getitem__)
            if prompt is not None
        ]
        if not runs:
            return []
        sizes = Counter(map(len, runs))
        size = min((size for size in sizes if sizes[size] == max(sizes.values())), default=1)
        groups = []
        for run in runs:
            step = size if size > 1 and len(run) % size == 0 else len(run)
            groups += [run[at : at + step] for at in range(0, len(run), step)]
        return groups

    def _totals(self, names: Sequence[str]) -> list[float | None]:
        totals = []
        for at in range(len(self.prompts)):
            values = [value for name in names if (value := self.numbers[name][at]) is not None]
            totals.append(sum(values) if values else None)
        return totals

    def _follow_from(self, names: Sequence[str]) -> bool:
        """Whether the advantages are those that TRL gives for the plain sum of these rewards, under any `scale_rewards`."""
        totals = self._totals(names)
        for unscored in (None, 0.0):  # as TRL does now, and as it did
            known = [unscored if total is None else total for total in totals]
            batch = [total for total in known if total is not None]
            if len(batch) < 2:
                continue
            whole = statistics.stdev(batch)
            for scale in ("group", "batch", "none"):
                if all(self._follows(group, known, scale, whole) for group in self.groups):
                    return True
        return False

    def _follows(self, group: Sequence[int], totals: Sequence[float | None], scale: str, whole: float) -> bool:
        values = [total for at in group if (total := totals[at]) is not None]
        if not values:
            return True
        mean = statistics.fmean(values)
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        divisor = {"group": spread + EPSILON, "batch": whole + EPSILON, "none": 1.0}[scale]
        for at in group:
            total, advantage = totals[at], self.advantages[at]
            if total is None or advantage is None:
                continue
            if not math.isclose((total - mean) / divisor, advantage, rel_tol=2e-3, abs_tol=2e-3):
                return False
        return True


def _response(completion: Any) -> tuple[str, str]:
    """The text of a response, and what is wrong where it has none."""
    try:
        return spoken(completion), ""
    except NO_ROW as error:
        return "", f"the response cannot be read ({error})"


def _columns(file: Path, *, texts: bool) -> dict[str, list[Any]]:
    """The columns of a table, without the texts of responses where they are not asked for.

    Raises:
        LampoError: pyarrow is not installed, or the file is damaged or another table.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise LampoError("TRL's tables are Parquet files, for which pyarrow is needed: pip install pyarrow") from None
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            names = table.schema_arrow.names
            if lacking := [name for name in ("prompt", "completion") if name not in names]:
                raise LampoError(f"{file} is no table of completions: it has no column {' and '.join(lacking)}")
            kept = [name for name in names if texts or name != "completion"]
            return {name: column for name, column in table.read(kept).to_pydict().items() if not name.startswith("__")}
    except (OSError, ValueError, pyarrow.ArrowException) as error:  # ValueError: names and texts that are no UTF-8
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LampoError(f"{file} cannot be read ({why}): it is damaged or still being written") from None
