"""The records of an evaluation: one line for each problem, written when it is done, so that a killed one can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from ..store.files import write_file
from ..store.lock import LOCK, lock
from ..types import LampoError, Response, Verdict
from .scores import Difference, ProblemMean, majority, mean_over_problems, paired_difference, pass_at_k

SETTINGS, RECORDS, SUMMARY = "settings.yaml", "records.jsonl", "summary.json"


@dataclass(frozen=True, slots=True)
class ProblemRecord:
    """One problem, what was answered, and what the verifier says of it."""

    id: str
    prompt: str
    answer: str
    responses: tuple[Response, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def known(self) -> list[bool]:
        """Of the responses with a verdict, whether they are right."""
        return [verdict.status == "right" for verdict in self.verdicts if verdict.status != "unknown"]

    @property
    def accuracy(self) -> float | None:
        """Share of right responses among those with a verdict. None if there is none."""
        return sum(self.known) / len(self.known) if self.known else None

    def line(self) -> str:
        """The record as a line of JSON."""
        answered = [
            asdict(response) | asdict(verdict) for response, verdict in zip(self.responses, self.verdicts, strict=True)
        ]
        fields = {"id": self.id, "prompt": self.prompt, "answer": self.answer, "responses": answered}
        return json.dumps(fields, ensure_ascii=False) + "\n"

    @classmethod
    def parse(cls, line: str) -> ProblemRecord:
        """A record from its line.

        Raises:
            ValueError: it is not whole.
        """
        fields = json.loads(line)
        responses = [
            Response(answered["text"], answered["num_tokens"], answered["finished"]) for answered in fields["responses"]
        ]
        verdicts = [
            Verdict(*(answered[key] for key in ("status", "extracted", "detail", "seconds", "score")))
            for answered in fields["responses"]
        ]
        return cls(fields["id"], fields["prompt"], fields["answer"], tuple(responses), tuple(verdicts))


class Records:
    """The folder of one benchmark's records.

    Attributes:
        folder: where they are.
        done: those that are there, by the problem's id.
        lock: held until it is released, so that no other process writes there.

    Raises:
        LampoError: it was begun with other settings, or another process writes there.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.lock = lock(folder / LOCK, f"The evaluation in {folder}")
        file = folder / SETTINGS
        if file.exists():
            _refuse_other_settings(folder, yaml.safe_load(file.read_text(encoding="utf-8")), settings)
        else:
            write_file(file, yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True).encode())
        self._mend()
        self.done = {record.id: record for record in read_records(folder)}

    def holds(self, problem_id: str, prompt: str, answer: str) -> bool:
        """Whether the problem was asked before.

        Raises:
            LampoError: another problem was asked under its id, which is often no more than a row's number.
        """
        before = self.done.get(problem_id)
        if before is not None and (before.prompt, before.answer) != (prompt, answer):
            raise LampoError(
                f"{self.folder} was begun with other problems: what it holds as {problem_id} has another prompt or answer than the "
                "one to ask now. Give another --output, or the same --data to go on."
            )
        return before is not None

    def add(self, record: ProblemRecord) -> None:
        """Write a record down. It is on disk when this returns."""
        with (self.folder / RECORDS).open("ab") as stream:
            stream.write(record.line().encode(errors="backslashreplace"))  # half a surrogate pair, as JSON writes it
            stream.flush()
            os.fsync(stream.fileno())
        self.done[record.id] = record

    def _mend(self) -> None:
        """Cut off a last line that a kill left torn."""
        file = self.folder / RECORDS
        if file.exists():
            data = file.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if len(whole) < len(data):
                write_file(file, whole)


def read_records(folder: Path) -> Iterator[ProblemRecord]:
    """The records of a benchmark's folder.

    Raises:
        LampoError: a line is damaged.
    """
    file = folder / RECORDS
    if not file.exists():
        return
    with file.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield ProblemRecord.parse(line)
            except (ValueError, KeyError, TypeError) as error:
                raise LampoError(
                    f"{file}, line {number}: not a record ({error}). Delete the line and run again."
                ) from None


