"""verl's dumps of rollouts: one JSONL file a step, in `trainer.rollout_data_dir`.

A line has input, output, gts, score and step. The newer trainer adds uid, `{sample}_{rollout}_{output}`. The older one adds what
the reward function returned. There are no advantages. There are log-probs only where a trainer of the user's own adds them. With the
estimator lampo the newer trainer adds both, and what our reward function returned (adapters/verl/dump.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ...types import LampoError
from ..rollouts import NO_GROUP, Record, entry
from .dump import TOTAL, Row, StepRead, finite, named_rows, prompt_identity, record, shown, verdict_column

NO_ROW = (*NO_GROUP, ValueError, RecursionError)
LOGPROBS = ("old_log_probs", "rollout_log_probs", "log_probs", "logprobs")
"""Columns that hold a list of log-probs a response. Those of the trainer come first."""
OURS = {"advantage", "advantages", "token_ids", "padding", "row", "verdict", "detail", "absent", "length", "unknown"}
"""Columns that LamPO adds, where there are token_ids. Rewards among them are called reward/NAME."""
KNOWN = {"input", "output", "gts", TOTAL, "step", "uid", "request_id", "pred", *LOGPROBS}
UNKNOWN = 2.0**-100
"""How LamPO's reward function tells verl that nobody could judge a response (adapters/verl/unknown.py)."""
NO_LOGPROBS = "Log-probs are missing (a column old_log_probs): LamPO's weights and advantages cannot be told."
NO_ADVANTAGES = "verl writes no advantages down: what was used is not shown."


class RolloutDump:
    """The dumps of one run."""

    trainer = "verl"

    def __init__(self, path: Path, folder: Path, only: str | None = None) -> None:
        self.path, self._folder, self._only = path, folder, only

    @classmethod
    def find(cls, path: Path) -> RolloutDump | None:
        """A folder of dumps, the folder above one that is called rollouts, or one dump."""
        if path.suffix == ".jsonl" and path.stem.isdecimal() and path.is_file():
            places = [cls(path, path.parent, path.name)]
        else:
            places = [cls(path, folder) for folder in (path, path / "rollouts")]
        return next((dump for dump in places if any(map(_is_dump, dump.files().values()))), None)

    def files(self) -> dict[int, Path]:
        """See `Dump.files`."""
        try:
            files = [file for file in self._folder.iterdir() if file.suffix == ".jsonl" and file.stem.isdecimal()]
        except OSError:
            return {}
        return dict(sorted((int(file.stem), file) for file in files if self._only in (None, file.name)))

    @cache  # noqa: B019 (a dump lives as long as the program)
    def verdict(self) -> str | None:
        """See `Dump.verdict`. It is asked of the first file that can be read."""
        for file in self.files().values():
            try:
                rows = [row for _, row, _ in _rows(file) if isinstance(row, Row)]
            except LampoError:
                continue
            if rows:
                names = dict.fromkeys(["acc", TOTAL, *(name for row in rows for name in row.numbers)])
                known = [row for row in rows if row.total is not None]
                return verdict_column({name: [row.numbers.get(name) for row in known] for name in names})
        return None

    def read(self, step: int, file: Path) -> StepRead:
        """See `Dump.read`."""
        read, wrong = StepRead(), []
        groups: dict[object, tuple[list[Row], list[int]]] = {}
        try:
            for number, (offset, row, _) in enumerate(_rows(file), start=1):
                if isinstance(row, str):
                    wrong.append((number, row))
                    continue
                rows, offsets = groups.setdefault(row.group, ([], []))
                rows.append(row)
                offsets.append(offset)
        except LampoError as error:
            read.complaints.append(str(error))
        for rows, offsets in groups.values():
            read.entries.append(entry(record(_identity(rows[0]), rows, self.verdict())))
            read.rows.append(offsets)
        read.complaints += named_rows(file, "line", wrong)
        return read

    def group(self, step: int, file: Path, read: StepRead, number: int) -> Record:
        """See `Dump.group`."""
        try:
            rows = []
            with file.open("rb") as stream:
                for offset in read.rows[number]:
                    stream.seek(offset)
                    rows.append(_row(json.loads(stream.readline())))
        except (OSError, *NO_ROW) as error:
            raise LampoError(f"{file} was changed and cannot be read ({error}). Press r to read it anew.") from None
        notes = [] if all(row.logprobs for row in rows) else [NO_LOGPROBS]
        notes += [] if all(row.advantage is not None for row in rows) else [NO_ADVANTAGES]
        return record(_identity(rows[0]), rows, self.verdict(), notes)


def _is_dump(file: Path) -> bool:
    """Whether its first line is a rollout of verl's."""
    try:
        with file.open("rb") as stream:
            return {"input", "output", TOTAL} <= json.loads(stream.readline()).keys()
    except (OSError, *NO_ROW):
        return False


def _rows(file: Path) -> Iterator[tuple[int, Row | str, int]]:
    """Where each line begins, its row or what is wrong with it, and its length.

    Raises:
        LampoError: the file cannot be read.
    """
    offset = 0
    try:
        with file.open("rb") as stream:
            for line in stream:
                try:
                    row = _row(json.loads(line))
                except NO_ROW as error:
                    row = "it was cut short" if not line.endswith(b"\n") else f"not a rollout ({_why(error)})"
                yield offset, row, len(line)
                offset += len(line)
    except OSError as error:
        raise LampoError(f"{file} cannot be read: {error.strerror or error}") from None


def _why(error: BaseException) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def _row(said: Record) -> Row:
    score = finite(said[TOTAL])
    prompt, text, uid = said["input"], said["output"], said.get("uid")
    if not isinstance(prompt, str) or not isinstance(text, str):
        raise TypeError("input and output are texts")
    ours = "token_ids" in said
    known, absent = KNOWN | OURS if ours else KNOWN, str(said.get("absent")).split() if ours else ()
    numbers: dict[str, float | None] = {TOTAL: None if score == UNKNOWN else score}
    detail = [str(said["detail"])] if ours and said.get("detail") else []
    for name, value in said.items():
        title = name.removeprefix("reward/")
        if name in known:
            continue
        if isinstance(value, (bool, int, float)) and finite(value) is not None:
            numbers[title] = None if title in absent else float(value)
        elif value is not None:
            detail.append(f"{name}: {shown(value)}")
    return Row(
        prompt=prompt,
        text=text,
        answer=None if said.get("gts") is None else str(said["gts"]),
        numbers=numbers,
        total=numbers[TOTAL],
        extracted=str(said["pred"]) if said.get("pred") not in (None, "") else None,
        advantage=finite(said.get("advantage")) if ours else None,
        detail=" · ".join(detail),
        logprobs=_logprobs(said),
        group=uid.rsplit("_", 2)[0] if isinstance(uid, str) and uid.count("_") >= 2 else prompt,
    )


def _logprobs(said: Record) -> list[float] | None:
    """A list of finite numbers, from the first column that has one."""
    for name in LOGPROBS:
        values: Any = said.get(name)
        if isinstance(values, list) and values and all(finite(value) is not None for value in values):
            return [float(value) for value in values]
    return None


def _identity(row: Row) -> str:
    return str(row.group)[:8] if row.group != row.prompt else prompt_identity(row.prompt)
