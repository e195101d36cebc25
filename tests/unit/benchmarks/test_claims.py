"""Every table and every interval of the documentation is that of the committed results."""

from pathlib import Path

import pytest

from benchmarks import claims
from lampo.types import LampoError


def test_every_table_of_the_documentation_is_what_the_committed_results_give() -> None:
    assert [path for path, text in claims.tables().items() if path.read_text(encoding="utf-8") != text] == []


def test_every_interval_of_the_prose_is_one_that_the_committed_results_give() -> None:
    assert list(claims.prose()) == []


def test_an_interval_is_found_with_the_number_before_it() -> None:
    text = "LamPO ends 1.0 points [+0.5, +1.4] above, 46.0 % [45.3, 46.8], **+2.1 [0.0, +2.7]** and [-0.5, +0.1], see [1, 2]."
    assert claims.found_in(text) == [
        ("1.0", "[+0.5, +1.4]"),
        ("46.0", "[45.3, 46.8]"),
        ("2.1", "[0.0, +2.7]"),
        ("", "[-0.5, +0.1]"),
    ]


def test_an_interval_that_nothing_gives_is_told_unless_it_is_the_log_s(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(
        "[log](../log.md): +9.9 [+9.1, +9.8]\n\nLamPO leads by 9.9 points [+9.1, +9.8], or by +1.0 [0.0, +2.0].\n"
    )
    known = {("1.0", "[0.0, +2.0]"), ("9.9", "[+9.2, +9.8]")}
    assert list(claims.unfounded(page, known)) == [(3, "9.9 [+9.1, +9.8]", ["[+9.2, +9.8]"])]


def test_the_tables_of_the_suite_take_the_place_of_those_under_their_headings() -> None:
    notes = "\n".join(f"- {line}" for line in claims.HOW_TO_READ)
    page = f"# The suite\n\n### Minus grpo: a\n\n| old |\n\n### Seeds\n\n| old |\n\n{notes[:60]}\n- more\n\n## Rows\n\nText.\n"
    made = f"# suite\n\n### Minus grpo: a\n\n| new |\n\n### Seeds\n\n| 10 |\n\n{notes}\n"
    assert claims.with_parts(page, made) == (
        f"# The suite\n\n### Minus grpo: a\n\n| new |\n\n### Seeds\n\n| 10 |\n\n{notes}\n\n## Rows\n\nText.\n"
    )
    with pytest.raises(LampoError, match="no heading: ### Minus grpo: b"):
        claims.with_parts(page, made.replace(": a", ": b"))