def summarise(records: Sequence[ProblemRecord], samples: int) -> dict[str, Any]:
    """avg@k, pass@k, maj@k over problems with intervals, and the shares of unknown and cut responses.

    A problem none of whose responses has a verdict is left out, and counted. pass@k is over the problems that have at
    least k verdicts.

    Raises:
        LampoError: no response has a verdict.
    """
    verified = [record for record in records if record.known]
    if not verified:
        first = next((verdict.detail for record in records for verdict in record.verdicts if verdict.detail), "")
        raise LampoError(f"Every verdict is unknown. The first: {first or 'the verifier gave no reason'}")
    estimates: dict[str, ProblemMean] = {
        f"avg@{samples}": mean_over_problems([record.accuracy for record in verified if record.accuracy is not None])
    }
    k = 1
    while k <= samples:
        values = [pass_at_k(len(record.known), sum(record.known), k) for record in verified if len(record.known) >= k]
        if values and k > 1:
            estimates[f"pass@{k}"] = mean_over_problems(values)
        k *= 2
    if samples > 2:
        votes = [majority(record.verdicts) for record in verified]
        estimates[f"maj@{samples}"] = mean_over_problems([vote or 0.0 for vote in votes])
    responses = [response for record in records for response in record.responses]
    lengths = [response.num_tokens for response in responses if response.num_tokens is not None]
    unknown = sum(verdict.status == "unknown" for record in records for verdict in record.verdicts)
    return {
        "estimates": {name: asdict(estimate) for name, estimate in estimates.items()},
        "problems": len(records),
        "problems_without_verdict": len(records) - len(verified),
        "responses": len(responses),
        "unknown": unknown / len(responses),
        "truncated": sum(not response.finished for response in responses) / len(responses),
        "no_answer": sum(v.status == "wrong" and not v.extracted for r in records for v in r.verdicts) / len(responses),
        "length_mean": sum(lengths) / len(lengths) if lengths else None,
    }


def compare(a: Path, b: Path) -> dict[str, Difference]:
    """B minus A for every benchmark that both evaluations have, over the problems that both answered.

    Raises:
        LampoError: they have no benchmark in common, or no problem of one, or asked other problems under the same ids.
    """
    both = sorted(
        {file.parent.name for file in a.glob(f"*/{RECORDS}")} & {file.parent.name for file in b.glob(f"*/{RECORDS}")}
    )
    if not both:
        raise LampoError(f"{a} and {b} have no benchmark in common: both must be folders that lampo eval wrote.")
    differences: dict[str, Difference] = {}
    for name in both:
        before, after = (
            {
                record.id: (record.accuracy, record.prompt, record.answer)
                for record in read_records(folder / name)
                if record.accuracy is not None
            }
            for folder in (a, b)
        )
        ids = sorted(before.keys() & after.keys())
        if not ids:
            raise LampoError(f"{a / name} and {b / name} have no problem in common.")
        if other := next((id_ for id_ in ids if before[id_][1:] != after[id_][1:]), None):
            raise LampoError(
                f"{a / name} and {b / name} asked other problems: {other} has another prompt or answer in each. "
                "Measure both on the same problems."
            )
        differences[name] = paired_difference([before[id_][0] for id_ in ids], [after[id_][0] for id_ in ids])
    return differences


def _refuse_other_settings(folder: Path, before: Any, now: Mapping[str, Any]) -> None:
    plain = yaml.safe_load(yaml.safe_dump(dict(now)))
    changed = [key for key in plain if (before or {}).get(key) != plain[key]]
    if changed:
        lines = "\n".join(f"  {key}: {(before or {}).get(key)!r} then, {plain[key]!r} now" for key in changed)
        raise LampoError(
            f"{folder} was begun with other settings:\n{lines}\nGive another --output, or the same settings to go on."
        )
