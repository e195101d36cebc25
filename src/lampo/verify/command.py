"""`lampo verify`: a file of responses, judged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..config.load import parse_setting
from ..messages import printable
from ..tasks.files import read_rows
from . import verifier as verifier_of
from .score_file import score_rows, unknowns, write_verdicts


def verify_file(
    file: Path,
    verifier: str,
    settings: Sequence[str],
    *,
    completion: str | None,
    answer: str | None,
    workers: int | None,
    output: Path | None,
) -> None:
    """Count the right, wrong and unknown responses of a file, and say why those are unknown."""
    chosen = verifier_of(verifier, **dict(map(parse_setting, settings)))
    rows = read_rows(str(file))
    begin = time.monotonic()
    verdicts = score_rows(rows, chosen, completion=completion, answer=answer, workers=workers)
    seconds = time.monotonic() - begin
    if output is not None:
        write_verdicts(output, rows, verdicts)
    counts = {status: sum(verdict.status == status for verdict in verdicts) for status in ("right", "wrong", "unknown")}
    known = counts["right"] + counts["wrong"]
    print(
        f"{len(rows):,} responses in {seconds:.1f} s: "
        + ", ".join(f"{status} {count:,}" for status, count in counts.items())
        + (f". {counts['right'] / known:.1%} right of those verified." if known else "")
    )
    if counts["unknown"]:
        table = Table("why unknown", "responses", "first rows")
        for entry in unknowns(rows, verdicts):
            table.add_row(Text(printable(entry.reason)), f"{entry.count:,}", ", ".join(map(str, entry.rows)))
        Console().print(table)
