import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
INTERVAL = re.compile(r"[+-]?\d+\.\d \[[^\]]+\]")


def test_every_interval_of_the_front_page_stands_where_its_row_links_to() -> None:
    """Rows without a link are the suite's."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|") and INTERVAL.search(line)]
    assert len(rows) == 7
    for row in rows:
        pages = [ROOT / page for page in re.findall(r"\((docs/results/[^)#]+)", row) or ["docs/suite.md"]]
        sources = [source for page in pages for source in (page, page.with_name("comparison.md"))]
        told = "".join(source.read_text(encoding="utf-8") for source in sources if source.is_file())
        found = INTERVAL.findall(row)
        assert all(each in told for each in found), row
