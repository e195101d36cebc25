"""What the tests of pages ask about a page."""

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """The texts and attributes of a page by tag, and a check that its elements are closed in order."""

    VOID = frozenset({"meta", "link", "img", "br", "input", "line"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[int] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in self.VOID:
            self.open.append(len(self.texts))
            self.texts.append((tag, ""))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.texts[self.open.pop()][0] == tag

    def handle_data(self, data):
        if self.open:
            tag, text = self.texts[self.open[-1]]
            self.texts[self.open[-1]] = (tag, text + data)

    def of(self, tag: str) -> list[str]:
        return [text.strip() for name, text in self.texts if name == tag]
