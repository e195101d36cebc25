"""Links outside of the site, which Sphinx does not see, and what the code blocks of the documentation are held to."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.helpers import documented

DOCS = documented.ROOT / "docs"


def local_links(page: Path) -> list[str]:
    def within(tokens: list[Token]) -> list[Token]:
        return [each for token in tokens for each in (token, *within(token.children or []))]

    tokens = within(MarkdownIt().parse(page.read_text(encoding="utf-8")))
    targets = [str(token.attrs.get("href") or token.attrs.get("src") or "") for token in tokens]
    return [
        target.partition("#")[0] for target in targets if target and "://" not in target and not target.startswith("#")
    ]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_pages_outside_of_the_site_lead_to_files(page: str) -> None:
    missing = [link for link in local_links(documented.ROOT / page) if not (documented.ROOT / link).exists()]
    assert missing == []


def test_the_first_page_links_every_other() -> None:
    pages = {page.name for page in DOCS.glob("*.md")} - {"index.md"}
    assert pages <= set(local_links(DOCS / "index.md"))


def block(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **namespace: Any) -> Any:
    return SimpleNamespace(
        parsed=text, line=1, path="page.md", namespace={"tmp_path": folder, "monkeypatch": monkeypatch, **namespace}
    )


@pytest.mark.parametrize(
    ("check", "text", "error"),
    [
        (documented.bash_block, "lampo train quickstart --dry", "No such option: --dry"),
        (documented.bash_block, "lampo rain quickstart", "No such command 'rain'"),
        (documented.bash_block, "lampo train quickstart \\\n  --set rewards.overlong_penalty=1", "overlong_penalty"),
        (documented.bash_block, "lampo train mine.yaml --set optimiser.learning_rate=1", "optimiser"),
        (documented.bash_block, "make dinner", "no target dinner"),
        (documented.bash_block, "pip install 'lampo[tain]'", "extras"),
        (documented.bash_block, "python benchmarks/nothing.py", "there is no benchmarks/nothing.py"),
        (documented.bash_block, "rm -r runs", "rm is not known here"),
        (documented.yaml_block, "rewards: {rouge_l: 0.2}", "rewards.rouge_l.weight=0.2"),
        (documented.yaml_block, "advantage: {name: 'python:mine.shown_nowhere'}", "shown_nowhere"),
        (documented.yaml_block, "{name: s, recipe: r.yaml, methods: [grpo, lampa]}", "lampa"),
    ],
)
def test_blocks_that_would_fail_the_reader_fail(
    check: Callable[[Any], None], text: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Exception, match=error):
        check(block(text, tmp_path, monkeypatch))


def test_blocks_that_hold_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documented.bash_block(
        block("lampo --version\nlampo tasks\nlampo tasks check quickstart # how many", tmp_path, monkeypatch)
    )
    documented.bash_block(block("make test\npip install -e '.[dev,docs]'", tmp_path, monkeypatch))
    documented.yaml_block(block("training: {steps: 3}", tmp_path, monkeypatch))
